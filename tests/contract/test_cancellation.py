"""Who leaves after output pays; who leaves before it, on credentials of their own, does not."""

from __future__ import annotations

import grpc
import pytest

from tests.contract.target import Customer, kinds
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
def test_a_deadline_is_a_cancellation(free: Customer, labels: dict[str, str], used: int) -> None:
    stream = free.target.router.Complete(completion(labels=labels), metadata=free.metadata, timeout=1)
    with pytest.raises(grpc.RpcError):
        list(stream)

    assert stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    usage = free.usage_once(lambda found: found.sessions_reserved == 0)
    assert usage.sessions_used == used
