"""The router as a process: started, signalled, killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as billing_pb
from flowstack_protos.billing.v1 import account_service_pb2_grpc as billing_grpc
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc
from flowstack_protos.type.v1 import type_pb2

from services.shared.errors import Reason
from tests.grpc.router.harness import API_KEY, METADATA, drained, echo_request, finished, read_into
from tests.support.fake_quota import FakeQuota

ROOT = Path(__file__).parents[3]


class FakeBilling(billing_grpc.AccountServiceServicer):
    async def AuthenticateApiKey(
        self, request: billing_pb.AuthenticateApiKeyRequest, context: Any
    ) -> billing_pb.AuthenticateApiKeyResponse:
        assert request.api_key == API_KEY
        return billing_pb.AuthenticateApiKeyResponse(account_id="acct_1", api_key_id="key_1")


@pytest.fixture
async def settings(quota: FakeQuota, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    billing = grpc.aio.server()
    billing_grpc.add_AccountServiceServicer_to_server(FakeBilling(), billing)
    port = billing.add_insecure_port("127.0.0.1:0")
    await billing.start()
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLOWSTACK_")},
        "FLOWSTACK_DATA_DIR": str(tmp_path),
        "FLOWSTACK_ROUTER_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_QUOTA_ADDRESS": quota.address,
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": f"127.0.0.1:{port}",
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
        "FLOWSTACK_DRAIN_GRACE_SECONDS": "0.2",
    }
    await billing.stop(0)


async def start(settings: dict[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.router", cwd=ROOT, env=settings, stderr=PIPE
    )


@asynccontextmanager
async def router(settings: dict[str, str]) -> AsyncIterator[tuple[Process, Any]]:
    process = await start(settings)
    assert process.stderr is not None
    port = 0
    while not port:
        line = await process.stderr.readline()
        assert line, "the router ended"
        said = json.loads(line) if line.startswith(b"{") else {}
        port = said.get("port", 0) if said.get("event") == "listening" else 0
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, pb_grpc.RouterServiceStub(channel)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def talking(stub: Any) -> Any:
    """A stream that would go on for a minute, after its first words."""
    call = stub.Complete(echo_request("a b", **{"echo.words": "1000", "echo.delay_ms": "60"}), metadata=METADATA)
    while not (await call.read()).text_delta:
        pass
    return call


async def test_it_serves_and_counts(settings: dict[str, str], quota: FakeQuota) -> None:
    async with router(settings) as (process, stub):
        events = [event async for event in stub.Complete(echo_request("hello there"), metadata=METADATA)]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED
    assert quota.only.api_key_id == "key_1"


async def test_a_signal_releases_what_outlasts_the_grace(settings: dict[str, str], quota: FakeQuota) -> None:
    async with router(settings) as (process, stub):
        call = await talking(stub)
        process.send_signal(signal.SIGTERM)
        _, error = await drained(call)
        assert await process.wait() == 0

    assert error.reason is Reason.SHUTTING_DOWN
    assert error.metadata["counted"] == "false"
    assert quota.states() == ["RELEASED"]


async def test_a_signal_waits_for_no_call_without_a_session(settings: dict[str, str]) -> None:
    async with router({**settings, "FLOWSTACK_DRAIN_GRACE_SECONDS": "3600"}) as (process, stub):
        chat = stub.Chat(metadata=METADATA)
        await anext(aiter(stub.Complete(echo_request("a"), metadata=METADATA)))
        process.send_signal(signal.SIGTERM)
        _, error = await drained(chat)
        assert await process.wait() == 0

    assert error.reason is Reason.SHUTTING_DOWN


async def test_a_kill_leaves_the_lease_to_quota(settings: dict[str, str], quota: FakeQuota) -> None:
    async with router(settings) as (process, stub):
        call = await talking(stub)
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await read_into([], call)

    assert quota.states() == ["RESERVED"]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("FLOWSTACK_LEASE_SECONDS", "310", "FLOWSTACK_LEASE_SECONDS"),
        ("FLOWSTACK_PROVIDERS_FILE", "/nowhere/providers.toml", "FLOWSTACK_PROVIDERS_FILE"),
        ("FLOWSTACK_ROUTER_ADDRESS", "0.0.0.0:0", "FLOWSTACK_TLS_CERT_FILE"),
        ("FLOWSTACK_INTERNAL_TOKEN_FILE", "/nowhere/token", "FLOWSTACK_INTERNAL_TOKEN_FILE"),
        ("FLOWSTACK_TLS_CERT_FILE", "/nowhere/cert.pem", "FLOWSTACK_TLS_"),
        ("FLOWSTACK_OPENAI_BASE_URL", "notaurl", "FLOWSTACK_OPENAI_BASE_URL"),
        ("OPENAI_API_KEY", "two\nlines", "OPENAI_API_KEY"),
    ],
)
async def test_settings_that_do_not_fit_end_it_with_a_sentence(
    settings: dict[str, str], setting: str, value: str, says: str
) -> None:
    token = {"FLOWSTACK_INTERNAL_TOKEN": "t"}
    process = await start({**settings, **token, setting: value})
    _, stderr = await process.communicate()

    assert process.returncode == 78
    assert says in stderr.decode()
    assert "Traceback" not in stderr.decode()
    assert "Unclosed" not in stderr.decode()
