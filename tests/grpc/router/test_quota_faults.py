"""A quota service that dies, stalls or answers late, at each step of a session."""

from __future__ import annotations

import asyncio

import pytest
from flowstack_protos.type.v1 import type_pb2

from services.router.adapters.quota_client import BATCH_COMMANDS_MAX, BATCHES_IN_FLIGHT_MAX
from services.router.limits import SessionLimits
from services.shared.errors import FlowStackError, Reason
from tests.grpc.router.harness import RouterUnderTest, echo_request, finished, openai_request, running_router, text_of
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import FaultServer


async def _refused_without_a_provider(router: RouterUnderTest) -> None:
    events, error = await router.failure(openai_request())
    assert events == []
    assert error.reason is Reason.QUOTA_UNAVAILABLE
    assert router.upstream.requests == []


async def test_no_session_starts_while_quota_is_down(quota: FakeQuota, upstream: FaultServer) -> None:
    await quota.die()
    async with running_router(
        quota, upstream, limits=SessionLimits(resolution_answer_s=0.1), quota_answer_s=0.1
    ) as router:
        await _refused_without_a_provider(router)
        # The release of what might have been reserved goes on until quota is back.
        await quota.restart()
        await quota.until_resolved()

    assert quota.states() == ["RELEASED"]
    assert quota.only.release_reason == type_pb2.RELEASE_REASON_RESERVATION_UNKNOWN


async def test_a_reservation_that_is_not_answered_is_released(quota: FakeQuota, upstream: FaultServer) -> None:
    quota.faults.silent = {"reserve"}
    async with running_router(quota, upstream, quota_answer_s=0.2) as router:
        await _refused_without_a_provider(router)

    assert quota.states() == ["RELEASED"]


async def test_a_reservation_that_is_answered_late_is_released(quota: FakeQuota, upstream: FaultServer) -> None:
    quota.faults.late = {"reserve"}
    async with running_router(quota, upstream, quota_answer_s=0.2) as router:
        await _refused_without_a_provider(router)
        quota.faults.answer_now.set()

    assert quota.states() == ["RELEASED"]


async def test_a_stream_that_breaks_at_the_reservation(router: RouterUnderTest) -> None:
    router.quota.faults.breaks = {"reserve"}
    await _refused_without_a_provider(router)

    assert router.quota.states() == ["RELEASED"]
    assert len(router.quota.reservations) == 1, "a reservation is never repeated"


@pytest.mark.parametrize("reason", [Reason.QUOTA_UNAVAILABLE, Reason.INTERNAL])
async def test_a_reservation_whose_outcome_quota_does_not_know(router: RouterUnderTest, reason: Reason) -> None:
    router.quota.faults.errors["reserve"] = FlowStackError(reason, "Not stored, perhaps.")
    await _refused_without_a_provider(router)

    assert router.quota.states() == ["RELEASED"]


async def test_a_replayed_reservation_starts_no_provider(router: RouterUnderTest) -> None:
    router.quota.faults.replayed = True
    await _refused_without_a_provider(router)

    assert router.quota.states() == ["RELEASED"]


@pytest.mark.parametrize(
    "reason", [Reason.ENTITLEMENT_MISSING, Reason.BUDGET_EXCEEDED, Reason.CONCURRENCY_LIMIT_EXCEEDED]
)
async def test_a_denial_is_passed_on_and_leaves_nothing(router: RouterUnderTest, reason: Reason) -> None:
    router.quota.faults.errors["reserve"] = FlowStackError(reason, "No.", metadata={"plan": "starter"})
    _, error = await router.failure(echo_request())
    await router.settled()

    assert (error.reason, error.message, error.metadata) == (reason, "No.", {"plan": "starter"})
    assert router.quota.states() == []


