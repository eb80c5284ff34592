"""Limits hold exactly, however many call at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.contract.target import Customer, details_of, info_of, refusal

LONG = {"echo.words": "100", "echo.delay_ms": "20000"}


def outcome(customer: Customer) -> str:
    """COMMITTED, or the reason of the refusal."""
    try:
        list(customer.complete())
    except grpc.RpcError as error:
        return str(info_of(error).reason)
    return "COMMITTED"


def test_60_calls_at_once_on_25_sessions(free: Customer) -> None:
    with ThreadPoolExecutor(60) as pool:
        outcomes = list(pool.map(lambda _: outcome(free), range(60)))

    assert outcomes.count("COMMITTED") == 25
    assert outcomes.count("SESSION_QUOTA_EXCEEDED") == 35
    usage = free.usage()
    assert (usage.sessions_used, usage.sessions_remaining, usage.usage_percentage) == (25, 0, 100)
    assert (usage.is_near_limit, usage.can_make_requests) == (True, False)
    assert usage.refusal_reason == "SESSION_QUOTA_EXCEEDED"


def test_the_call_beyond_the_limit_says_what_to_do(free: Customer) -> None:
    for _ in range(25):
        list(free.complete())
    with pytest.raises(grpc.RpcError) as caught:
        list(free.complete())

    info, *details = details_of(caught.value)
    period_end = free.usage().period_end_time.ToDatetime().isoformat() + "Z"
    assert info.reason == "SESSION_QUOTA_EXCEEDED"
    assert dict(info.metadata) == {
        "current_usage": "25",
        "limit": "25",
        "plan": "free",
        "reset_time": period_end,
        "upgrade_plan": "hobbyist",
    }
    failures = [detail for detail in details if isinstance(detail, error_details_pb2.QuotaFailure)]
    assert failures[0].violations[0].subject == "plan:free"


def test_a_running_session_holds_its_unit(free: Customer) -> None:
    streams = [free.complete(labels=LONG) for _ in range(25)]
    for stream in streams:
        next(stream)
    usage = free.usage()
    _, info = refusal(free.complete)
    for stream in streams:
        stream.cancel()

    assert (usage.sessions_used, usage.sessions_reserved, usage.sessions_remaining) == (0, 25, 0)
    assert info.metadata["current_usage"] == "25"
    usage = free.usage_once(lambda found: found.sessions_reserved == 0)
    assert (usage.sessions_used, usage.sessions_remaining) == (0, 25)


def test_sessions_at_once_are_limited(hobbyist: Customer) -> None:
    streams = [hobbyist.complete(labels=LONG) for _ in range(50)]
    for stream in streams:
        next(stream)
    with pytest.raises(grpc.RpcError) as caught:
        list(hobbyist.complete())
    streams[0].cancel()
    hobbyist.usage_once(lambda found: found.sessions_reserved == 49)
    list(hobbyist.complete())
    for stream in streams:
        stream.cancel()

    info, *details = details_of(caught.value)
    assert (info.reason, dict(info.metadata)) == (
        "CONCURRENCY_LIMIT_EXCEEDED",
        {"limit": "50", "plan": "hobbyist"},
    )
    retries = [detail for detail in details if isinstance(detail, error_details_pb2.RetryInfo)]
    assert retries[0].retry_delay.seconds == 1
