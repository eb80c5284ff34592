"""How a session ends: what happened decides whether it is counted and what its client is told.

    what happens                                                        ends as
    the completion ends normally, tool loop included                    counted
    the client goes away, after output                                  counted
    the client goes away before output, an attempt's request sent       managed: counted; BYOK: released
    the client goes away before anything was sent, or between attempts  released
    nobody has credentials for a candidate that quota allowed           released, BYOK_REQUIRED
    every candidate fails before output                                 released
    the provider fails after output, on its side or ours                released
    after output: the first round's request is called bad mid-stream    released: it had been taken
    after output: a later round's request is refused                    counted
    after output: the caller's own key refused or limited               counted
    after output, or an empty answer: the caller breaks the tool loop   counted
    after output: the caller stops reading                              counted
    the time limit, before output                                       released, SESSION_TIME_LIMIT
    the time limit, after output                                        counted, ends well with TIME_LIMIT
    the router drains or fails; the reservation's outcome is unknown    released

A session that failed on our side or the provider's is never counted; one that its caller consumed or broke after
output always is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.router.domain.outcome import AttemptFailure, FinishReason, ReleaseReason
from services.router.domain.request import CredentialMode
from services.shared.errors import Reason


class Cause(Enum):
    """What brought a session to its end."""

    FINISHED = "finished"
    """The provider came to its own end, and nothing more is owed."""
    CLIENT_GONE = "client-gone"
    """The client cancelled, disconnected or ran into its own deadline."""
    READER_STALLED = "reader-stalled"
    """The client takes no more output."""
    CALLER_ERROR = "caller-error"
    """The client broke the tool loop: results missing, invalid, not asked for, over a limit, or owed when it
    half-closed."""
    PROVIDER_FAILED = "provider-failed"
    """The last attempt failed and there is none to follow."""
    TIME_LIMIT = "time-limit"
    """The session's time limit passed."""
    SHUTTING_DOWN = "shutting-down"
    """The router drains and could not wait longer."""
    INTERNAL = "internal"
    """The router has a defect."""
    CREDENTIALS_MISSING = "credentials-missing"
    """The plan includes a provider for which the operator has no credentials, and the caller sent none."""
    RESERVATION_UNKNOWN = "reservation-unknown"
    """Quota's answer to the reservation did not arrive, or was a replay."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed, and whose credentials it ran on."""

    failure: AttemptFailure
    mode: CredentialMode


@dataclass(frozen=True, slots=True)
class Situation:
    """How things stood when the cause came up."""

    cause: Cause
    output_begun: bool = False
    """True once anything of the model's was handed to the client."""
    answered: bool = False
    """True once a provider call came to its own end: what follows belongs to a later round, or to none."""
    alive: CredentialMode | None = None
    """The mode of the provider call that was running; None when none was, or nothing of it had been sent."""
    finish_reason: FinishReason = FinishReason.STOP
    """For FINISHED: the model's own reason."""
    failures: Sequence[FailedAttempt] = ()
    """For PROVIDER_FAILED: every attempt that failed, in order."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What to do at quota and what to tell the client."""

    finish_reason: FinishReason
    release_reason: ReleaseReason | None = None
    """None: the session is committed, that is, counted."""
    error: Reason | None = None
    """None: the stream ends well, with its terminal frame, or there is nobody left to tell."""

    @property
    def counted(self) -> bool:
        """True when the session uses up its unit."""
        return self.release_reason is None


_ALWAYS: Final = {
    Cause.SHUTTING_DOWN: Ending(FinishReason.FAILED, ReleaseReason.SHUTTING_DOWN, Reason.SHUTTING_DOWN),
    Cause.INTERNAL: Ending(FinishReason.FAILED, ReleaseReason.INTERNAL, Reason.INTERNAL),
    Cause.CREDENTIALS_MISSING: Ending(FinishReason.FAILED, ReleaseReason.REQUEST_REJECTED, Reason.BYOK_REQUIRED),
    Cause.RESERVATION_UNKNOWN: Ending(FinishReason.FAILED, ReleaseReason.RESERVATION_UNKNOWN, Reason.QUOTA_UNAVAILABLE),
}
"""What ends the same however far the session came."""


