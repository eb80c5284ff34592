"""How many streams an account may have open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from services.shared.errors import FlowStackError, Reason

STREAMS_MAX: Final = 1_000
"""Of one account in one process, WatchUsage and WatchAlerts taken together: each costs memory, and a write for every
change, which other accounts' calls wait for."""

RETRY_AFTER: Final = timedelta(seconds=1)


class StreamLimit:
    """Counts the streams that accounts have open in this process."""

    def __init__(self, streams_max: int = STREAMS_MAX) -> None:
        self._streams_max = streams_max
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, account_id: str) -> Iterator[None]:
        """Counts a stream of the account within the block.

        Raises:
            FlowStackError: CONCURRENCY_LIMIT_EXCEEDED.
        """
        if self._open[account_id] >= self._streams_max:
            raise FlowStackError(
                Reason.CONCURRENCY_LIMIT_EXCEEDED,
                f"The account has {self._streams_max} streams of usage and alerts open here, the most that it can. "
                "End one that is not needed, or try again later.",
                metadata={"limit": str(self._streams_max)},
                retry_after=RETRY_AFTER,
            )
        self._open[account_id] += 1
        try:
            yield
        finally:
            self._open[account_id] -= 1
            if not self._open[account_id]:
                del self._open[account_id]
