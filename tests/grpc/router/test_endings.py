"""Each way that a session can end: the status, the state at quota, and what the error says of the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.router.limits import SessionLimits
from services.shared.errors import Reason
from tests.grpc.router.harness import (
    RouterUnderTest,
    echo_request,
    finished,
    request_to,
    running_router,
    text_of,
)
from tests.support.dialects import DIALECTS
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Behaviour, Exchange, FaultServer, fault_server


@pytest.fixture(params=list(DIALECTS))
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[FaultServer]:
    """Each provider in turn: what becomes of a session does not depend on whose format it came in."""
    async with fault_server(DIALECTS[request.param]) as server:
        yield server


def refuses(status: int, **headers: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.refuse(status, "The provider says no.", **headers)

    return behave


def breaks(how: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("some")
        if how == "cut":
            exchange.cut()
        elif how == "reset":
            exchange.reset()
        elif how == "no end mark":
            await exchange.end()
        elif how == "bad json":
            await exchange.send(exchange.dialect.broken()["bad JSON"])
            await exchange.hold()
        else:
            await exchange.fail(how, "broke")
            await exchange.hold()

    return behave


async def answers(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.text("fine")
    await exchange.finish()


async def unreachable(exchange: Exchange) -> None:
    exchange.reset()


@dataclass(frozen=True)
class Ends:
    """A failure of the only candidate, before or after output, and what has to come of it."""

    name: str
    upstream: Behaviour
    reason: Reason
    state: str
    byok: bool = True
    release: str = "PROVIDER_FAILED"
    failure: str = ""
    retry_after_s: float | None = None
    words: str = field(default="")


BEFORE_OUTPUT = [
    Ends("5xx", refuses(500), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="PROVIDER_ERROR"),
    Ends("529", refuses(529), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="PROVIDER_ERROR"),
    Ends("redirect", refuses(302), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="PROVIDER_ERROR"),
    Ends("unreachable", unreachable, Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="UNREACHABLE"),
    Ends(
        "own key limited",
        refuses(429, retry_after="7"),
        Reason.PROVIDER_RATE_LIMITED,
        "RELEASED",
        failure="RATE_LIMITED",
        retry_after_s=7,
    ),
    Ends(
        "operator's key limited",
        refuses(429, retry_after_ms="1500"),
        Reason.PROVIDER_RATE_LIMITED,
        "RELEASED",
        byok=False,
        failure="RATE_LIMITED",
        retry_after_s=1.5,
    ),
    Ends(
        "own key refused",
        refuses(401),
        Reason.PROVIDER_REJECTED_REQUEST,
        "RELEASED",
        release="REQUEST_REJECTED",
        failure="CREDENTIALS_REFUSED",
        words="The provider says no.",
    ),
    Ends(
        "operator's key refused",
        refuses(403),
        Reason.PROVIDER_UNAVAILABLE,
        "RELEASED",
        byok=False,
        failure="CREDENTIALS_REFUSED",
    ),
    Ends(
        "request refused",
        refuses(400),
        Reason.PROVIDER_REJECTED_REQUEST,
        "RELEASED",
        release="REQUEST_REJECTED",
        failure="REQUEST_REJECTED",
        words="The provider says no.",
    ),
]
AFTER_OUTPUT = [
    Ends("cut", breaks("cut"), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="TRUNCATED"),
    Ends("reset", breaks("reset"), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="TRUNCATED"),
    Ends("no end mark", breaks("no end mark"), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="TRUNCATED"),
    Ends("bad json", breaks("bad json"), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="MALFORMED"),
    Ends("error event", breaks("overloaded"), Reason.PROVIDER_UNAVAILABLE, "RELEASED", failure="PROVIDER_ERROR"),
    Ends(
        "own key limited",
        breaks("rate"),
        Reason.PROVIDER_RATE_LIMITED,
        "COMMITTED",
        failure="RATE_LIMITED",
    ),
    Ends(
        "operator's key limited",
        breaks("rate"),
        Reason.PROVIDER_RATE_LIMITED,
        "RELEASED",
        byok=False,
        failure="RATE_LIMITED",
    ),
    Ends(
        "own key refused",
        breaks("credentials"),
        Reason.PROVIDER_REJECTED_REQUEST,
        "COMMITTED",
        failure="CREDENTIALS_REFUSED",
    ),
    Ends(
        "operator's key refused",
        breaks("credentials"),
        Reason.PROVIDER_UNAVAILABLE,
        "RELEASED",
        byok=False,
        failure="CREDENTIALS_REFUSED",
    ),
    Ends(
        "request refused, own key",
        breaks("request"),
        Reason.PROVIDER_UNAVAILABLE,
        "RELEASED",
        failure="REQUEST_REJECTED",
    ),
    Ends(
        "request refused, operator's key",
        breaks("request"),
        Reason.PROVIDER_UNAVAILABLE,
        "RELEASED",
        byok=False,
        failure="REQUEST_REJECTED",
    ),
]


def _check(router: RouterUnderTest, ends: Ends, error: Any) -> None:
    session = router.quota.only
    assert error.reason is ends.reason
    assert router.quota.states() == [ends.state]
    assert error.metadata == {
        "session_id": session.session_id,
        "session_state": ends.state,
        "counted": "true" if ends.state == "COMMITTED" else "false",
    }
    if ends.state == "RELEASED":
        assert type_pb2.ReleaseReason.Name(session.release_reason) == f"RELEASE_REASON_{ends.release}"
    (attempt,) = session.outcome.attempts
    assert type_pb2.AttemptFailure.Name(attempt.failure) == f"ATTEMPT_FAILURE_{ends.failure}"
    assert ends.words in error.message
    if ends.retry_after_s is not None:
        assert error.retry_after.total_seconds() == ends.retry_after_s


@pytest.mark.parametrize("ends", BEFORE_OUTPUT, ids=lambda ends: ends.name)
async def test_the_only_candidate_fails_before_output(router: RouterUnderTest, ends: Ends) -> None:
    router.quota.managed_providers = [router.upstream.dialect.name]
    router.upstream.script(ends.upstream)

    events, error = await router.failure(request_to(router.upstream.dialect, byok=ends.byok))

    assert [event.WhichOneof("event") for event in events] == ["session_started"]
    _check(router, ends, error)
    assert router.quota.only.outcome.served_provider == ""


@pytest.mark.parametrize("ends", AFTER_OUTPUT, ids=lambda ends: ends.name)
async def test_the_provider_fails_after_output(router: RouterUnderTest, ends: Ends) -> None:
    router.quota.managed_providers = [router.upstream.dialect.name, "backup"]
    router.upstream.script(ends.upstream)

    request = request_to(router.upstream.dialect, byok=ends.byok, fallbacks=[pb.Fallback(provider="backup", model="m")])
    events, error = await router.failure(request)

    assert text_of(events) == "some"
    _check(router, ends, error)
    assert router.quota.only.outcome.served_provider == router.upstream.dialect.name
    assert len(router.upstream.requests) == 1, "no fallback once output has begun"


@pytest.mark.parametrize("first", BEFORE_OUTPUT, ids=lambda ends: ends.name)
async def test_a_fallback_serves_what_the_first_choice_could_not(router: RouterUnderTest, first: Ends) -> None:
    router.quota.managed_providers = [router.upstream.dialect.name, "backup"]
    router.upstream.script(first.upstream, answers)
    request = request_to(
        router.upstream.dialect, byok=first.byok, fallbacks=[pb.Fallback(provider="backup", model="m")]
    )

    events = await router.events(request)

    assert text_of(events) == "fine"
    (failed,) = (event.attempt_failed for event in events if event.WhichOneof("event") == "attempt_failed")
    assert (failed.provider, failed.model) == (router.upstream.dialect.name, router.upstream.dialect.model)
    outcome = finished(events).outcome
    assert (outcome.served_provider, outcome.served_model) == ("backup", "m")
    assert [type_pb2.AttemptFailure.Name(a.failure) for a in outcome.attempts] == [
        f"ATTEMPT_FAILURE_{first.failure}",
        "ATTEMPT_FAILURE_UNSPECIFIED",
    ]
    assert router.quota.states() == ["COMMITTED"]


async def test_what_is_quoted_is_what_the_reason_is_about(router: RouterUnderTest) -> None:
    router.quota.managed_providers = ["backup"]
    router.upstream.script(refuses(429, retry_after="7"), refuses(400))
    request = request_to(router.upstream.dialect, fallbacks=[pb.Fallback(provider="backup", model="m")])

    _, error = await router.failure(request)

    assert error.reason is Reason.PROVIDER_RATE_LIMITED
    assert f"{router.upstream.dialect.name}: rate-limited: The provider says no." in error.message
    assert "backup" not in error.message
    assert error.retry_after == timedelta(seconds=7)


async def test_after_output_only_the_one_that_broke_is_quoted(router: RouterUnderTest) -> None:
    router.quota.managed_providers = ["backup"]
    router.upstream.script(refuses(503), breaks("request"))
    request = request_to(router.upstream.dialect, fallbacks=[pb.Fallback(provider="backup", model="m")])

    _, error = await router.failure(request)

    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert "backup: request-rejected" in error.message
    assert router.upstream.dialect.name not in error.message


async def test_a_rate_limit_always_says_when_to_try_again(router: RouterUnderTest) -> None:
    router.upstream.script(refuses(429))

    _, error = await router.failure(request_to(router.upstream.dialect))

    assert error.reason is Reason.PROVIDER_RATE_LIMITED
    assert error.retry_after is not None
    assert error.retry_after > timedelta(0)


async def test_every_candidate_fails_and_what_a_retry_may_cure_is_told(router: RouterUnderTest) -> None:
    router.quota.managed_providers = ["backup"]
    router.upstream.script(refuses(503), refuses(400))
    request = request_to(router.upstream.dialect, fallbacks=[pb.Fallback(provider="backup", model="m")])

    _, error = await router.failure(request)

    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert router.quota.states() == ["RELEASED"]
    assert len(router.quota.only.outcome.attempts) == 2


@pytest.mark.parametrize(("after", "words"), [("0", ""), ("2", "one two"), ("3", "one two three")])
async def test_echo_fails_like_a_provider(router: RouterUnderTest, after: str, words: str) -> None:
    events, error = await router.failure(echo_request("one two three", **{"echo.fail_after": after}))

    assert text_of(events) == words
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert router.quota.states() == ["RELEASED"]


async def test_a_silent_provider_is_given_up_and_closed(quota: FakeQuota, upstream: FaultServer) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("some")
        await exchange.hold()

    upstream.script(silent)
    async with running_router(quota, upstream, stall_s=1.0) as router:
        events, error = await router.failure(request_to(upstream.dialect))
        exchange = await upstream.arrived()
        await asyncio.wait_for(exchange.client_closed.wait(), 20)

    assert text_of(events) == "some"
    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert quota.states() == ["RELEASED"]
    assert quota.only.outcome.attempts[0].failure == type_pb2.ATTEMPT_FAILURE_STALLED


async def test_a_provider_without_a_first_event_is_given_up(quota: FakeQuota, upstream: FaultServer) -> None:
    upstream.script(Exchange.hold)
    async with running_router(quota, upstream, stall_s=1.0) as router:
        _, error = await router.failure(request_to(upstream.dialect))

    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert quota.only.outcome.attempts[0].failure == type_pb2.ATTEMPT_FAILURE_STALLED


async def test_the_time_limit_before_output_is_free(quota: FakeQuota, upstream: FaultServer) -> None:
    upstream.script(Exchange.hold)
    async with running_router(quota, upstream, limits=SessionLimits(time_limit_s=0.3)) as router:
        quota.managed_providers = [upstream.dialect.name]
        _, error = await router.failure(request_to(upstream.dialect, byok=False))
        await asyncio.wait_for(upstream.exchanges[0].client_closed.wait(), 20)

    assert error.reason is Reason.SESSION_TIME_LIMIT
    assert error.metadata["session_state"] == "RELEASED"
    assert quota.only.release_reason == type_pb2.RELEASE_REASON_TIME_LIMIT


async def test_the_time_limit_after_output_ends_well_and_counts(quota: FakeQuota, upstream: FaultServer) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("some")
        await exchange.hold()

    upstream.script(endless)
    async with running_router(quota, upstream, limits=SessionLimits(time_limit_s=1.0)) as router:
        events = await router.events(request_to(upstream.dialect))
        await asyncio.wait_for(upstream.exchanges[0].client_closed.wait(), 20)

    assert text_of(events) == "some"
    end = finished(events)
    assert end.finish_reason == type_pb2.FINISH_REASON_TIME_LIMIT
    assert end.session_state == type_pb2.SESSION_STATE_COMMITTED
    assert end.outcome.attempts[0].failure == type_pb2.ATTEMPT_FAILURE_ABANDONED
    assert not end.usage.HasField("output_tokens"), "what the provider did not say is unknown"
    assert quota.states() == ["COMMITTED"]
