"""What a committed transaction tells the rest of the process, so that nobody has to look again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Topic:
    """Events by account, for those who wait for something of it."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def changed(self, account_ids: Iterable[str]) -> None:
        """Sets the events of these accounts."""
        for account_id in account_ids:
            for event in self._waiting.get(account_id, ()):
                event.set()

    @contextmanager
    def watched(self, account_id: str, event: asyncio.Event) -> Iterator[None]:
        """Sets `event` at each change of the account, within the block."""
        self._waiting.setdefault(account_id, set()).add(event)
        try:
            yield
        finally:
            waiting = self._waiting[account_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[account_id]


class Signals:
    """Says within this process that there is something to do. Other replicas find it in the store."""

    def __init__(self) -> None:
        self.deliveries = asyncio.Event()
        """There may be deliveries to be made."""
        self.urgent: asyncio.Queue[str] = asyncio.Queue()
        """Accounts that are to be brought up to date at once."""
        self.usage = Topic()
        """What accounts have used or are charged, their limits or budgets have changed."""
        self.alerts = Topic()
        """There may be new alerts of accounts."""

    def alerted(self, account_ids: Iterable[str]) -> None:
        """Alerts of these accounts have been written."""
        self.deliveries.set()
        self.alerts.changed(account_ids)
