"""The router as a process: started, signalled, killed."""

from __future__ import annotations

import signal

import grpc
import pytest
from flowstack_protos.type.v1 import type_pb2

from services.shared.errors import Reason
from tests.grpc.router.harness import METADATA, drained, echo_request, finished, read_into
from tests.grpc.router.process import router, start, talking
from tests.support.fake_quota import FakeQuota


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
