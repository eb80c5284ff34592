"""Usage as a stream and as a list of sessions."""

from __future__ import annotations

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
