"""Many streams whose providers are quick and whose callers do not read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc
from flowstack_protos.type.v1 import type_pb2

from services.router.domain.coalesce import size_bytes
from services.router.limits import SessionLimits
from tests.grpc.router.harness import METADATA, RouterUnderTest, drained, finished, request_to, running_router, text_of
from tests.support.dialects import DIALECTS
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Exchange, FaultServer, fault_server

STREAMS = 120
WORD = "x" * 4_000
WORDS = 100
"""More than the router and the caller's side of gRPC hold together."""
CHECKS = 50
"""How many looks at the sessions have to agree that they stand still."""
TURNS = 20
"""How often the event loop turns between two looks."""
HELD_BYTES_MAX = 96 * 1024
"""What a session may hold for its caller: what makes its buffer full, and the most that one read of a provider adds."""

CALLERS_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    # So that the caller's side takes no more than 64 KiB of a stream that is not read.
    ("grpc.http2.bdp_probe", 0),
)


@pytest.fixture(params=list(DIALECTS))
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[FaultServer]:
    async with fault_server(DIALECTS[request.param]) as server:
        yield server


async def floods(exchange: Exchange) -> None:
    await exchange.begin()
    for _ in range(WORDS):
        await exchange.text(WORD)
    await exchange.finish(prompt_tokens=3, completion_tokens=WORDS)
    await exchange.hold()


def held_bytes(router: RouterUnderTest) -> list[int]:
    """What each running session holds for its caller."""
    return [size_bytes(session.buffer._events) for session in router.service._running.values()]


async def until_held_up(router: RouterUnderTest, streams: int) -> None:
    """Waits until so many sessions stand still, full, at one look after the other; looks at their bounds all the while.

    Raises:
        AssertionError: one of them holds too much, or has ended.
    """
    full, limit = 0, SessionLimits().buffer_bytes
    async with asyncio.timeout(60):
        while full < CHECKS:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            held = held_bytes(router)
            assert len(held) == streams, "no session is given up, and none can have ended"
            assert max(held) <= HELD_BYTES_MAX
            full = full + 1 if min(held) >= limit else 0


@asynccontextmanager
async def unread(router: RouterUnderTest) -> AsyncIterator[list[Any]]:
    """Calls of which nothing but the first event is read."""
    router.upstream.script(floods)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}", options=CALLERS_OPTIONS) as channel:
        stub: Any = pb_grpc.RouterServiceStub(channel)
        request = request_to(router.upstream.dialect)
        calls = [stub.Complete(request, metadata=METADATA, timeout=120) for _ in range(STREAMS)]
        for event in await asyncio.gather(*(call.read() for call in calls)):
            assert event.WhichOneof("event") == "session_started"
        yield calls


async def rest(call: Any) -> list[pb.CompletionEvent]:
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


def check_whole(events: list[pb.CompletionEvent]) -> None:
    assert text_of(events) == WORD * WORDS
    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED
    assert finished(events).outcome.output_tokens == WORDS


def reasons(quota: FakeQuota) -> Counter[str]:
    outcomes = (session.outcome for session in quota.sessions.values() if session.HasField("outcome"))
    return Counter(type_pb2.FinishReason.Name(o.finish_reason).removeprefix("FINISH_REASON_") for o in outcomes)


async def closed(upstream: FaultServer) -> None:
    waits = (exchange.client_closed.wait() for exchange in upstream.exchanges)
    await asyncio.wait_for(asyncio.gather(*waits), 20)


async def test_they_wait_and_are_whole_once_they_are_read(router: RouterUnderTest) -> None:
    async with unread(router) as calls:
        await until_held_up(router, STREAMS)
        assert router.quota.states() == ["RESERVED"] * STREAMS
        for events in await asyncio.gather(*map(rest, calls)):
            check_whole(events)

    assert router.quota.states() == ["COMMITTED"] * STREAMS
    assert reasons(router.quota) == {"STOP": STREAMS}


async def test_those_that_are_left_end_and_the_others_wait_on(router: RouterUnderTest) -> None:
    async with unread(router) as calls:
        await until_held_up(router, STREAMS)
        leaving, staying = calls[::2], calls[1::2]
        for call in leaving:
            call.cancel()
        await router.quota.until(lambda: router.quota.states().count("COMMITTED") == len(leaving))
        assert reasons(router.quota) == {"CANCELLED": len(leaving)}
        while router.service.running > len(staying):
            await asyncio.sleep(0)
        await until_held_up(router, len(staying))
        for events in await asyncio.gather(*map(rest, staying)):
            check_whole(events)

    await closed(router.upstream)
    assert router.quota.states() == ["COMMITTED"] * STREAMS
    assert reasons(router.quota) == {"CANCELLED": len(leaving), "STOP": len(staying)}


async def test_those_that_never_read_end_as_counted(quota: FakeQuota, upstream: FaultServer) -> None:
    limits = SessionLimits(reader_stall_s=1.0)
    async with running_router(quota, upstream, limits=limits) as router, unread(router) as calls:
        await quota.until_resolved(STREAMS)
        await closed(upstream)
        assert reasons(quota) == {"CALLER_ERROR": STREAMS}
        for _, error in await asyncio.gather(*map(drained, calls)):
            assert error.metadata["counted"] == "true"

    assert quota.states() == ["COMMITTED"] * STREAMS
