"""What the router's figures are measured on: upstream, quota and billing on SQLite, the router, and the bare relay."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from flowstack_protos.billing.v1 import account_service_pb2, account_service_pb2_grpc
from flowstack_protos.quota.v1 import quota_service_pb2, quota_service_pb2_grpc

from bench.population import UNLIMITED
from bench.processes import READY_SECONDS, Server, child, free_port, running
from services.shared.channel import Metadata

UPSTREAM: Final = "upstream: an OpenAI-compatible server of the bench's own, 1 process"
STORE: Final = "quota and billing on SQLite, WAL, synchronous=FULL"


@dataclass(frozen=True)
class Upstream:
    """The upstream's process, and the base of its addresses, such as http://127.0.0.1:1234/v1."""

    process_id: int
    url: str


@dataclass(frozen=True)
class Stack:
    """The services, and a customer's key."""

    quota: Server
    billing: Server
    router: Server
    metadata: Metadata
    """Of the customer."""
    address: str
    """The router's."""


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """Runs the upstream."""
    port = free_port()
    with child([sys.executable, "-m", "bench.upstream", str(port)], {}) as process:
        await _listening(port)
        yield Upstream(process.pid, f"http://127.0.0.1:{port}/v1")


@asynccontextmanager
async def relay(target: Upstream, data: Path) -> AsyncIterator[Server]:
    """Runs the bare relay in front of the upstream."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ["-m", "bench.relay", address, f"{target.url}/chat/completions"]
    async with running(arguments, address, data, {}) as server:
        yield server


@asynccontextmanager
async def stack(target: Upstream, data: Path, *, profile: Path | None = None) -> AsyncIterator[Stack]:
    """Runs quota, billing and a router with one worker, and opens an account without limits.

    Args:
        target: where the router's provider `openai` is.
        data: a folder on a real disk, for commits to be durable.
        profile: where the router's cProfile statistics go when it ends; it is measured without where None.
    """
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("ROUTER", "QUOTA", "BILLING", "BILLING_INTERNAL")}
    environment = {
        **{f"FLOWSTACK_{name}_ADDRESS": address for name, address in addresses.items()},
        "FLOWSTACK_DATA_DIR": str(data),
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
        "FLOWSTACK_EXPIRY_HOLD_SECONDS": "0",
        "FLOWSTACK_OPENAI_BASE_URL": target.url,
        "FLOWSTACK_ROUTER_WORKERS": "1",
        "FLOWSTACK_DRAIN_GRACE_SECONDS": "0",
    }
    router = ["-m", "services.router"]
    if profile is not None:
        router = ["-m", "cProfile", "-o", str(profile), *router]
    async with AsyncExitStack() as running_now:

        async def start(arguments: list[str], address: str) -> Server:
            return await running_now.enter_async_context(running(arguments, address, data, environment))

        quota = await start(["-m", "services.quota"], addresses["QUOTA"])
        billing = await start(["-m", "services.billing"], addresses["BILLING"])
        key = await _open_account(quota, billing)
        served = await start(router, addresses["ROUTER"])
        yield Stack(quota, billing, served, (("authorization", f"Bearer {key}"),), addresses["ROUTER"])


async def _open_account(quota: Server, billing: Server) -> str:
    """The key of an account whose limits the bench will not reach."""
    token = (billing.data / "admin-token").read_text().strip()
    admin: Metadata = (("authorization", f"Bearer {token}"),)
    accounts = account_service_pb2_grpc.AccountServiceStub(billing.channel.channel)
    created = await accounts.CreateAccount(
        account_service_pb2.CreateAccountRequest(display_name="Bench", email="bench@example.com", plan_id="starter"),
        metadata=admin,
    )
    account_id = created.account.account_id
    key = await accounts.CreateApiKey(
        account_service_pb2.CreateApiKeyRequest(account_id=account_id, display_name="bench"), metadata=admin
    )
    quotas = quota_service_pb2_grpc.QuotaServiceStub(quota.channel.channel)
    internal = quota.channel.metadata
    request = quota_service_pb2.GetEntitlementRequest(account_id=account_id)
    entitlement = (await quotas.GetEntitlement(request, metadata=internal)).entitlement
    entitlement.revision += 1
    for term in entitlement.terms:
        term.session_limit = UNLIMITED
        term.max_concurrent_sessions = UNLIMITED
    await quotas.PutEntitlement(quota_service_pb2.PutEntitlementRequest(entitlement=entitlement), metadata=internal)
    return str(key.secret)


async def _listening(port: int) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def channel_of_its_own(address: str) -> grpc.aio.Channel:
    """A channel that shares its connection with no other."""
    return grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
