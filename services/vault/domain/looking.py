"""How long a query may look through documents, and how many of them at once."""

from __future__ import annotations

from typing import Final

from services.shared.errors import FlowStackError, Reason

QUERY_SECONDS_MAX: Final = 20.0
"""Less than the 30 s that a call without a deadline gets, so that the caller is told what was the matter."""

_DOCUMENTS: Final = 1_000
_DOCUMENTS_MAX: Final = 4_000


class Pace:
    """How many documents are looked at in one turn: tens of milliseconds, whatever their size."""

    def __init__(self) -> None:
        self.documents = _DOCUMENTS

    def slow_down(self) -> None:
        """The last turn took too long."""
        self.documents = max(1, self.documents // 4)

    def speed_up(self) -> None:
        """It did not. Slowly, because a turn that takes too long is lost."""
        self.documents = min(_DOCUMENTS_MAX, self.documents + self.documents // 8 + 1)


def took_too_long(seconds: float) -> FlowStackError:
    """CALL_TIME_LIMIT, and what to do."""
    return FlowStackError(
        Reason.CALL_TIME_LIMIT,
        f"The query looked through documents for {seconds:g} s without coming to an end. Sort by one field, or demand "
        "one value of a field: an index of it is being made, so that the same call is quick in a while.",
    )
