"""The one error type that crosses layers, and its reasons.

    FlowStackError
        reason      one of Reason; decides the gRPC code (services/shared/status.py)
        message     a sentence for the user: the cause and the next step
        metadata    strings for ErrorInfo, such as current_usage and limit
        violations  for INVALID_REQUEST: each field and the rule that it breaks, never its value
        retry_after for RetryInfo

It knows neither gRPC nor protobuf, so that domains may raise it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType


class Reason(StrEnum):
    """Why a call failed. The value is what a client sees in ErrorInfo.reason."""

    API_KEY_MISSING = "API_KEY_MISSING"
    API_KEY_INVALID = "API_KEY_INVALID"
    API_KEY_REVOKED = "API_KEY_REVOKED"
    API_KEY_EXPIRED = "API_KEY_EXPIRED"
    BYOK_REQUIRED = "BYOK_REQUIRED"
    ADMIN_REQUIRED = "ADMIN_REQUIRED"
    ACCOUNT_MISMATCH = "ACCOUNT_MISMATCH"
    FEATURE_NOT_IN_PLAN = "FEATURE_NOT_IN_PLAN"
    SESSION_QUOTA_EXCEEDED = "SESSION_QUOTA_EXCEEDED"
    CONCURRENCY_LIMIT_EXCEEDED = "CONCURRENCY_LIMIT_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    PROVIDER_RATE_LIMITED = "PROVIDER_RATE_LIMITED"
    SUBSCRIPTION_ENDED = "SUBSCRIPTION_ENDED"
    PAYMENT_OVERDUE = "PAYMENT_OVERDUE"
    ACCOUNT_SUSPENDED = "ACCOUNT_SUSPENDED"
    SESSION_ALREADY_RESOLVED = "SESSION_ALREADY_RESOLVED"
    ENTITLEMENT_MISSING = "ENTITLEMENT_MISSING"
    NO_PENDING_CHANGE = "NO_PENDING_CHANGE"
    DUPLICATE_REQUEST = "DUPLICATE_REQUEST"
    SESSION_PARAMETERS_DIFFER = "SESSION_PARAMETERS_DIFFER"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    API_KEY_NOT_FOUND = "API_KEY_NOT_FOUND"
    PLAN_NOT_FOUND = "PLAN_NOT_FOUND"
    ACCOUNT_DELETED = "ACCOUNT_DELETED"
    API_KEY_NOT_ACTIVE = "API_KEY_NOT_ACTIVE"
    API_KEY_LIMIT_EXCEEDED = "API_KEY_LIMIT_EXCEEDED"
    CONTRACT_REQUIRED = "CONTRACT_REQUIRED"
    CONTRACT_IN_FORCE = "CONTRACT_IN_FORCE"
    PRICE_TABLE_NOT_FOUND = "PRICE_TABLE_NOT_FOUND"
    OFFER_NOT_FOUND = "OFFER_NOT_FOUND"
    INVOICE_NOT_FOUND = "INVOICE_NOT_FOUND"
    CREDIT_NOTE_NOT_FOUND = "CREDIT_NOTE_NOT_FOUND"
    INVOICE_NOT_OPEN = "INVOICE_NOT_OPEN"
    DOCUMENT_NOT_FOUND = "DOCUMENT_NOT_FOUND"
    VAULT_CAPACITY_EXCEEDED = "VAULT_CAPACITY_EXCEEDED"
    INVALID_REQUEST = "INVALID_REQUEST"
    PROVIDER_REJECTED_REQUEST = "PROVIDER_REJECTED_REQUEST"
    STALE_ETAG = "STALE_ETAG"
    STALE_REVISION = "STALE_REVISION"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    QUOTA_UNAVAILABLE = "QUOTA_UNAVAILABLE"
    BILLING_UNAVAILABLE = "BILLING_UNAVAILABLE"
    VAULT_UNAVAILABLE = "VAULT_UNAVAILABLE"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    PAYMENT_PROVIDER_UNAVAILABLE = "PAYMENT_PROVIDER_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    SESSION_TIME_LIMIT = "SESSION_TIME_LIMIT"
    CALL_TIME_LIMIT = "CALL_TIME_LIMIT"
    METHOD_NOT_AVAILABLE = "METHOD_NOT_AVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request, by its path, and the rule that it breaks. Never its value."""

    field: str
    description: str


class FlowStackError(Exception):
    """A failure with a reason that the caller is told."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] = MappingProxyType({}),
        violations: Sequence[FieldViolation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata)
        self.violations = tuple(violations)
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"FlowStackError({self.reason.value}, {self.message!r})"


def invalid_request(field: str, description: str) -> FlowStackError:
    """An INVALID_REQUEST about one field."""
    return FlowStackError(
        Reason.INVALID_REQUEST,
        f"The request is invalid: {field}: {description}.",
        violations=(FieldViolation(field, description),),
    )
