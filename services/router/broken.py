"""How a session came to an end that is not its natural one, and what its client is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from services.router.domain.endings import Cause, Ending, FailedAttempt, reason_of
from services.router.domain.outcome import SessionState
from services.router.domain.request import CredentialMode
from services.router.explain import explanation, session_metadata
from services.shared.errors import FieldViolation, FlowStackError, Reason

RATE_LIMIT_RETRY: Final = timedelta(seconds=5)
"""What a client is told to wait where a provider that limits the rate does not say how long."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A provider's failure as the client may be told of it."""

    provider: str
    failed: FailedAttempt
    message: str
    """What the provider said, filtered."""
    retry_after: timedelta | None

    def told(self, reason: Reason) -> str:
        """The words that go with `reason`.

        On the operator's credentials only a refused request is its caller's affair; the rest is the operator's.
        """
        words = f"{self.provider}: {self.failed.failure.value}"
        own = self.failed.mode is CredentialMode.BYOK or reason is Reason.PROVIDER_REJECTED_REQUEST
        return f"{words}: {self.message}" if self.message and own else words


class BrokenError(Exception):
    """Ends a session that did not come to its natural end."""

    def __init__(
        self,
        cause: Cause,
        detail: str = "",
        *,
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] = MappingProxyType({}),
        quotes: Sequence[Quote] = (),
    ) -> None:
        super().__init__(cause.value)
        self.cause = cause
        self.detail = detail
        self.quotes = quotes
        self.metadata = metadata
        self.violations = violations

    def quote(self, reason: Reason) -> Quote | None:
        """The failure that the session ends with `reason` for; the last one where several would do."""
        fitting = [quote for quote in self.quotes if reason_of(quote.failed) is reason] or self.quotes
        return fitting[-1] if fitting else None

    def told(self, ending: Ending, session_id: str, state: SessionState) -> FlowStackError:
        """What the client of a session is told that ends with an error.

        Args:
            ending: How it ends; it has an error.
            session_id: Whose session it was; empty where nothing was reserved.
            state: Where it stands at quota.
        """
        reason = ending.error
        assert reason is not None, "a session that ends well is told of by its last event"
        detail, retry_after = self.detail, None
        if (quote := self.quote(reason)) is not None:
            detail, retry_after = quote.told(reason), quote.retry_after
        if reason is Reason.PROVIDER_RATE_LIMITED and retry_after is None:
            retry_after = RATE_LIMIT_RETRY
        return FlowStackError(
            reason,
            explanation(reason, detail, counted=ending.counted, state=state),
            metadata={**self.metadata, **(session_metadata(session_id, state) if session_id else {})},
            violations=self.violations,
            retry_after=retry_after,
        )


def caller_error(error: FlowStackError) -> BrokenError:
    """A rule of the tool loop that the caller broke."""
    return BrokenError(Cause.CALLER_ERROR, error.message, violations=error.violations)
