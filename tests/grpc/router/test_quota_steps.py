"""A quota service that fails in each way at each step of a session, and what is left once it is well again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.limits import SessionLimits
from services.shared.errors import FlowStackError, Reason
from tests.grpc.router.harness import (
    RouterUnderTest,
    drained,
    echo_request,
    finished,
    openai_request,
    running_router,
    state_name,
    text_of,
)
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Behaviour, Exchange, FaultServer

STEPS = ("reserve", "commit", "release")
FAULTS = ("dies", "is silent", "answers late", "breaks the stream", "does not know", "fails")


async def break_quota(quota: FakeQuota, fault: str, step: str) -> None:
    """Makes quota fail at its next command of that kind."""
    match fault:
        case "dies":
            await quota.die()
        case "is silent":
            quota.faults.silent = {step}
        case "answers late":
            quota.faults.late = {step}
        case "breaks the stream":
            quota.faults.breaks = {step}
        case _:
            reason = Reason.QUOTA_UNAVAILABLE if fault == "does not know" else Reason.INTERNAL
            quota.faults.errors[step] = FlowStackError(reason, "Not stored, perhaps.")


async def heal_quota(quota: FakeQuota, fault: str) -> None:
    """Makes quota well again; what it decided meanwhile stays decided."""
    faults = quota.faults
    faults.silent, faults.late, faults.breaks = set(), set(), set()
    faults.errors.clear()
    faults.answer_now.set()
    if fault == "dies":
        await quota.restart()


def provider(quota: FakeQuota, fault: str, step: str) -> Behaviour:
    """A provider that answers, or fails where a release is wanted; quota fails before that is over."""

    async def behave(exchange: Exchange) -> None:
        if step != "reserve":
            await break_quota(quota, fault, step)
        if step == "release":
            await exchange.error(500, {"message": "No."})
            return
        await exchange.head()
        await exchange.text("fine")
        await exchange.finish()

    return behave


@dataclass
class Told:
    """What the client got."""

    events: list[pb.CompletionEvent]
    error: FlowStackError | None


@pytest.fixture
async def impatient(quota: FakeQuota, upstream: FaultServer) -> AsyncIterator[RouterUnderTest]:
    limits = SessionLimits(resolution_answer_s=0.1)
    async with running_router(quota, upstream, limits=limits, quota_answer_s=0.2) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
async def test_it_ends_as_it_should_once_quota_is_well(impatient: RouterUnderTest, step: str, fault: str) -> None:
    quota, upstream = impatient.quota, impatient.upstream
    upstream.script(provider(quota, fault, step))
    if step == "reserve":
        await break_quota(quota, fault, step)
    call = impatient.complete(openai_request())
    told = await (_well(call) if step == "commit" else _badly(call))
    await heal_quota(quota, fault)
    await quota.until_resolved()
    await impatient.settled()

    assert quota.states() == ["COMMITTED" if step == "commit" else "RELEASED"]
    assert len(upstream.requests) == (0 if step == "reserve" else 1), "no session without a reservation, no call twice"
    counts = impatient.service.resolver.counts
    assert (counts.resolved, counts.lost_commits, counts.lost_releases, counts.disagreed) == (1, 0, 0, 0)
    if step == "commit":
        assert text_of(told.events) == "fine"
        assert state_name(finished(told.events).session_state) in ("RESERVED", "COMMITTED")
    else:
        assert told.error is not None
        assert told.error.reason is (Reason.QUOTA_UNAVAILABLE if step == "reserve" else Reason.PROVIDER_UNAVAILABLE)
        assert told.error.metadata["counted"] == "false"


async def _well(call: object) -> Told:
    return Told([event async for event in call], None)  # type: ignore[attr-defined]


async def _badly(call: object) -> Told:
    return Told(*await drained(call))


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_asked_again_costs_once(impatient: RouterUnderTest, fault: str) -> None:
    """The customer repeats a request whose answer was not confirmed, and meets a quota that is well."""
    quota, upstream = impatient.quota, impatient.upstream
    upstream.script(provider(quota, fault, "commit"))
    request = openai_request(request_id="order-7")
    told = await _well(impatient.complete(request))
    await heal_quota(quota, fault)
    again = await _badly(impatient.complete(request))
    await quota.until_resolved()

    assert again.error is not None
    assert again.error.reason is Reason.DUPLICATE_REQUEST
    assert again.error.metadata["session_id"] == told.events[0].session_started.session_id
    assert again.events == []
    assert len(upstream.requests) == 1
    assert quota.states() == ["COMMITTED"]


async def test_after_a_free_failure_the_same_request_is_served(impatient: RouterUnderTest) -> None:
    async def fails(exchange: Exchange) -> None:
        await exchange.error(500, {"message": "No."})

    async def answers(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("fine")
        await exchange.finish()

    impatient.upstream.script(fails, answers)
    request = openai_request(request_id="order-7")
    first = await _badly(impatient.complete(request))
    second = await _well(impatient.complete(request))

    assert first.error is not None
    assert first.error.metadata["counted"] == "false"
    assert text_of(second.events) == "fine"
    assert impatient.quota.states() == ["RELEASED", "COMMITTED"]


async def test_an_error_that_is_counted_later_says_so(impatient: RouterUnderTest) -> None:
    impatient.quota.faults.silent = {"commit"}
    call = impatient.chat()
    await call.write(pb.ChatRequest(start=echo_request("hi", **{"echo.tool": "look"})))
    while (await call.read()).WhichOneof("event") != "tool_results_wanted":
        pass
    await call.done_writing()
    told = await _badly(call)
    await heal_quota(impatient.quota, "is silent")
    await impatient.quota.until_resolved()

    assert told.error is not None
    assert "will be counted" in told.error.message
    assert (told.error.metadata["session_state"], told.error.metadata["counted"]) == ("RESERVED", "false")
    assert impatient.quota.states() == ["COMMITTED"]
