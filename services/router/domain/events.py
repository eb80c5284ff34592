"""What a provider's stream yields, and what a session sends to its client.

The deltas are not frozen: a frozen dataclass costs three times as much to make, and they are made for every token.
Nobody changes one.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.router.domain.outcome import AttemptFailure, FinishReason, Outcome, SessionState, Usage
from services.router.domain.quota import Quota
from services.router.domain.request import NativeContent


@dataclass(slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(slots=True)
class ToolCall:
    """A tool call, whole. `arguments_json` has been checked to be a JSON object."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The provider's own end of one call. The last event of every stream that was not cut."""

    reason: FinishReason
    provider_reason: str
    usage: Usage
    native: NativeContent | None = None
    """What the provider wants back with the results of the tools that it called; None where the calls are enough."""


Output = TextDelta | ReasoningDelta | ToolCall
"""What counts as output once it has been handed on."""

ProviderEvent = Output | Finish


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The session is reserved; output follows."""

    session_id: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class ToolResultsWanted:
    """The session waits for the results of these calls."""

    tool_call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed before any output, and the next candidate is tried."""

    provider: str
    model: str
    failure: AttemptFailure


@dataclass(frozen=True, slots=True)
class SessionFinished:
    """The session is over. The last event of a stream that ends well.

    `state` is RESERVED, and `quota` None, where quota had not answered in time: the resolution goes on.
    """

    outcome: Outcome
    state: SessionState
    quota: Quota | None


SessionEvent = SessionStarted | Output | ToolResultsWanted | AttemptFailed | SessionFinished
