"""A client that goes away: the session is resolved as it should be, and the upstream connection is closed."""

from __future__ import annotations

import asyncio

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.router.limits import SessionLimits
from tests.grpc.router.harness import (
    METADATA,
    RouterUnderTest,
    drained,
    echo_request,
    openai_request,
    running_router,
)
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Exchange, FaultServer


async def _closed(exchange: Exchange) -> None:
    await asyncio.wait_for(exchange.client_closed.wait(), 20)


async def talks_then_waits(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.text("some")
    await exchange.hold()


async def waits_with_open_head(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.hold()


@pytest.mark.parametrize("byok", [True, False])
async def test_after_output_it_counts(router: RouterUnderTest, byok: bool) -> None:
    router.quota.managed_providers = ["openai"]
    router.upstream.script(talks_then_waits)
    call = router.complete(openai_request(byok=byok))
    async for event in call:
        if event.text_delta:
            break
    call.cancel()

    await router.quota.until_resolved()
    await _closed(router.upstream.exchanges[0])
    session = router.quota.only
    assert router.quota.states() == ["COMMITTED"]
    assert session.outcome.finish_reason == type_pb2.FINISH_REASON_CANCELLED
    assert session.outcome.served_provider == "openai"
    assert session.outcome.attempts[0].failure == type_pb2.ATTEMPT_FAILURE_ABANDONED
    assert session.outcome.provider_request_id == "req_fault", "what the operator asks the provider about it by"


@pytest.mark.parametrize(
    ("byok", "state"), [pytest.param(True, "RELEASED", id="own key"), pytest.param(False, "COMMITTED", id="managed")]
)
@pytest.mark.parametrize("upstream_does", [Exchange.hold, waits_with_open_head])
async def test_before_output_it_depends_on_whose_key(
    router: RouterUnderTest, byok: bool, state: str, upstream_does: object
) -> None:
    router.quota.managed_providers = ["openai"]
    router.upstream.script(upstream_does)  # type: ignore[arg-type]
    call = router.complete(openai_request(byok=byok))
    exchange = await router.upstream.arrived()
    call.cancel()

    await router.quota.until_resolved()
    await _closed(exchange)
    session = router.quota.only
    assert router.quota.states() == [state]
    assert session.outcome.finish_reason == type_pb2.FINISH_REASON_CANCELLED
    if byok:
        assert session.release_reason == type_pb2.RELEASE_REASON_CLIENT_CANCELLED
        assert session.outcome.served_credential_mode == type_pb2.CREDENTIAL_MODE_UNSPECIFIED
    else:
        assert session.outcome.served_credential_mode == type_pb2.CREDENTIAL_MODE_MANAGED


async def test_a_clients_own_deadline_is_like_a_cancellation(router: RouterUnderTest) -> None:
    router.upstream.script(talks_then_waits)
    deadline_s, has_output = 0.25, False
    while not has_output:
        # As long as this machine needs to get so far.
        deadline_s *= 2
        call = router.stub.Complete(openai_request(), metadata=METADATA, timeout=deadline_s)
        with pytest.raises(Exception, match="Deadline"):
            async for event in call:
                has_output = has_output or event.HasField("text_delta")

    await router.quota.until_resolved()
    await _closed(router.upstream.exchanges[-1])
    assert router.quota.states()[-1] == "COMMITTED"


async def test_while_the_reservation_is_on_its_way(router: RouterUnderTest) -> None:
    router.quota.faults.late = {"reserve"}
    call = router.complete(echo_request())
    await router.quota.until(lambda: len(router.quota.sessions) == 1)
    call.cancel()

    await router.quota.until_resolved()
    assert router.quota.states() == ["RELEASED"]
    assert router.quota.only.release_reason == type_pb2.RELEASE_REASON_CLIENT_CANCELLED


async def test_a_reservation_that_was_never_decided_leaves_a_tombstone(router: RouterUnderTest) -> None:
    router.quota.faults.silent = {"reserve"}
    call = router.complete(echo_request())
    await router.quota.until(lambda: len(router.quota.reservations) == 1)
    call.cancel()

    await router.quota.until_resolved()
    assert router.quota.states() == ["RELEASED"]


async def test_while_the_commit_is_on_its_way_nothing_changes(router: RouterUnderTest) -> None:
    router.quota.faults.late = {"commit"}
    call = router.complete(echo_request())
    await router.quota.until_resolved()
    call.cancel()
    router.quota.faults.answer_now.set()

    await router.settled()
    assert router.quota.states() == ["COMMITTED"]
    assert router.quota.only.outcome.finish_reason == type_pb2.FINISH_REASON_STOP


async def test_while_a_chat_waits_for_results_it_counts(router: RouterUnderTest) -> None:
    call = router.chat()
    await call.write(pb.ChatRequest(start=echo_request("hi", **{"echo.tool": "look"})))
    async for event in call:
        if event.WhichOneof("event") == "tool_results_wanted":
            break
    call.cancel()

    await router.quota.until_resolved()
    assert router.quota.states() == ["COMMITTED"]
    assert router.quota.only.outcome.finish_reason == type_pb2.FINISH_REASON_CANCELLED
    assert router.quota.only.outcome.served_provider == "echo"


async def test_echo_at_every_delta(router: RouterUnderTest) -> None:
    for words in range(4):
        call = router.complete(echo_request("a b c d", **{"echo.delay_ms": "5"}))
        seen = 0
        router.sleeps.pass_(words)
        async for event in call:
            # What was waiting comes as one.
            seen += len(event.text_delta.split())
            if seen == words:
                break
        call.cancel()
        await router.quota.until_resolved(words + 1)
        await router.settled()
        while not router.sleeps._gate.locked():
            await router.sleeps._gate.acquire()

    assert router.quota.states() == ["RELEASED", "COMMITTED", "COMMITTED", "COMMITTED"]


async def test_a_reader_that_stalls_ends_as_counted(quota: FakeQuota, upstream: FaultServer) -> None:
    async def floods(exchange: Exchange) -> None:
        await exchange.head()
        while not exchange.client_closed.is_set():
            await exchange.text("x" * 60_000)

    upstream.script(floods)
    limits = SessionLimits(reader_stall_s=1.0)
    async with running_router(quota, upstream, limits=limits) as router:
        call = router.complete(openai_request())
        await call.read()
        await quota.until_resolved()
        await _closed(upstream.exchanges[0])
        assert quota.states() == ["COMMITTED"]
        assert quota.only.outcome.finish_reason == type_pb2.FINISH_REASON_CALLER_ERROR
        _, error = await drained(call)

    assert error.metadata["counted"] == "true"
