"""Usage as a stream and as a list of sessions."""

from __future__ import annotations

import grpc
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from tests.contract.target import Customer, refusal
from tests.support.suite import CALL_SECONDS

COMMITTED, RELEASED = types.SESSION_STATE_COMMITTED, types.SESSION_STATE_RELEASED


def sessions(customer: Customer, **fields: object) -> list[types.Session]:
    """The sessions that are meant, newest first."""
    answered = customer.call(customer.target.usage.ListSessions, pb.ListSessionsRequest(**fields))
    return [record.session for record in answered.sessions]


def test_usage_is_watched(free: Customer) -> None:
    watch = free.target.usage.WatchUsage(pb.WatchUsageRequest(), metadata=free.metadata, timeout=CALL_SECONDS)
    at_once = next(watch).usage
    list(free.complete())
    for seen in watch:
        if seen.usage.sessions_used:
            break
    watch.cancel()

    assert (at_once.sessions_used, at_once.sessions_limit) == (0, 25)
    assert (seen.usage.sessions_used, seen.usage.sessions_reserved, seen.usage.sessions_remaining) == (1, 0, 24)


def test_sessions_are_listed_newest_first(free: Customer) -> None:
    list(free.complete(request_id="a", labels={"team": "x"}))
    refusal(lambda: free.complete(request_id="b", labels={"echo.fail_after": "0"}))
    while len(found := sessions(free)) < 2:
        pass  # the ledger follows; the test's own time limit ends one that does not

    assert [(one.request_id, one.state) for one in found] == [("b", RELEASED), ("a", COMMITTED)]
    assert [one.request_id for one in sessions(free, states=[RELEASED])] == ["b"]
    assert [one.request_id for one in sessions(free, labels={"team": "x"})] == ["a"]
    assert [one.request_id for one in sessions(free, session_id=found[1].session_id)] == ["a"]
    assert found[1].outcome.served_provider == "echo"
    assert found[0].release_reason == types.RELEASE_REASON_PROVIDER_FAILED


def test_a_forecast_begins_with_what_was_used(free: Customer) -> None:
    for _ in range(3):
        list(free.complete())
    while (found := free.call(free.target.usage.GetForecast, pb.GetForecastRequest()).forecast).sessions_used < 3:
        pass  # as above

    assert (found.method, found.sessions_limit) == (pb.FORECAST_METHOD_SO_FAR, 25)
    assert found.projected_sessions_low <= found.projected_sessions <= found.projected_sessions_high
    assert found.projected_sessions >= 3


def estimate(customer: Customer, **fields: object) -> pb.EstimateCostResponse:
    """What so many sessions would cost."""
    return customer.call(customer.target.usage.EstimateCost, pb.EstimateCostRequest(**fields))


def test_the_published_comparison_is_estimated(free: Customer) -> None:
    small = estimate(free, sessions_per_month=1_000, provider="openai", model="gpt-4", price_table="seed-example")
    large = estimate(
        free, sessions_per_month=10_000, provider="anthropic", model="claude-3-opus", price_table="seed-example"
    )

    assert (small.tokens_per_session, small.output_tokens_per_session) == (7_500, 1_875)
    assert (small.price_table, small.price_table_version) == ("seed-example", "seed-example-1")
    byok, managed = types.CREDENTIAL_MODE_BYOK, types.CREDENTIAL_MODE_MANAGED
    assert [(one.plan_id, one.offer_id, one.credential_mode, one.total.units) for one in small.estimates] == [
        ("starter", "", managed, 50),
        ("professional", "volume-10k", managed, 99),
        ("starter", "", byok, 125),
        ("professional", "volume-10k", byok, 174),
        ("professional", "", managed, 200),
        ("professional", "", byok, 275),
    ]
    assert [(one.provider_cost.units, one.provider_cost_high.units) for one in large.estimates] == [(0, 0), (300, 800)]


def test_what_has_no_price_has_no_total(free: Customer) -> None:
    found = estimate(
        free, sessions_per_month=10, provider="openai", model="gpt-none", tokens_per_session=100, price_table="current"
    )
    code, info = refusal(
        lambda: estimate(free, sessions_per_month=10, provider="openai", model="gpt-4", price_table="none")
    )

    last = found.estimates[-1]
    assert (last.plan_id, last.credential_mode, last.HasField("total")) == (
        "professional",
        types.CREDENTIAL_MODE_BYOK,
        False,
    )
    assert (found.output_tokens_per_session, found.price_table) == (25, "current")
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "PRICE_TABLE_NOT_FOUND")
