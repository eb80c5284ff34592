"""Errors on the wire: everything that a FlowStackError says comes back on the other side."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.shared.errors import FieldViolation, FlowStackError, Reason
from services.shared.status import CODES, error_from_status, status_from_error


@pytest.mark.parametrize("reason", Reason)
def test_there_and_back(reason: Reason) -> None:
    sent = FlowStackError(
        reason,
        "The cause. The next step.",
        metadata={"limit": "25", "plan": "free"},
        violations=[FieldViolation("messages[0].role", "is unknown"), FieldViolation("", "is too large")],
        retry_after=timedelta(seconds=1, milliseconds=500),
    )
    status = status_pb2.Status.FromString(status_from_error(sent).SerializeToString())
    back = error_from_status(status)
    assert back is not None
    assert status.code == CODES[reason].value[0]
    assert (back.reason, back.message, back.metadata) == (sent.reason, sent.message, sent.metadata)
    assert (back.violations, back.retry_after) == (sent.violations, sent.retry_after)


def test_an_error_without_details_has_the_one_detail() -> None:
    status = status_from_error(FlowStackError(Reason.SHUTTING_DOWN, "Down."))
    info = error_details_pb2.ErrorInfo()
    assert len(status.details) == 1
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("flowstack", "SHUTTING_DOWN")
    back = error_from_status(status)
    assert back is not None
    assert (back.violations, back.retry_after) == ((), None)


def test_a_quota_that_is_used_up_comes_with_a_quota_failure() -> None:
    status = status_from_error(
        FlowStackError(Reason.SESSION_QUOTA_EXCEEDED, "All sessions are used.", metadata={"plan": "free"})
    )
    failure = error_details_pb2.QuotaFailure()
    assert status.details[1].Unpack(failure)
    assert failure.violations[0].subject == "plan:free"


@pytest.mark.parametrize(("domain", "reason"), [("example.org", "INTERNAL"), ("flowstack", "NOBODY_KNOWS_IT")])
def test_what_is_not_ours_is_none_of_ours(domain: str, reason: str) -> None:
    status = status_pb2.Status(code=13)
    status.details.add().Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason))
    assert error_from_status(status) is None
    assert error_from_status(status_pb2.Status(code=13)) is None


def test_every_reason_has_a_code_that_is_an_error() -> None:
    assert set(CODES) == set(Reason)
    assert grpc.StatusCode.OK not in CODES.values()
    assert grpc.StatusCode.UNKNOWN not in CODES.values()