async def test_a_commit_that_is_answered_late_is_reported_as_reserved(quota: FakeQuota, upstream: FaultServer) -> None:
    quota.faults.late = {"commit"}
    async with running_router(quota, upstream, limits=SessionLimits(resolution_answer_s=0.1)) as router:
        events = await router.events(echo_request())
        quota.faults.answer_now.set()

    end = finished(events)
    assert end.session_state == type_pb2.SESSION_STATE_RESERVED
    assert not end.HasField("quota")
    assert quota.states() == ["COMMITTED"]


async def test_a_commit_is_repeated_when_its_answer_is_lost(router: RouterUnderTest) -> None:
    router.quota.faults.breaks = {"commit"}
    call = router.complete(echo_request())
    await router.quota.until_resolved()
    router.quota.faults.breaks = set()
    events = [event async for event in call]

    assert finished(events).session_state == type_pb2.SESSION_STATE_COMMITTED
    assert router.quota.states() == ["COMMITTED"]
    assert router.service.resolver.counts.resolved == 1


async def test_quota_dies_in_the_middle_and_comes_back(router: RouterUnderTest) -> None:
    call = router.complete(echo_request("a b", **{"echo.delay_ms": "5"}))
    await router.sleeps.begun.acquire()
    await router.quota.die()
    router.sleeps.pass_(2)
    reading = asyncio.create_task(_all(call))
    await router.quota.restart()
    events = await reading

    assert text_of(events) == "a b"
    await router.quota.until_resolved()
    assert router.quota.states() == ["COMMITTED"]


async def test_after_the_lease_a_commit_is_given_up_and_counted_as_lost(
    quota: FakeQuota, upstream: FaultServer
) -> None:
    quota.faults.errors["commit"] = FlowStackError(Reason.QUOTA_UNAVAILABLE, "Not now.")
    limits = SessionLimits(lease_s=0.3, resolution_answer_s=0.05)
    async with running_router(quota, upstream, limits=limits) as router:
        events = await router.events(echo_request())
        await router.settled()
        assert router.service.resolver.counts.lost_commits == 1

    assert finished(events).session_state == type_pb2.SESSION_STATE_RESERVED
    assert quota.states() == ["RESERVED"], "quota's own sweep expires it"


async def test_a_session_that_quota_resolved_otherwise_is_told_as_it_is(router: RouterUnderTest) -> None:
    router.quota.faults.errors["commit"] = FlowStackError(
        Reason.SESSION_ALREADY_RESOLVED, "Expired.", metadata={"session_state": "EXPIRED"}
    )
    events = await router.events(echo_request())

    assert finished(events).session_state == type_pb2.SESSION_STATE_EXPIRED
    assert router.service.resolver.counts.disagreed == 1


async def test_commands_go_in_batches_while_others_are_on_their_way(quota: FakeQuota, upstream: FaultServer) -> None:
    quota.faults.late = {"reserve"}
    # 300 calls at once take a loaded machine longer than a command waits for its answer by default.
    limits = SessionLimits(resolution_answer_s=60)
    async with running_router(quota, upstream, limits=limits, quota_answer_s=60) as router:
        calls = [router.complete(echo_request("x")) for _ in range(300)]
        reading = [asyncio.create_task(_all(call)) for call in calls]
        await quota.until(lambda: len(quota.sessions) >= BATCHES_IN_FLIGHT_MAX)
        while router.service.running < 300:
            await asyncio.sleep(0)
        assert len(quota.batch_sizes) == BATCHES_IN_FLIGHT_MAX, "so many may be on their way"
        first = sum(quota.batch_sizes)
        quota.faults.answer_now.set()
        await asyncio.gather(*reading)

    assert quota.states() == ["COMMITTED"] * 300
    assert max(quota.batch_sizes) <= BATCH_COMMANDS_MAX
    # Everything that waited went out as one batch, or as full ones.
    assert quota.batch_sizes[BATCHES_IN_FLIGHT_MAX] == min(BATCH_COMMANDS_MAX, 300 - first)


async def _all(call: object) -> list[object]:
    return [event async for event in call]  # type: ignore[attr-defined]
