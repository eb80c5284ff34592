"""Runs all services as a user does, `python -m services`, on ports of their own, and calls them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from flowstack_protos.billing.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from flowstack_protos.quota.v1 import quota_service_pb2, quota_service_pb2_grpc
from flowstack_protos.router.v1 import router_service_pb2, router_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.shared.server import SERVICES
from services.shared.settings import CommonSettings
from services.suite.ready import admin_addresses, wait_until_serving

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
CALL_SECONDS = 60.0

Metadata = tuple[tuple[str, str], ...]


PORTS_OF_WORKER = 1_500
"""Below those that the system gives out by itself; each of the first eight workers of pytest-xdist has its own."""
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, next to one another; each is given once by a process.

    A service takes its port a while later, when another test may have asked, also in another worker.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    begin = 20_000 + worker * PORTS_OF_WORKER
    while True:
        first = random.randrange(begin, begin + PORTS_OF_WORKER - count)
        if not _given.isdisjoint(range(first, first + count)):
            continue
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
        _given.update(range(first, first + count))
        return list(range(first, first + count))


@dataclass
class Suite:
    """The running services, and clients of them."""

    process: subprocess.Popen[str]
    settings: CommonSettings
    environment: Mapping[str, str]
    billing: grpc.aio.Channel
    quota: grpc.aio.Channel
    router: grpc.aio.Channel
    keys: dict[str, Metadata] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.data_dir

    @property
    def admin(self) -> Metadata:
        """The operator's metadata."""
        return (("authorization", f"Bearer {self.settings.admin_tokens()[0].reveal()}"),)

    @property
    def internal(self) -> Metadata:
        """A service's metadata."""
        return (("authorization", f"Bearer {self.settings.internal_tokens()[0].reveal()}"),)

    async def open_account(self, plan_id: str) -> tuple[str, str]:
        """A new account and the secret of its key."""
        stub = account_service_pb2_grpc.AccountServiceStub(self.billing)
        created = await stub.CreateAccount(
            account_service_pb2.CreateAccountRequest(display_name="E", email="e@example.com", plan_id=plan_id),
            metadata=self.admin,
            timeout=CALL_SECONDS,
        )
        assert created.entitlement_applied
        account_id = created.account.account_id
        key = await stub.CreateApiKey(
            account_service_pb2.CreateApiKeyRequest(account_id=account_id, display_name="e"),
            metadata=self.admin,
            timeout=CALL_SECONDS,
        )
        return account_id, key.secret

    async def usage(self, secret: str) -> usage_service_pb2.Usage:
        """The account's usage."""
        stub = usage_service_pb2_grpc.UsageServiceStub(self.billing)
        request = usage_service_pb2.GetUsageRequest()
        return (await stub.GetUsage(request, metadata=bearer(secret), timeout=CALL_SECONDS)).usage

    async def account_quota(self, account_id: str) -> type_pb2.Quota:
        """The account's quota, from quota itself."""
        stub = quota_service_pb2_grpc.QuotaServiceStub(self.quota)
        request = quota_service_pb2.GetQuotaRequest(account_id=account_id)
        return (await stub.GetQuota(request, metadata=self.internal, timeout=CALL_SECONDS)).quota

    async def session(self, account_id: str, session_id: str) -> type_pb2.Session:
        """A session, from quota."""
        stub = quota_service_pb2_grpc.QuotaServiceStub(self.quota)
        request = quota_service_pb2.GetSessionRequest(account_id=account_id, session_id=session_id)
        return (await stub.GetSession(request, metadata=self.internal, timeout=CALL_SECONDS)).session

    def watch_quota(self, account_id: str) -> Any:
        """The account's quota after each change."""
        stub = quota_service_pb2_grpc.QuotaServiceStub(self.quota)
        request = quota_service_pb2.WatchQuotaRequest(account_id=account_id)
        return stub.WatchQuota(request, metadata=self.internal, timeout=120)

    def complete(self, secret: str, **fields: Any) -> Any:
        """A completion's stream; by default of `echo`."""
        stub = router_service_pb2_grpc.RouterServiceStub(self.router)
        return stub.Complete(completion(**fields), metadata=bearer(secret), timeout=CALL_SECONDS)


