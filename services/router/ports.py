"""What a session needs of the world outside: quota, and in a Chat the client's side of the tool loop."""

from __future__ import annotations

from typing import Protocol

from services.router.domain.outcome import Outcome, ReleaseReason
from services.router.domain.quota import Grant, Quota, Reservation, Resolution
from services.router.domain.request import ToolResultPart


class QuotaPort(Protocol):
    """The quota service. Every method raises FlowStackError with quota's own reason.

    QUOTA_UNAVAILABLE, and every reason that quota does not document for the method, means that the outcome of the
    command is not known.
    """

    async def reserve(self, reservation: Reservation) -> Grant:
        """Holds one unit. Tried once: a repeat would be answered as a replay, which starts nothing."""
        ...

    async def commit(self, account_id: str, session_id: str, outcome: Outcome) -> Resolution:
        """Counts a reserved session. Idempotent."""
        ...

    async def release(
        self, account_id: str, session_id: str, reason: ReleaseReason, outcome: Outcome | None
    ) -> Resolution:
        """Gives a session's unit back. Idempotent; of an unknown session it refuses a reserve still on its way."""
        ...

    async def get_quota(self, account_id: str) -> Quota:
        """Reads an account's quota."""
        ...


class ToolResultSource(Protocol):
    """The client's answers in a tool loop."""

    async def receive(self) -> tuple[ToolResultPart, ...] | None:
        """The next results; None once the client has half-closed.

        Raises:
            FlowStackError: INVALID_REQUEST, a message that is no tool results or breaks a rule.
        """
        ...

    def unasked(self) -> tuple[ToolResultPart, ...] | None:
        """Results that are there already, though none are owed; None where there are none.

        Raises:
            FlowStackError: as receive.
        """
        ...