def decide(situation: Situation) -> Ending:
    """The ending that fits `situation`."""
    match situation.cause:
        case Cause.FINISHED:
            return Ending(situation.finish_reason)
        case Cause.CLIENT_GONE:
            return _client_gone(situation)
        case Cause.READER_STALLED | Cause.CALLER_ERROR:
            return _caller_broke_off(situation)
        case Cause.PROVIDER_FAILED:
            return _provider_failed(situation)
        case Cause.TIME_LIMIT:
            return _out_of_time(situation)
        case cause:
            return _ALWAYS[cause]


def _client_gone(situation: Situation) -> Ending:
    # Before output a managed prompt has been billed to the operator already: aborting is no way to call for free.
    if situation.output_begun or situation.alive is CredentialMode.MANAGED:
        return Ending(FinishReason.CANCELLED)
    return Ending(FinishReason.CANCELLED, ReleaseReason.CLIENT_CANCELLED)


def _caller_broke_off(situation: Situation) -> Ending:
    # Nobody can owe results or stop reading before there is an answer; where it happens it is as if they had left.
    if situation.output_begun or situation.answered or situation.alive is CredentialMode.MANAGED:
        return Ending(FinishReason.CALLER_ERROR, error=Reason.INVALID_REQUEST)
    return Ending(FinishReason.CALLER_ERROR, ReleaseReason.CLIENT_CANCELLED, Reason.INVALID_REQUEST)


def _out_of_time(situation: Situation) -> Ending:
    if situation.output_begun:
        return Ending(FinishReason.TIME_LIMIT)
    return Ending(FinishReason.TIME_LIMIT, ReleaseReason.TIME_LIMIT, Reason.SESSION_TIME_LIMIT)


def _provider_failed(situation: Situation) -> Ending:
    if situation.output_begun:
        return _failed_after_output(situation.failures[-1], situation.answered)
    return _failed_before_output(situation.failures)


def _failed_after_output(failed: FailedAttempt, answered: bool) -> Ending:
    if failed.failure is AttemptFailure.REQUEST_REJECTED and not answered:
        # A provider that has begun to answer has taken the request; what it refuses then is its own doing.
        return Ending(FinishReason.FAILED, ReleaseReason.PROVIDER_FAILED, Reason.PROVIDER_UNAVAILABLE)
    if is_callers_doing(failed):
        return Ending(FinishReason.CALLER_ERROR, error=reason_of(failed))
    return Ending(FinishReason.FAILED, ReleaseReason.PROVIDER_FAILED, reason_of(failed))


def _failed_before_output(failures: Sequence[FailedAttempt]) -> Ending:
    reasons = [reason_of(failed) for failed in failures]
    # What a plain retry may cure comes first, so that a client whose fallback was refused still tries again.
    for reason in (Reason.PROVIDER_UNAVAILABLE, Reason.PROVIDER_RATE_LIMITED):
        if reason in reasons:
            return Ending(FinishReason.FAILED, ReleaseReason.PROVIDER_FAILED, reason)
    return Ending(FinishReason.FAILED, ReleaseReason.REQUEST_REJECTED, Reason.PROVIDER_REJECTED_REQUEST)


def is_callers_doing(failed: FailedAttempt) -> bool:
    """True when the caller's request, key or rate is what the provider refused."""
    if failed.failure is AttemptFailure.REQUEST_REJECTED:
        return True
    on_own_key = failed.mode is CredentialMode.BYOK
    return on_own_key and failed.failure in (AttemptFailure.CREDENTIALS_REFUSED, AttemptFailure.RATE_LIMITED)


def reason_of(failed: FailedAttempt) -> Reason:
    """What the failure of one attempt means to the client."""
    if failed.failure is AttemptFailure.RATE_LIMITED:
        return Reason.PROVIDER_RATE_LIMITED
    return Reason.PROVIDER_REJECTED_REQUEST if is_callers_doing(failed) else Reason.PROVIDER_UNAVAILABLE
