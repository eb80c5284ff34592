"""What agents answer with. Money is float US dollars here, for arithmetic as in the examples; times are UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowstack_protos.type.v1 import type_pb2

if TYPE_CHECKING:
    from flowstack_protos.billing.v1 import usage_service_pb2
    from flowstack_protos.router.v1 import router_service_pb2


def dollars(money: Any) -> float:
    """A google.type.Money as float dollars."""
    return float(money.units + money.nanos / 1_000_000_000)


def time_of(timestamp: Any) -> datetime:
    """A Timestamp as datetime in UTC, to the microsecond."""
    result: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return result


def word(enum: Any, value: int, prefix: str) -> str:
    """An enum's value as a lower-case word, such as `stop`; empty where it is unset or unknown to this version."""
    if not value or value not in enum.values():
        return ""
    return str(enum.Name(value)).removeprefix(prefix).lower()


@dataclass(frozen=True, slots=True)
class Usage:
    """An account's usage of the current period.

    Attributes:
        tier: the plan in force, such as `starter`.
        sessions_used: sessions of the period that were counted.
        sessions_limit: sessions that the period allows.
        sessions_remaining: limit less used less running, never below 0.
        usage_percentage: 100 x used / limit; 0 where the limit is 0.
        is_near_limit: from 80 % on.
        can_make_requests: True when a session would be granted now.
        current_charges: what the period was invoiced so far, dollars.
        estimated_monthly_cost: that and the projected provider cost of BYOK sessions, dollars.
        refusal_reason: why a session would be refused now, such as `SESSION_QUOTA_EXCEEDED`; empty when it would not.
        unpriced_sessions: BYOK sessions whose provider cost is unknown and in no sum.
        costs_as_of: as of when the money is.
        days_left: until period_end, rounded up.
    """

    account_id: str
    tier: str
    period_start: datetime
    period_end: datetime
    sessions_used: int
    sessions_used_today: int
    sessions_reserved: int
    sessions_limit: int
    sessions_remaining: int
    usage_percentage: float
    is_near_limit: bool
    can_make_requests: bool
    refusal_reason: str
    can_use_managed: bool
    managed_sessions: int
    byok_sessions: int
    unpriced_sessions: int
    current_charges: float
    estimated_monthly_cost: float
    costs_as_of: datetime
    days_left: int


def usage_from(usage: usage_service_pb2.Usage) -> Usage:
    """The service's usage as the SDK's."""
    return Usage(
        account_id=usage.account_id,
        tier=usage.plan_id,
        period_start=time_of(usage.period_start_time),
        period_end=time_of(usage.period_end_time),
        sessions_used=usage.sessions_used,
        sessions_used_today=usage.sessions_used_today,
        sessions_reserved=usage.sessions_reserved,
        sessions_limit=usage.sessions_limit,
        sessions_remaining=usage.sessions_remaining,
        usage_percentage=usage.usage_percentage,
        is_near_limit=usage.is_near_limit,
        can_make_requests=usage.can_make_requests,
        refusal_reason=usage.refusal_reason,
        can_use_managed=usage.can_use_managed,
        managed_sessions=usage.managed_sessions,
        byok_sessions=usage.byok_sessions,
        unpriced_sessions=usage.unpriced_sessions,
        current_charges=dollars(usage.current_charges),
        estimated_monthly_cost=dollars(usage.estimated_monthly_cost),
        costs_as_of=time_of(usage.costs_as_of_time),
        days_left=usage.days_left,
    )


def usage_told(message: usage_service_pb2.WatchUsageResponse) -> Usage:
    """What a message of WatchUsage says."""
    return usage_from(message.usage)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of a session; None where the provider did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None where either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


def tokens_from(usage: router_service_pb2.TokenUsage) -> TokenUsage:
    """The router's counts as the SDK's."""
    names: tuple[Any, ...] = (
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
    )
    known = {name: getattr(usage, name) for name in names if usage.HasField(name)}
    return TokenUsage(**known, estimated=usage.estimated)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """The session that an answer cost.

    Attributes:
        session_id: `ses_…`.
        state: `committed`, or `reserved` where quota had not yet confirmed the commit.
        provider: who served it.
        model: what served it, by the provider's name.
        credential_mode: `managed` or `byok`.
        request_id: the idempotency key that it was asked for with.
        sessions_used: counted sessions of the period afterwards; None where the commit was not confirmed in time.
        sessions_limit: sessions that the period allows; None likewise.
        sessions_remaining: what is left; None likewise.
    """

    session_id: str
    state: str
    provider: str
    model: str
    credential_mode: str
    request_id: str
    sessions_used: int | None = None
    sessions_limit: int | None = None
    sessions_remaining: int | None = None

    @property
    def counted(self) -> bool:
        """True for a session that counts, confirmed or about to be."""
        return self.state in ("committed", "reserved")


class Reply(str):
    """The model's text, with what is known about the session on it.

    Attributes:
        usage: its tokens.
        session: the session that it cost.
        finish_reason: `stop`, `stop_sequence`, `max_output_tokens`, `tool_calls` (the plan's tool rounds were used
            up), `content_filter` or `time_limit`.
    """

    usage: TokenUsage
    session: SessionInfo
    finish_reason: str

    def __new__(cls, text: str, usage: TokenUsage, session: SessionInfo, finish_reason: str) -> Reply:
        reply = super().__new__(cls, text)
        reply.usage, reply.session, reply.finish_reason = usage, session, finish_reason
        return reply

    def __getnewargs__(self) -> tuple[str, TokenUsage, SessionInfo, str]:  # type: ignore[override]  # copies, pickles
        return (str(self), self.usage, self.session, self.finish_reason)


def reply_from(text: str, session_id: str, request_id: str, finished: router_service_pb2.SessionFinished) -> Reply:
    """The answer of a session that ended."""
    outcome = finished.outcome
    counts: dict[str, int] = {}
    if finished.HasField("quota"):
        counts = {
            "sessions_used": finished.quota.sessions_committed,
            "sessions_limit": finished.quota.session_limit,
            "sessions_remaining": finished.quota.sessions_remaining,
        }
    session = SessionInfo(
        session_id=session_id,
        state=word(type_pb2.SessionState, finished.session_state, "SESSION_STATE_"),
        provider=outcome.served_provider,
        model=outcome.served_model,
        credential_mode=word(type_pb2.CredentialMode, outcome.served_credential_mode, "CREDENTIAL_MODE_"),
        request_id=request_id,
        **counts,
    )
    reason = word(type_pb2.FinishReason, finished.finish_reason, "FINISH_REASON_")
    return Reply(text, tokens_from(finished.usage), session, reason)


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The session is reserved."""

    session_id: str
    sessions_remaining: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A provider failed before any output; a fallback is tried."""

    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model calls a tool."""

    id: str
    name: str
    arguments_json: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool has run; its result goes back to the model."""

    id: str
    name: str
    content: str = field(repr=False)
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class SessionFinished:
    """The session is over; the last event."""

    reply: Reply


Event = SessionStarted | TextDelta | ReasoningDelta | AttemptFailed | ToolCalled | ToolReturned | SessionFinished
