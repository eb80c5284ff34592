"""The log's one line for each session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import structlog
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.shared.errors import FlowStackError, Reason
from services.shared.log import ALLOWED_FIELDS
from tests.grpc.router.harness import ACCOUNT, RouterUnderTest, echo_request, openai_request
from tests.support.fault_server import Exchange


async def refuses(exchange: Exchange) -> None:
    await exchange.error(500, {"message": "the provider's words"})


def sessions(logs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in logs if line["event"] == "session"]


@pytest.mark.parametrize(
    ("request_", "served", "state", "reason"),
    [
        (echo_request("planted words"), ("echo", "echo-1"), "COMMITTED", ""),
        (
            echo_request("planted words", **{"echo.fail_after": "1"}),
            ("echo", "echo-1"),
            "RELEASED",
            "PROVIDER_UNAVAILABLE",
        ),
        (openai_request("planted words"), ("", ""), "RELEASED", "PROVIDER_UNAVAILABLE"),
    ],
    ids=["counted", "fails after output", "fails before output"],
)
async def test_a_session_is_one_line_without_content(
    router: RouterUnderTest, request_: pb.CompleteRequest, served: tuple[str, str], state: str, reason: str
) -> None:
    router.upstream.script(refuses)
    with structlog.testing.capture_logs() as logs:
        if reason:
            await router.failure(request_)
        else:
            await router.events(request_)
        await router.settled()

    (line,) = sessions(logs)
    duration_ms = line["duration_ms"]
    assert line == {
        "event": "session",
        "log_level": "info",
        "session_id": router.quota.only.session_id,
        "account_id": ACCOUNT,
        "provider": served[0],
        "model": served[1],
        "session_state": state,
        "reason": reason,
        "duration_ms": duration_ms,
    }
    assert duration_ms >= 0
    assert set(line) - {"log_level"} <= ALLOWED_FIELDS, "what is not allowed is dropped"
    assert "planted" not in str(logs)
    assert "words" not in str(sessions(logs))


async def test_what_quota_refused_was_no_session(router: RouterUnderTest) -> None:
    router.quota.faults.errors["reserve"] = FlowStackError(Reason.SESSION_QUOTA_EXCEEDED, "No.")
    with structlog.testing.capture_logs() as logs:
        await router.failure(echo_request("x"))
        await router.settled()

    assert sessions(logs) == []
