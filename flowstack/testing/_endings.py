"""How a session ends: what happened decides whether it is counted and what its client is told. Pure.

ends normally, tool loop included                        counted
client gone, after output                                counted
client gone, an attempt alive, before output             managed: counted; BYOK: released
client gone before anything was sent                     released
every candidate fails before output                      released
the provider fails after output                          released
the caller's own key or request is refused after output  counted
the caller breaks the tool loop                          counted
the time limit, before output                            released, SESSION_TIME_LIMIT
the time limit, after output                             counted, ends well with TIME_LIMIT
the fake stops                                           released
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from flowstack_protos.type.v1 import type_pb2 as types

RATE_LIMIT_RETRY: Final = timedelta(seconds=5)

_BYOK: Final = types.CREDENTIAL_MODE_BYOK
_CREDENTIALS: Final = types.ATTEMPT_FAILURE_CREDENTIALS_REFUSED
_RATE: Final = types.ATTEMPT_FAILURE_RATE_LIMITED
_REJECTED: Final = types.ATTEMPT_FAILURE_REQUEST_REJECTED


class Cause(Enum):
    """What brought a session to its end."""

    FINISHED = auto()
    CLIENT_GONE = auto()
    CALLER_ERROR = auto()
    PROVIDER_FAILED = auto()
    TIME_LIMIT = auto()
    SHUTTING_DOWN = auto()


@dataclass(slots=True)
class Failed:
    """An attempt that failed."""

    candidate: types.Candidate
    failure: types.AttemptFailure.ValueType
    message: str

    @property
    def is_callers_doing(self) -> bool:
        """Whether the caller's request, key or rate is what was refused."""
        if self.failure == _REJECTED:
            return True
        return self.candidate.credential_mode == _BYOK and self.failure in (_CREDENTIALS, _RATE)

    @property
    def reason(self) -> str:
        """What it means to the client."""
        if self.failure == _RATE:
            return "PROVIDER_RATE_LIMITED"
        return "PROVIDER_REJECTED_REQUEST" if self.is_callers_doing else "PROVIDER_UNAVAILABLE"

    def told(self, reason: str) -> str:
        """The words that go with `reason`."""
        name = types.AttemptFailure.Name(self.failure).removeprefix("ATTEMPT_FAILURE_").lower().replace("_", "-")
        words = f"{self.candidate.provider}: {name}"
        own = self.candidate.credential_mode == _BYOK or reason == "PROVIDER_REJECTED_REQUEST"
        return f"{words}: {self.message}" if self.message and own else words


@dataclass(slots=True)
class Progress:
    """How far a session has come."""

    output_begun: bool = False
    answered: bool = False
    """A provider's answer came to its own end."""
    alive: types.Candidate | None = None
    """Who is being asked."""
    serving: types.Candidate | None = None
    """Who gave the output."""
    failures: list[Failed] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """What to do at quota and what to tell the client."""

    finish_reason: types.FinishReason.ValueType
    release_reason: types.ReleaseReason.ValueType | None = None
    """None: the session is counted."""
    error: str = ""
    """The reason; empty where the stream ends well or nobody is left to be told."""
    failed: Failed | None = None
    """The attempt that the error speaks of."""


def decide(cause: Cause, progress: Progress, finish_reason: types.FinishReason.ValueType) -> Ending:
    """The ending that fits."""
    if cause is Cause.FINISHED:
        return Ending(finish_reason)
    if cause is Cause.SHUTTING_DOWN:
        return Ending(types.FINISH_REASON_FAILED, types.RELEASE_REASON_SHUTTING_DOWN, "SHUTTING_DOWN")
    if cause is Cause.TIME_LIMIT:
        if progress.output_begun:
            return Ending(types.FINISH_REASON_TIME_LIMIT)
        return Ending(types.FINISH_REASON_TIME_LIMIT, types.RELEASE_REASON_TIME_LIMIT, "SESSION_TIME_LIMIT")
    if cause is Cause.PROVIDER_FAILED:
        return _failed_after_output(progress) if progress.output_begun else _failed_before_output(progress.failures)
    managed = progress.alive is not None and progress.alive.credential_mode == types.CREDENTIAL_MODE_MANAGED
    if cause is Cause.CLIENT_GONE:
        release = None if progress.output_begun or managed else types.RELEASE_REASON_CLIENT_CANCELLED
        return Ending(types.FINISH_REASON_CANCELLED, release)
    counted = progress.output_begun or progress.answered or managed
    release = None if counted else types.RELEASE_REASON_CLIENT_CANCELLED
    return Ending(types.FINISH_REASON_CALLER_ERROR, release, "INVALID_REQUEST")


def _failed_after_output(progress: Progress) -> Ending:
    failed = progress.failures[-1]
    if failed.is_callers_doing and (progress.answered or failed.failure != _REJECTED):
        return Ending(types.FINISH_REASON_CALLER_ERROR, None, failed.reason, failed)
    reason = "PROVIDER_UNAVAILABLE" if failed.failure == _REJECTED else failed.reason
    return Ending(types.FINISH_REASON_FAILED, types.RELEASE_REASON_PROVIDER_FAILED, reason, failed)


def _failed_before_output(failures: list[Failed]) -> Ending:
    # What a plain retry may cure comes first, so that a client whose fallback was refused still tries again.
    for reason in ("PROVIDER_UNAVAILABLE", "PROVIDER_RATE_LIMITED"):
        fitting = [failed for failed in failures if failed.reason == reason]
        if fitting:
            return Ending(types.FINISH_REASON_FAILED, types.RELEASE_REASON_PROVIDER_FAILED, reason, fitting[-1])
    release = types.RELEASE_REASON_REQUEST_REJECTED
    return Ending(types.FINISH_REASON_FAILED, release, "PROVIDER_REJECTED_REQUEST", failures[-1])


_SENTENCES: Final = {
    "PROVIDER_UNAVAILABLE": "The provider could not serve the session. Try again, or name a fallback.",
    "PROVIDER_RATE_LIMITED": "The provider limits the rate. Wait, then try again, or name a fallback.",
    "PROVIDER_REJECTED_REQUEST": "The provider refused the request or its key. Correct it before trying again.",
    "INVALID_REQUEST": "The session was broken off by its caller. Send what was owed within the time.",
    "SESSION_TIME_LIMIT": "The session's time limit passed before any output. Try again, or ask for less.",
    "SHUTTING_DOWN": "This router is shutting down and could not let the session finish. Try again.",
}


def explanation(reason: str, detail: str, *, counted: bool) -> str:
    """The message for an error of a session."""
    verdict = "The session was counted." if counted else "The session was not counted."
    return " ".join(part for part in (_SENTENCES[reason], verdict, detail) if part)
