"""What the engine keeps in memory: accounts in use, all reserved sessions, and each partition's place.

All of it can be read from the file again at any time, and is, after a write that failed.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from services.quota.adapters.sqlite.rows import SESSION_COLUMNS, entitlement_from_row, session_from_row
from services.quota.domain.model import PARTITIONS, Account, Counters, Session, SessionState, partition_of

ACCOUNTS_MAX: Final = 50_000
"""Accounts kept in memory; the ones used longest ago leave first. About 2 KB each."""

CHUNK: Final = 500
"""Keys in one SELECT: SQLite takes 999 parameters in its older builds, and a session's key has one."""

SessionKey = tuple[str, str]
"""(account_id, session_id)"""


@dataclass(slots=True)
class PartitionState:
    """Where a partition stands."""

    position: int = 0
    """Of its newest event."""
    acknowledged: int = 0
    pruned: int = 0
    reserved: dict[SessionKey, int] = field(default_factory=dict)
    """When each session still reserved was reserved, oldest first."""


def chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    """The keys, a SELECT's worth at a time."""
    ordered = list(keys)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


class Memory:
    """The engine's picture of the file. Belongs to the writer's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.accounts: OrderedDict[str, Account] = OrderedDict()
        self.reserved: dict[SessionKey, Session] = {}
        self.partitions = [PartitionState() for _ in range(PARTITIONS)]
        self.clock_us = 0
        self._due: list[tuple[int, SessionKey]] = []
        self._load()

    def _load(self) -> None:
        self.clock_us = self._connection.execute("SELECT clock_us FROM meta").fetchone()[0]
        for partition, acknowledged, pruned in self._connection.execute(
            "SELECT partition, acknowledged, pruned FROM partitions"
        ):
            state = self.partitions[partition]
            state.acknowledged, state.pruned = acknowledged, pruned
            state.position = max(acknowledged, pruned)
        newest = self._connection.execute("SELECT partition, max(position) FROM events GROUP BY partition")
        for partition, position in newest:
            state = self.partitions[partition]
            state.position = max(state.position, position)
        rows = self._connection.execute(f"SELECT {SESSION_COLUMNS} FROM sessions WHERE state = 1 ORDER BY reserve_us")  # noqa: S608  # constants
        for row in rows:
            session = session_from_row(row)
            key = (session.account_id, session.session_id)
            self.add_reserved(partition_of(session.account_id), key, session)

    def add_reserved(self, partition: int, key: SessionKey, session: Session) -> None:
        """Remembers a session that holds a lease."""
        self.reserved[key] = session
        self.partitions[partition].reserved[key] = session.reserve_us
        heapq.heappush(self._due, (session.expire_us, key))

    def remove_reserved(self, partition: int, key: SessionKey) -> None:
        """Forgets a session that was resolved."""
        del self.reserved[key]
        del self.partitions[partition].reserved[key]

    def next_due_us(self) -> int | None:
        """When the next lease runs out; None where none runs."""
        while self._due and self._due[0][1] not in self.reserved:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def due(self, now_us: int) -> list[Session]:
        """The sessions whose leases have run out at `now_us`, earliest first; each is told once."""
        found: list[Session] = []
        while self._due and self._due[0][0] <= now_us:
            session = self.reserved.get(heapq.heappop(self._due)[1])
            if session is not None:
                found.append(session)
        return found

    def load_accounts(self, account_ids: set[str]) -> None:
        """Brings these accounts into memory, a few reads for all of them."""
        missing = [account_id for account_id in account_ids if account_id not in self.accounts]
        for account_id in account_ids.difference(missing):
            self.accounts.move_to_end(account_id)
        for some in chunks(missing):
            self._read_accounts(some)

    def forget_idle_accounts(self) -> None:
        """Lets go of the accounts used longest ago. Only between groups: one that a group changed is not stored yet."""
        while len(self.accounts) > ACCOUNTS_MAX:
            self.accounts.popitem(last=False)

    def _read_accounts(self, account_ids: list[str]) -> None:
        marks = ", ".join("?" * len(account_ids))
        for account_id in account_ids:
            self.accounts[account_id] = Account(account_id, partition_of(account_id))
        for row in self._connection.execute(
            f"SELECT account_id, revision, subscription_id, period_anchor_us, terms, end_us, block "  # noqa: S608  # marks
            f"FROM entitlements WHERE account_id IN ({marks})",
            account_ids,
        ):
            self.accounts[row[0]].entitlement = entitlement_from_row(row)
        for account_id, period_start_us, reserved, managed, byok in self._connection.execute(
            f"SELECT account_id, period_start_us, reserved, managed, byok FROM counters WHERE account_id IN ({marks})",  # noqa: S608  # marks
            account_ids,
        ):
            account = self.accounts[account_id]
            account.counters[period_start_us] = Counters(reserved, managed, byok)
            account.running += reserved

    def read_sessions(self, keys: set[SessionKey]) -> dict[SessionKey, Session]:
        """The sessions of these keys that exist: reserved ones from memory, the rest from the file."""
        found = {key: session for key in keys if (session := self.reserved.get(key)) is not None}
        for some in chunks({session_id for _, session_id in keys.difference(found)}):
            marks = ", ".join("?" * len(some))
            for row in self._connection.execute(
                f"SELECT {SESSION_COLUMNS} FROM sessions WHERE session_id IN ({marks})",  # noqa: S608  # marks
                some,
            ):
                key = (row[1], row[0])
                if key in keys and key not in found:
                    session = session_from_row(row)
                    assert session.state is not SessionState.RESERVED
                    found[key] = session
        return found

    def read_request(self, account_id: str, request_id: str) -> str | None:
        """The session that holds a request_id."""
        row = self._connection.execute(
            "SELECT session_id FROM requests WHERE account_id = ? AND request_id = ?", (account_id, request_id)
        ).fetchone()
        return None if row is None else str(row[0])
