"""Who leaves after output pays; who leaves before it, on credentials of their own, does not."""

from __future__ import annotations

import grpc
import pytest

from tests.contract.target import Customer, Target, kinds
from tests.support.suite import completion

NEVER = {"echo.delay_ms": "200000"}


def endless(words_ms: str = "1") -> dict[str, str]:
    """Labels of an echo that goes on for long."""
    return {"echo.words": "100000", "echo.delay_ms": words_ms}


def test_a_client_that_leaves_before_output_is_not_charged(free: Customer) -> None:
    stream = free.complete(labels=NEVER)
    assert kinds([next(stream)]) == ["session_started"]
    stream.cancel()

    usage = free.usage_once(lambda found: found.sessions_reserved == 0)
    assert (usage.sessions_used, usage.sessions_remaining) == (0, 25)


def test_a_client_that_leaves_after_output_is_charged(free: Customer) -> None:
    stream = free.complete(labels=endless())
    assert kinds([next(stream), next(stream)]) == ["session_started", "text_delta"]
    stream.cancel()

    usage = free.usage_once(lambda found: found.sessions_reserved == 0)
    assert (usage.sessions_used, usage.sessions_remaining) == (1, 24)


@pytest.mark.parametrize(("labels", "used"), [(NEVER, 0), (endless(), 1)])
def test_a_deadline_is_a_cancellation(target: Target, labels: dict[str, str], used: int) -> None:
    deadline_s, seen = 0.25, list[str]()
    while "session_started" not in seen or (used and "text_delta" not in seen):
        # As long as this machine needs to get so far; each attempt by an account of its own.
        deadline_s *= 2
        customer, seen = target.open_account(), []
        stream = target.router.Complete(completion(labels=labels), metadata=customer.metadata, timeout=deadline_s)
        with pytest.raises(grpc.RpcError):
            seen.extend(str(event.WhichOneof("event")) for event in stream)

    assert stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    usage = customer.usage_once(lambda found: found.sessions_reserved == 0)
    assert usage.sessions_used == used
