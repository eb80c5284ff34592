"""How a session ended and what it consumed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.router.domain.request import CredentialMode

TOKENS_MAX: Final = 2**31 - 1
"""Token counts travel as int32; a provider that claims more is not believed beyond it."""


class FinishReason(Enum):
    """Why a completion ended."""

    STOP = "stop"
    STOP_SEQUENCE = "stop-sequence"
    MAX_OUTPUT_TOKENS = "max-output-tokens"
    TOOL_CALLS = "tool-calls"
    CONTENT_FILTER = "content-filter"
    TIME_LIMIT = "time-limit"
    CANCELLED = "cancelled"
    CALLER_ERROR = "caller-error"
    FAILED = "failed"


class ReleaseReason(Enum):
    """Why a session was released, that is: ended without being counted."""

    PROVIDER_FAILED = "provider-failed"
    CLIENT_CANCELLED = "client-cancelled"
    TIME_LIMIT = "time-limit"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal"
    RESERVATION_UNKNOWN = "reservation-unknown"
    REQUEST_REJECTED = "request-rejected"


class AttemptFailure(Enum):
    """What went wrong in one attempt at one candidate."""

    UNREACHABLE = "unreachable"
    """Could not connect, or the connection broke before the answer began."""
    PROVIDER_ERROR = "provider-error"
    """The provider answered 5xx, 529 or an error event."""
    RATE_LIMITED = "rate-limited"
    """The provider limited the rate (429)."""
    CREDENTIALS_REFUSED = "credentials-refused"
    """The provider refused the credentials (401, 403)."""
    REQUEST_REJECTED = "request-rejected"
    """The provider refused the request as such (another 4xx)."""
    TRUNCATED = "truncated"
    """The stream stopped without the provider's own end mark."""
    MALFORMED = "malformed"
    """The provider sent what its published format does not allow."""
    STALLED = "stalled"
    """No event for too long."""
    ABANDONED = "abandoned"
    """The session ended while the attempt was alive."""


class SessionState(Enum):
    """Where a session stands at quota."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them. None is unknown, which is never 0."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    def plus(self, other: Usage) -> Usage:
        """The sum. What either side does not know is unknown in the sum: half a count would pass for a whole one."""
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            _sum(self.cached_input_tokens, other.cached_input_tokens),
            _sum(self.cache_write_tokens, other.cache_write_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
        )


UNKNOWN_USAGE: Final = Usage()


def _sum(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return None
    return min(left + right, TOKENS_MAX)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one candidate. `failure` is None for the one that served the session."""

    provider: str
    model: str
    failure: AttemptFailure | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What quota stores with the session and billing prices it by. Times are in microseconds."""

    finish_reason: FinishReason
    provider_finish_reason: str = ""
    served_provider: str = ""
    served_model: str = ""
    served_credential_mode: CredentialMode | None = None
    usage: Usage = UNKNOWN_USAGE
    attempts: tuple[Attempt, ...] = ()
    provider_latency_us: int = 0
    time_to_first_token_us: int | None = None
    provider_request_id: str = ""
    tool_call_count: int = 0
