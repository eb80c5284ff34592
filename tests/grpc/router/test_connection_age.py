"""What happens on a connection that has come to its age."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc
from flowstack_protos.type.v1 import type_pb2

from services.router.__main__ import port_options
from services.router.limits import SessionLimits
from services.shared.errors import Reason
from tests.grpc.router.harness import (
    METADATA,
    RouterUnderTest,
    drained,
    echo_request,
    finished,
    openai_request,
    read_into,
    running_router,
    text_of,
)
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Exchange, FaultServer

AGE_SECONDS = 0.5


@pytest.fixture
async def router(quota: FakeQuota, upstream: FaultServer) -> AsyncIterator[RouterUnderTest]:
    async with running_router(quota, upstream, options=port_options(SessionLimits(), AGE_SECONDS)) as running:
        yield running


@asynccontextmanager
async def connected(router: RouterUnderTest) -> AsyncIterator[tuple[Any, grpc.aio.Channel]]:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}", options=options) as channel:
        yield pb_grpc.RouterServiceStub(channel), channel


async def until_aged(channel: grpc.aio.Channel) -> None:
    """Waits until the server has said that the connection takes no new calls."""
    async with asyncio.timeout(20):
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)


async def test_what_runs_goes_on_and_new_calls_find_a_new_connection(router: RouterUnderTest) -> None:
    async with connected(router) as (stub, channel):
        call = stub.Complete(echo_request("a b", **{"echo.delay_ms": "5"}), metadata=METADATA)
        await router.sleeps.begun.acquire()
        await until_aged(channel)
        events = [event async for event in stub.Complete(echo_request("c"), metadata=METADATA)]
        assert text_of(events) == "c"
        router.sleeps.pass_(2)
        events = await read_into([], call)

    assert text_of(events) == "a b"
    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED
    assert router.quota.states() == ["COMMITTED"] * 2


async def test_a_drain_lets_what_runs_there_finish(router: RouterUnderTest) -> None:
    async with connected(router) as (stub, channel):
        call = stub.Complete(echo_request("a b", **{"echo.delay_ms": "5"}), metadata=METADATA)
        await router.sleeps.begun.acquire()
        await until_aged(channel)
        drain = asyncio.create_task(router.service.drain(30))
        _, error = await drained(stub.Complete(echo_request("c"), metadata=METADATA))
        assert error.reason is Reason.SHUTTING_DOWN
        assert not drain.done()
        router.sleeps.pass_(2)
        events = await read_into([], call)
        await drain

    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED


async def test_a_call_whose_reader_never_takes_its_end_ends_with_the_connection(
    quota: FakeQuota, upstream: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def floods(exchange: Exchange) -> None:
        await exchange.begin()
        while not exchange.client_closed.is_set():
            await exchange.text("x" * 60_000)

    upstream.script(floods)
    limits = SessionLimits(first_message_s=1, time_limit_s=2, reader_stall_s=1, resolution_answer_s=1)
    options = port_options(limits, AGE_SECONDS)
    async with (
        running_router(quota, upstream, limits=limits, options=options) as router,
        connected(router) as (stub, _),
    ):
        call = stub.Complete(openai_request(), metadata=METADATA)
        await call.read()
        (session,) = router.service._running.values()
        abandon, abandoned = session.buffer.abandon, asyncio.Event()
        monkeypatch.setattr(session.buffer, "abandon", lambda: (abandon(), abandoned.set()))
        await router.settled()
        assert quota.states() == ["COMMITTED"]
        async with asyncio.timeout(30):
            # It is abandoned once the call has ended, which nobody but the connection's end brings about.
            await abandoned.wait()
        call.cancel()
