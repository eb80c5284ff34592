"""FlowStackError to google.rpc.Status and back: the only place that knows the code of each reason."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.shared.errors import FieldViolation, FlowStackError, Reason

DOMAIN: Final = "flowstack"

CODES: Final = MappingProxyType(
    {
        Reason.API_KEY_MISSING: grpc.StatusCode.UNAUTHENTICATED,
        Reason.API_KEY_INVALID: grpc.StatusCode.UNAUTHENTICATED,
        Reason.API_KEY_REVOKED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.API_KEY_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.BYOK_REQUIRED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.ADMIN_REQUIRED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.ACCOUNT_MISMATCH: grpc.StatusCode.PERMISSION_DENIED,
        Reason.FEATURE_NOT_IN_PLAN: grpc.StatusCode.PERMISSION_DENIED,
        Reason.SESSION_QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.CONCURRENCY_LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.BUDGET_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.PROVIDER_RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.SUBSCRIPTION_ENDED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PAYMENT_OVERDUE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.ACCOUNT_SUSPENDED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.SESSION_ALREADY_RESOLVED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.ENTITLEMENT_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.NO_PENDING_CHANGE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.DUPLICATE_REQUEST: grpc.StatusCode.ALREADY_EXISTS,
        Reason.SESSION_PARAMETERS_DIFFER: grpc.StatusCode.ALREADY_EXISTS,
        Reason.SESSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.ACCOUNT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.API_KEY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.PLAN_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.ACCOUNT_DELETED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.API_KEY_NOT_ACTIVE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.API_KEY_LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.CONTRACT_REQUIRED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CONTRACT_IN_FORCE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PRICE_TABLE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.OFFER_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.INVOICE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.CREDIT_NOTE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.INVOICE_NOT_OPEN: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.DOCUMENT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.VAULT_CAPACITY_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.PROVIDER_REJECTED_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.STALE_ETAG: grpc.StatusCode.ABORTED,
        Reason.STALE_REVISION: grpc.StatusCode.ABORTED,
        Reason.VERSION_MISMATCH: grpc.StatusCode.ABORTED,
        Reason.QUOTA_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.BILLING_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.VAULT_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.PROVIDER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.PAYMENT_PROVIDER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
        Reason.SESSION_TIME_LIMIT: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.CALL_TIME_LIMIT: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.METHOD_NOT_AVAILABLE: grpc.StatusCode.UNIMPLEMENTED,
        Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    }
)


def status_from_error(error: FlowStackError) -> status_pb2.Status:
    """The google.rpc.Status that tells a client of `error`, with the details that fit its reason."""
    status = status_pb2.Status(code=CODES[error.reason].value[0], message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    )
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad_request)
    if error.reason is Reason.SESSION_QUOTA_EXCEEDED:
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=f"plan:{error.metadata.get('plan', '')}", description=error.message)
        status.details.add().Pack(failure)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def error_from_status(status: status_pb2.Status) -> FlowStackError | None:
    """The FlowStackError that another service packed into `status`; None where it is none of ours."""
    info = error_details_pb2.ErrorInfo()
    violations: list[FieldViolation] = []
    retry_after: timedelta | None = None
    known = False
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
            known = info.domain == DOMAIN and info.reason in Reason.__members__
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest()
            detail.Unpack(bad_request)
            violations = [FieldViolation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta()
    if not known:
        return None
    return FlowStackError(
        Reason(info.reason),
        status.message,
        metadata=dict(info.metadata),
        violations=violations,
        retry_after=retry_after,
    )


def error_from_rpc(error: grpc.aio.AioRpcError) -> FlowStackError | None:
    """The FlowStackError behind a failed call to another of our services; None where it is none of ours."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        # The details do not match the code: not written by us.
        return None
    return None if status is None else error_from_status(status)


async def abort(context: grpc.aio.ServicerContext, error: FlowStackError) -> NoReturn:  # type: ignore[type-arg]
    """Ends the call with `error`."""
    await context.abort_with_status(rpc_status.to_status(status_from_error(error)))
    raise AssertionError("abort_with_status always raises")


def code_name(code: int) -> str:
    """The name of a google.rpc.Code, for logs."""
    return str(code_pb2.Code.Name(code))
