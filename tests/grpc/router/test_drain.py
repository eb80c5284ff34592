"""Draining: no new sessions, running ones get the grace, the rest is released."""

from __future__ import annotations

import asyncio

from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.shared.errors import Reason
from tests.grpc.router.harness import RouterUnderTest, drained, echo_request, finished, openai_request, read_into
from tests.support.fault_server import Exchange


async def _talks_then_waits(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.text("some")
    await exchange.hold()


async def test_new_sessions_are_refused(router: RouterUnderTest) -> None:
    await router.service.drain(0)
    _, error = await router.failure(echo_request())

    assert error.reason is Reason.SHUTTING_DOWN
    assert router.quota.states() == []


async def test_running_sessions_finish_within_the_grace(router: RouterUnderTest) -> None:
    call = router.complete(echo_request("a b", **{"echo.delay_ms": "5"}))
    await router.sleeps.begun.acquire()
    drain = asyncio.create_task(router.service.drain(30))
    await asyncio.sleep(0)
    router.sleeps.pass_(2)
    events = [event async for event in call]
    await drain

    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED


async def test_after_the_grace_the_rest_is_released_though_output_began(router: RouterUnderTest) -> None:
    router.upstream.script(_talks_then_waits)
    call = router.complete(openai_request())
    while not (await call.read()).text_delta:
        pass
    await router.service.drain(0)
    _, error = await drained(call)

    assert error.reason is Reason.SHUTTING_DOWN
    assert error.metadata["session_state"] == "RELEASED"
    assert router.quota.only.release_reason == type_pb2.RELEASE_REASON_SHUTTING_DOWN
    await asyncio.wait_for(router.upstream.exchanges[0].client_closed.wait(), 20)


async def test_a_drain_that_is_hurried_releases_at_once(router: RouterUnderTest) -> None:
    router.upstream.script(_talks_then_waits)
    call = router.complete(openai_request())
    while not (await call.read()).text_delta:
        pass
    drain = asyncio.create_task(router.service.drain(3600))
    await asyncio.sleep(0)
    drain.cancel()
    _, error = await drained(call)

    assert error.reason is Reason.SHUTTING_DOWN
    assert router.quota.states() == ["RELEASED"]
    await asyncio.wait((drain,))


async def test_a_chat_that_has_not_begun_ends_at_once(router: RouterUnderTest) -> None:
    call = router.chat()
    await call.write(pb.ChatRequest(start=echo_request("a b", **{"echo.delay_ms": "5"})))
    await router.sleeps.begun.acquire()
    waiting = router.chat()
    await router.until_opened(1)
    drain = asyncio.create_task(router.service.drain(3600))
    _, error = await drained(waiting)

    assert error.reason is Reason.SHUTTING_DOWN
    assert not drain.done(), "the one that has begun gets its grace"
    router.sleeps.pass_(2)
    events = await read_into([], call)
    await drain
    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED


async def test_a_drain_waits_for_no_call_without_a_session(router: RouterUnderTest) -> None:
    call = router.chat()
    await router.until_opened(1)
    await asyncio.wait_for(router.service.drain(3600), 20)
    _, error = await drained(call)

    assert error.reason is Reason.SHUTTING_DOWN
    assert router.quota.states() == []
