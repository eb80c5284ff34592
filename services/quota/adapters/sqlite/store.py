"""The Store port on the engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from services.quota.adapters.sqlite import events
from services.quota.adapters.sqlite.engine import Engine, Transaction
from services.quota.adapters.sqlite.rows import row_from_entitlement
from services.quota.adapters.sqlite.schema import open_database
from services.quota.adapters.sqlite.writer import Committer, CommitThread, Writer
from services.quota.domain.commands import Command, Result
from services.quota.domain.cursors import Position
from services.quota.domain.entitlements import admit_entitlement, quota_of
from services.quota.domain.model import Entitlement, Quota, Session
from services.quota.store import Committed, EventPage
from services.shared.clock import Clock


class SqliteStore:
    """A Store on one SQLite file. See store.Store for what each method promises."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, expiry_hold_us: int, committer: Committer | None = None
    ) -> None:
        self._connection = connection
        self._engine = Engine(connection, expiry_hold_us)
        self._listeners: list[Callable[[Committed], None]] = []
        self._writer = Writer(self._engine, clock, committer or CommitThread(), self._committed)

    @classmethod
    def open(cls, path: Path, clock: Clock, expiry_hold_us: int, committer: Committer | None = None) -> SqliteStore:
        """Opens the store; to be called inside the event loop that will use it.

        Args:
            path: the file; made on first use.
            clock: wall and monotonic time.
            expiry_hold_us: how long quota has to have served after an outage before a lease expires, in microseconds.
            committer: runs the commits; a thread of the store's own where None.

        Raises:
            StartupError: the file cannot be used.
        """
        return cls(open_database(path), clock, expiry_hold_us, committer)

    @property
    def epoch(self) -> str:
        """Names this store's history."""
        return self._engine.epoch

    async def execute(self, commands: Sequence[Command]) -> list[Result]:
        """Decides the commands and makes the changes durable."""
        return await self._writer.execute(commands)

    async def put_entitlement(self, entitlement: Entitlement) -> Entitlement:
        """Stores an entitlement."""

        def step(transaction: Transaction) -> Entitlement:
            account = transaction.account(entitlement.account_id)
            if admit_entitlement(account.entitlement, entitlement):
                transaction.connection.execute(
                    "INSERT OR REPLACE INTO entitlements (account_id, revision, subscription_id, period_anchor_us, "
                    "terms, end_us, block) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row_from_entitlement(entitlement),
                )
                account.entitlement, account.in_force = entitlement, None
                transaction.touch(account)
            return entitlement

        return cast("Entitlement", await self._writer.submit(step))

    async def entitlement(self, account_id: str) -> Entitlement | None:
        """The stored entitlement."""
        step = lambda transaction: transaction.account(account_id).entitlement  # noqa: E731  # as in execute
        return cast("Entitlement | None", await self._writer.submit(step))

    async def session(self, account_id: str, session_id: str) -> Session | None:
        """A session of the account."""
        step = lambda transaction: transaction.session(account_id, session_id)  # noqa: E731  # as in execute
        return cast("Session | None", await self._writer.submit(step))

    async def quota(self, account_id: str) -> Quota | None:
        """The account's quota now."""
        step = lambda transaction: quota_of(transaction.account(account_id), transaction.now_us)  # noqa: E731  # as above
        return cast("Quota | None", await self._writer.submit(step))

    async def read_events(self, after: Position, limit: int) -> EventPage:
        """Up to `limit` events of one partition after a position."""
        step = lambda transaction: events.read_page(transaction, after, limit)  # noqa: E731  # as in execute
        return cast("EventPage", await self._writer.submit(step))

    async def acknowledge(self, positions: Sequence[Position]) -> None:
        """Marks everything up to the positions as stored elsewhere for good."""
        await self._writer.submit(lambda transaction: events.acknowledge(transaction, positions))

    async def sweep(self) -> None:
        """Expires the leases that ran out, as every group does first; after an outage it looks whether it is over."""
        has_failed = self._engine.has_failed
        await self._writer.submit(lambda transaction: transaction.probe() if has_failed else None)

    async def move_clock(self) -> None:
        """Makes the present time durable."""
        await self._writer.submit(lambda transaction: transaction.move_clock())

    async def prune(self, partition: int) -> bool:
        """Deletes some sessions that were acknowledged, and resolved over 48 h ago; whether there may be more."""
        return cast("bool", await self._writer.submit(lambda transaction: events.prune(transaction, partition)))

    def on_committed(self, listener: Callable[[Committed], None]) -> None:
        """Calls `listener` in the event loop after each durable change."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """Finishes what is queued and closes the file."""
        await self._writer.close()
        self._connection.close()

    def _committed(self, committed: Committed) -> None:
        for listener in self._listeners:
            listener(committed)