def completion(text: str = "Hello there", **fields: Any) -> router_service_pb2.CompleteRequest:
    """A completion request; by default for `echo`."""
    message = router_service_pb2.Message(
        role=router_service_pb2.MESSAGE_ROLE_USER, content=[router_service_pb2.ContentPart(text=text)]
    )
    return router_service_pb2.CompleteRequest(
        **{"provider": "echo", "model": "echo-1", "messages": [message], **fields}
    )


def bearer(secret: str) -> Metadata:
    """The metadata that carries a key or token."""
    return (("authorization", f"Bearer {secret}"),)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the error's ErrorInfo."""
    return info_of(error).reason


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The error's ErrorInfo."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "flowstack"
    return info


def suite_environment(data: Path, overrides: Mapping[str, str]) -> dict[str, str]:
    """The environment of a suite on ports of its own."""
    ports = free_ports(9)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWSTACK_", "OPENAI_"))}
    return environment | {
        "FLOWSTACK_DATA_DIR": str(data),
        "FLOWSTACK_ROUTER_ADDRESS": f"127.0.0.1:{ports[0]}",
        "FLOWSTACK_QUOTA_ADDRESS": f"127.0.0.1:{ports[1]}",
        "FLOWSTACK_BILLING_ADDRESS": f"127.0.0.1:{ports[2]}",
        "FLOWSTACK_VAULT_ADDRESS": f"127.0.0.1:{ports[3]}",
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": f"127.0.0.1:{ports[4]}",
        "FLOWSTACK_ADMIN_PORT_BASE": str(ports[5]),
        "PYTHONPATH": str(ROOT),
        **overrides,
    }


def settings_of(environment: Mapping[str, str]) -> CommonSettings:
    """The settings that a service reads from this environment."""
    names = {name.removeprefix("FLOWSTACK_").lower() for name in environment if name.startswith("FLOWSTACK_")}
    known = {name: environment[f"FLOWSTACK_{name.upper()}"] for name in names & set(CommonSettings.model_fields)}
    return CommonSettings(**known)  # type: ignore[arg-type]  # pydantic parses the text


@asynccontextmanager
async def running_suite(data: Path, **overrides: str) -> AsyncIterator[Suite]:
    """Starts all services in a folder of their own, and drains them afterwards."""
    environment = suite_environment(data, overrides)
    settings = settings_of(environment)
    log = (data / "suite.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "services"], cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
    )
    try:
        await _wait_until_up(process, settings, data)
        async with (
            grpc.aio.insecure_channel(settings.billing_address) as billing,
            grpc.aio.insecure_channel(settings.quota_address) as quota,
            grpc.aio.insecure_channel(settings.router_address) as router,
        ):
            yield Suite(process, settings, environment, billing, quota, router)
    finally:
        process.terminate()
        try:
            assert await asyncio.to_thread(process.wait, 60) == 0, (data / "suite.log").read_text()
        finally:
            process.kill()
            log.close()


async def _wait_until_up(process: subprocess.Popen[str], settings: CommonSettings, data: Path) -> None:
    ready = asyncio.create_task(wait_until_serving(admin_addresses(settings, SERVICES), READY_SECONDS))
    ended = asyncio.create_task(asyncio.to_thread(process.wait))
    await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
    assert not ended.done(), (data / "suite.log").read_text()
    assert ready.result() == [], (data / "suite.log").read_text()


def child_ids(process_id: int) -> dict[str, int]:
    """The processes of the services below a supervisor, by name."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = status.read_text().split("PPid:")[1].split()[0]
            arguments = (status.parent / "cmdline").read_text().split("\0")
        except (OSError, IndexError):
            continue  # it ended while we looked
        # A child between its birth and its program has no such arguments yet, and a dead one no more.
        if parent == str(process_id) and len(arguments) > 2 and arguments[2].startswith("services."):
            found[arguments[2].removeprefix("services.")] = int(status.parent.name)
    return found
