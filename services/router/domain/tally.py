"""Keeps count of what a session does, for its outcome."""

from __future__ import annotations

from services.router.domain.endings import Ending, FailedAttempt
from services.router.domain.events import Finish
from services.router.domain.outcome import UNKNOWN_USAGE, Attempt, AttemptFailure, Outcome, Usage
from services.router.domain.request import Candidate, CredentialMode

ATTEMPTS_MAX = 64
"""What an outcome can hold. A request has far fewer candidates."""

MICROSECONDS = 1_000_000


class Tally:
    """The provider calls of one session, in order. Times are monotonic seconds.

    The rounds of a tool loop that one candidate serves are one attempt with their tokens added up.
    """

    def __init__(self, arrived_s: float) -> None:
        self._arrived_s = arrived_s
        self._first_output_s: float | None = None
        self._began_s = 0.0
        self._latency_s = 0.0
        self._alive: Candidate | None = None
        self._sent = False
        self._serving: Candidate | None = None
        self._usage: Usage | None = None
        self._failed: list[Attempt] = []
        self._last_failure: AttemptFailure | None = None
        self._provider_reason = ""
        self._request_id = ""
        self.answered = False
        """True once a call has come to the provider's own end."""
        self.tool_calls = 0
        self.failures: list[FailedAttempt] = []

    @property
    def output_begun(self) -> bool:
        """True once output was handed on."""
        return self._first_output_s is not None

    @property
    def alive(self) -> CredentialMode | None:
        """The mode of the call that is running; None when none is, or nothing of it has been sent yet."""
        return self._alive.credential_mode if self._alive and self._sent else None

    @property
    def serving(self) -> Candidate | None:
        """The candidate of the last call, running or not."""
        return self._serving

    def begin(self, candidate: Candidate, now_s: float) -> None:
        """A call is about to be made."""
        self._alive = self._serving = candidate
        self._sent = False
        self._began_s = now_s

    def sent(self) -> None:
        """The call's request goes out to the provider, who may bill for it from now on."""
        self._sent = True

    def opened(self, request_id: str) -> None:
        """The call's answer begins; the provider may have given it an id."""
        self._request_id = request_id or self._request_id

    def output(self, now_s: float) -> None:
        """Output is about to be handed on."""
        if self._first_output_s is None:
            self._first_output_s = now_s

    def finish(self, finish: Finish, now_s: float) -> None:
        """The call came to the provider's own end."""
        self._provider_reason = finish.provider_reason
        self.answered = True
        self._end(finish.usage, now_s)

    def fail(self, failure: AttemptFailure, request_id: str, now_s: float) -> None:
        """The call failed. A provider that refuses it may have given it an id as well."""
        candidate = self._alive
        self.opened(request_id)
        self._end(UNKNOWN_USAGE, now_s)
        if candidate is None:
            return
        self.failures.append(FailedAttempt(failure, candidate.credential_mode))
        if self.output_begun:
            self._last_failure = failure
        else:
            self._failed.append(Attempt(candidate.provider, candidate.model, failure))
            # No round came before it, or there would have been output: the next candidate starts from nothing.
            self._usage = None
            self._serving = None

    def abandon(self, now_s: float) -> None:
        """The session ends; a call that is still running is given up."""
        if self._alive is not None:
            self._last_failure = AttemptFailure.ABANDONED
            self._end(UNKNOWN_USAGE, now_s)

    def _end(self, usage: Usage, now_s: float) -> None:
        self._alive = None
        self._latency_s += now_s - self._began_s
        self._usage = usage if self._usage is None else self._usage.plus(usage)

    def outcome(self, ending: Ending) -> Outcome:
        """The outcome of a session that ends with `ending`."""
        serving = self._serving
        usage = self._usage or UNKNOWN_USAGE
        attempts = self._failed
        if serving is not None:
            attempts = [
                *attempts,
                Attempt(serving.provider, serving.model, self._last_failure, usage.input_tokens, usage.output_tokens),
            ]
        # One that ran but neither gave output nor is counted has served nobody.
        served = serving if self.output_begun or ending.counted else None
        first_output_s = self._first_output_s
        return Outcome(
            finish_reason=ending.finish_reason,
            provider_finish_reason=self._provider_reason[:64],
            served_provider=served.provider if served else "",
            served_model=served.model if served else "",
            served_credential_mode=served.credential_mode if served else None,
            usage=usage,
            attempts=tuple(attempts[:ATTEMPTS_MAX]),
            provider_latency_us=round(self._latency_s * MICROSECONDS),
            time_to_first_token_us=(
                None if first_output_s is None else round((first_output_s - self._arrived_s) * MICROSECONDS)
            ),
            provider_request_id=self._request_id,
            tool_call_count=self.tool_calls,
        )
