"""The FlowStack SDK: LLM agents whose calls are sold by the session.

    from flowstack import Agent

    agent = Agent("my-agent", api_key="fs_…")
    print(agent.chat("Hello"))

Everything public is listed in __all__; see also flowstack.billing and flowstack.testing.
"""

from __future__ import annotations

from flowstack._agent import Agent, Stream
from flowstack._async_agent import AsyncAgent, AsyncStream
from flowstack._documents import CollectionInfo, Document
from flowstack._errors import (
    AccountSuspendedError,
    AlreadyExistsError,
    AuthenticationError,
    BudgetExceededError,
    ByokRequiredError,
    CallCancelledError,
    ConcurrencyLimitError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    DuplicateRequestError,
    FlowStackError,
    InternalError,
    InvalidRequestError,
    LimitExceededError,
    ModelNotFoundError,
    NotFoundError,
    NotSupportedError,
    PaymentOverdueError,
    PermissionDeniedError,
    PreconditionError,
    ProviderRejectedError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    SubscriptionEndedError,
    TimeLimitError,
    ToolDefinitionError,
    UnavailableError,
    UntrustedServerError,
)
from flowstack._values import (
    AttemptFailed,
    Event,
    ReasoningDelta,
    Reply,
    SessionFinished,
    SessionInfo,
    SessionStarted,
    TextDelta,
    TokenUsage,
    ToolCalled,
    ToolReturned,
    Usage,
)
from flowstack._watch import AsyncWatch, Watch

__all__ = [
    "AccountSuspendedError",
    "Agent",
    "AlreadyExistsError",
    "AsyncAgent",
    "AsyncStream",
    "AsyncWatch",
    "AttemptFailed",
    "AuthenticationError",
    "BudgetExceededError",
    "ByokRequiredError",
    "CallCancelledError",
    "CollectionInfo",
    "ConcurrencyLimitError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "Document",
    "DuplicateRequestError",
    "Event",
    "FlowStackError",
    "InternalError",
    "InvalidRequestError",
    "LimitExceededError",
    "ModelNotFoundError",
    "NotFoundError",
    "NotSupportedError",
    "PaymentOverdueError",
    "PermissionDeniedError",
    "PreconditionError",
    "ProviderRejectedError",
    "ProviderUnavailableError",
    "QuotaExceededError",
    "RateLimitedError",
    "ReasoningDelta",
    "Reply",
    "SessionFinished",
    "SessionInfo",
    "SessionStarted",
    "Stream",
    "SubscriptionEndedError",
    "TextDelta",
    "TimeLimitError",
    "TokenUsage",
    "ToolCalled",
    "ToolDefinitionError",
    "ToolReturned",
    "UnavailableError",
    "UntrustedServerError",
    "Usage",
    "Watch",
]
