"""The fake's errors: a reason, its gRPC code and the details that go with it, as the real services send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

DOMAIN: Final = "flowstack"

_Code: Final = grpc.StatusCode
CODES: Final[Mapping[str, grpc.StatusCode]] = MappingProxyType(
    {
        reason: code
        for code, reasons in {
            _Code.UNAUTHENTICATED: "API_KEY_MISSING API_KEY_INVALID API_KEY_REVOKED API_KEY_EXPIRED",
            _Code.PERMISSION_DENIED: "BYOK_REQUIRED ADMIN_REQUIRED ACCOUNT_MISMATCH FEATURE_NOT_IN_PLAN",
            _Code.RESOURCE_EXHAUSTED: (
                "SESSION_QUOTA_EXCEEDED CONCURRENCY_LIMIT_EXCEEDED BUDGET_EXCEEDED PROVIDER_RATE_LIMITED "
                "VAULT_CAPACITY_EXCEEDED API_KEY_LIMIT_EXCEEDED WEBHOOK_LIMIT_EXCEEDED ALERT_RATE_LIMITED"
            ),
            _Code.FAILED_PRECONDITION: (
                "SUBSCRIPTION_ENDED ACCOUNT_SUSPENDED ACCOUNT_DELETED NO_PENDING_CHANGE CONTRACT_REQUIRED "
                "API_KEY_NOT_ACTIVE PAYMENT_OVERDUE CONTRACT_IN_FORCE INVOICE_NOT_OPEN WEBHOOK_WITHOUT_SECRET"
            ),
            _Code.ALREADY_EXISTS: "DUPLICATE_REQUEST",
            _Code.NOT_FOUND: (
                "MODEL_NOT_FOUND ACCOUNT_NOT_FOUND API_KEY_NOT_FOUND PLAN_NOT_FOUND "
                "WEBHOOK_NOT_FOUND DOCUMENT_NOT_FOUND ALERT_NOT_FOUND OFFER_NOT_FOUND INVOICE_NOT_FOUND "
                "CREDIT_NOTE_NOT_FOUND PRICE_TABLE_NOT_FOUND"
            ),
            _Code.INVALID_ARGUMENT: "INVALID_REQUEST PROVIDER_REJECTED_REQUEST",
            _Code.ABORTED: "STALE_ETAG VERSION_MISMATCH",
            _Code.UNAVAILABLE: "QUOTA_UNAVAILABLE PROVIDER_UNAVAILABLE SHUTTING_DOWN",
            _Code.DEADLINE_EXCEEDED: "SESSION_TIME_LIMIT",
        }.items()
        for reason in reasons.split()
    }
)
"""The code of each reason that the fake answers with."""


class Violation(NamedTuple):
    """A field of a request, by its path, and the rule that it breaks."""

    field: str
    description: str


class FakeError(Exception):
    """What a call is answered with instead of a response."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] = MappingProxyType({}),
        violations: Sequence[Violation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata)
        self.violations = tuple(violations)
        self.retry_after = retry_after


class _Status(grpc.Status):
    """What `abort_with_status` takes."""

    def __init__(self, status: status_pb2.Status, code: grpc.StatusCode) -> None:
        self.code = code
        self.details = status.message
        self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)


def invalid_request(*violations: Violation) -> FakeError:
    """INVALID_REQUEST about these fields."""
    summary = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations[:5])
    return FakeError("INVALID_REQUEST", f"The request is invalid: {summary}.", violations=violations)


def invalid_field(field: str, description: str) -> FakeError:
    """INVALID_REQUEST about one field."""
    return invalid_request(Violation(field, description))


def status_of(error: FakeError) -> status_pb2.Status:
    """The google.rpc.Status of an error."""
    status = status_pb2.Status(code=CODES[error.reason].value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad_request)
    if error.reason == "SESSION_QUOTA_EXCEEDED":
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=f"plan:{error.metadata.get('plan', '')}", description=error.message)
        status.details.add().Pack(failure)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def abort(context: grpc.ServicerContext, error: FakeError) -> NoReturn:
    """Ends a call with an error."""
    status = status_of(error)
    context.abort_with_status(_Status(status, CODES[error.reason]))
    raise AssertionError("abort_with_status always raises")
