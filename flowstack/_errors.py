"""Everything that the SDK raises.

    FlowStackError
    ├── ConfigurationError            before any call: no key, a malformed one, a bad address or setting
    ├── ToolDefinitionError           at decoration: a tool with a signature that no model can call
    ├── InvalidRequestError           INVALID_ARGUMENT, OUT_OF_RANGE
    │   └── ProviderRejectedError         PROVIDER_REJECTED_REQUEST
    ├── AuthenticationError           UNAUTHENTICATED
    ├── PermissionDeniedError         PERMISSION_DENIED
    │   └── ByokRequiredError             BYOK_REQUIRED
    ├── NotFoundError                 NOT_FOUND
    │   └── ModelNotFoundError            MODEL_NOT_FOUND
    ├── AlreadyExistsError            ALREADY_EXISTS
    │   └── DuplicateRequestError         DUPLICATE_REQUEST
    ├── LimitExceededError            RESOURCE_EXHAUSTED
    │   ├── QuotaExceededError            SESSION_QUOTA_EXCEEDED
    │   ├── ConcurrencyLimitError         CONCURRENCY_LIMIT_EXCEEDED
    │   ├── BudgetExceededError           BUDGET_EXCEEDED
    │   └── RateLimitedError              PROVIDER_RATE_LIMITED, ALERT_RATE_LIMITED
    ├── PreconditionError             FAILED_PRECONDITION
    │   ├── SubscriptionEndedError        SUBSCRIPTION_ENDED
    │   ├── PaymentOverdueError           PAYMENT_OVERDUE
    │   └── AccountSuspendedError         ACCOUNT_SUSPENDED
    ├── ConflictError                 ABORTED
    ├── UnavailableError              UNAVAILABLE
    │   ├── ConnectionFailedError         no answer from the service at all
    │   │   └── UntrustedServerError          over TLS: a certificate that does not prove the server, or none
    │   └── ProviderUnavailableError      PROVIDER_UNAVAILABLE
    ├── TimeLimitError                DEADLINE_EXCEEDED
    ├── CallCancelledError            CANCELLED
    ├── NotSupportedError             UNIMPLEMENTED
    └── InternalError                 INTERNAL, UNKNOWN, DATA_LOSS, and an OK without an end

A gRPC status maps to exactly one class: by its reason where the tree names it, else by its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final


class FlowStackError(Exception):
    """The root. Its text is a sentence with the cause and a next step.

    Attributes:
        code: the gRPC code's name, such as `NOT_FOUND`; empty for an error before any call.
        reason: FlowStack's own word, such as `MODEL_NOT_FOUND`; empty where the service gave none.
        details: what the service said besides; numbers and times where the tree's class names them.
        violations: (field, rule) of each field that was refused.
        retry_after_s: seconds to wait before it makes sense to try again; None where the service did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        violations: Sequence[tuple[str, str]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details: dict[str, Any] = dict(details or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s

    @property
    def session_id(self) -> str:
        """The session that failed; empty where none was reserved."""
        return str(self.details.get("session_id", ""))

    @property
    def counted(self) -> bool | None:
        """True when the session was counted although it failed; None where that cannot be known at this end."""
        said = self.details.get("counted")
        return None if said == "unknown" else said == "true"


class ConfigurationError(FlowStackError):
    """A key, address or setting that cannot work. Raised before any call."""


class ToolDefinitionError(FlowStackError):
    """A tool that no model can call. Raised where it is decorated."""


class InvalidRequestError(FlowStackError):
    """Something in the request breaks a rule; `violations` names the fields."""


class ProviderRejectedError(InvalidRequestError):
    """The provider refused the request or the caller's key."""


class AuthenticationError(FlowStackError):
    """The API key is missing, unknown, revoked or expired."""


class PermissionDeniedError(FlowStackError):
    """The key may not do this, or the plan does not include it."""


class ByokRequiredError(PermissionDeniedError):
    """The plan does not include this provider: bring a key of your own with `byok`."""


class NotFoundError(FlowStackError):
    """What was asked for is not there."""


class ModelNotFoundError(NotFoundError):
    """The operator has no such provider or model; the text names the nearest."""


class AlreadyExistsError(FlowStackError):
    """It is there already, or was asked for with other content."""


class DuplicateRequestError(AlreadyExistsError):
    """The request_id was used: the first call is running or was counted. This one cost nothing."""


class LimitExceededError(FlowStackError):
    """A limit was reached."""


class QuotaExceededError(LimitExceededError):
    """The period's sessions are used up.

    `details` holds current_usage and limit (int, sessions), plan and upgrade_plan (str) and reset_time (datetime, UTC).
    """


class ConcurrencyLimitError(LimitExceededError):
    """Too many sessions run at once; `retry_after_s` says when to try again."""


class BudgetExceededError(LimitExceededError):
    """The account's own budget blocks new sessions until the period ends or the budget is raised."""


class RateLimitedError(LimitExceededError):
    """Too many calls in a short while; `retry_after_s` says when to try again."""


class PreconditionError(FlowStackError):
    """The account or the resource is in a state that does not allow this."""


class SubscriptionEndedError(PreconditionError):
    """The subscription has ended: choose a plan to go on. Data stays readable."""


class PaymentOverdueError(PreconditionError):
    """An invoice is unpaid past its grace."""


class AccountSuspendedError(PreconditionError):
    """The operator suspended the account."""


class ConflictError(FlowStackError):
    """It changed since it was read: read again and decide again."""


class UnavailableError(FlowStackError):
    """A service cannot answer now; `counted` says whether a session was counted all the same."""


class ConnectionFailedError(UnavailableError):
    """There is no connection to the service, or none any more; the text names it, its address and what to try.

    `details["connected"]` is True where there was one: then what was asked may have been done.
    """


class UntrustedServerError(ConnectionFailedError):
    """The server could not prove itself, so nothing was sent to it. Trying again does not help."""


class ProviderUnavailableError(UnavailableError):
    """The provider failed; the session was not counted."""


class TimeLimitError(FlowStackError):
    """No answer within the time."""


class CallCancelledError(FlowStackError):
    """The call was cancelled."""


class NotSupportedError(FlowStackError):
    """This version of the service does not offer the method."""


class InternalError(FlowStackError):
    """FlowStack failed."""


BY_CODE: Final[Mapping[str, type[FlowStackError]]] = {
    "CANCELLED": CallCancelledError,
    "UNKNOWN": InternalError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "DEADLINE_EXCEEDED": TimeLimitError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "RESOURCE_EXHAUSTED": LimitExceededError,
    "FAILED_PRECONDITION": PreconditionError,
    "ABORTED": ConflictError,
    "OUT_OF_RANGE": InvalidRequestError,
    "UNIMPLEMENTED": NotSupportedError,
    "INTERNAL": InternalError,
    "UNAVAILABLE": UnavailableError,
    "DATA_LOSS": InternalError,
    "UNAUTHENTICATED": AuthenticationError,
}
"""The class of each gRPC code but OK."""

BY_REASON: Final[Mapping[str, type[FlowStackError]]] = {
    "PROVIDER_REJECTED_REQUEST": ProviderRejectedError,
    "BYOK_REQUIRED": ByokRequiredError,
    "MODEL_NOT_FOUND": ModelNotFoundError,
    "DUPLICATE_REQUEST": DuplicateRequestError,
    "SESSION_QUOTA_EXCEEDED": QuotaExceededError,
    "CONCURRENCY_LIMIT_EXCEEDED": ConcurrencyLimitError,
    "BUDGET_EXCEEDED": BudgetExceededError,
    "PROVIDER_RATE_LIMITED": RateLimitedError,
    "ALERT_RATE_LIMITED": RateLimitedError,
    "SUBSCRIPTION_ENDED": SubscriptionEndedError,
    "PAYMENT_OVERDUE": PaymentOverdueError,
    "ACCOUNT_SUSPENDED": AccountSuspendedError,
    "PROVIDER_UNAVAILABLE": ProviderUnavailableError,
}
"""The class of each reason that has one of its own; it has to be below its code's."""


def error_class(code: str, reason: str) -> type[FlowStackError]:
    """The one class for a status: its reason's where the reason belongs to the code, else the code's."""
    general = BY_CODE.get(code, InternalError)
    special = BY_REASON.get(reason, general)
    return special if issubclass(special, general) else general


def typed_details(metadata: Mapping[str, str]) -> dict[str, Any]:
    """ErrorInfo's texts, with counts as int and times as datetime."""
    details: dict[str, Any] = dict(metadata)
    for name in ("current_usage", "limit"):
        if str(details.get(name, "")).lstrip("-").isdigit():
            details[name] = int(details[name])
    if "reset_time" in details:
        try:
            details["reset_time"] = datetime.fromisoformat(details["reset_time"])
        except ValueError:
            pass  # it stays the text that it is
    return details
