"""Runs groups of work on the file: everything of a group is stored by one commit, or nothing is.

Synchronous; the writer (writer.py) owns it. The clock comes in with each group.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from services.quota.adapters.sqlite import rows
from services.quota.adapters.sqlite.memory import Memory, SessionKey
from services.quota.domain.commands import Change, Command, Done, Reserve, Result
from services.quota.domain.decide import apply, decide, expire
from services.quota.domain.entitlements import quota_of
from services.quota.domain.model import Account, EventType, Session, SessionState
from services.quota.store import Committed
from services.shared import failpoints

PROBE_BYTES: Final = 64 * 1024
"""What a probe for room stores and takes back: more than any command needs."""

JUMP_US: Final = 30 * 1_000_000
"""A clock that gains more than this between two groups, beyond the time that passed, was set forward, or the machine
was asleep: expiry is held back as after an outage."""


class Group(NamedTuple):
    """What one commit touched."""

    results: list[list[Any]]
    committed: Committed
    now_us: int
    """Quota's clock at all of its decisions."""
    has_stored: bool
    """Whether it had anything to write."""


class Engine:
    """The state machine on SQLite."""

    def __init__(self, connection: sqlite3.Connection, hold_us: int) -> None:
        self._connection = connection
        self._hold_us = hold_us
        self.epoch: str = connection.execute("SELECT epoch FROM meta").fetchone()[0]
        self.memory = Memory(connection)
        self._serving_since_us: int | None = None
        self._last_now_us: int | None = None
        self._last_monotonic_s = 0.0
        self._has_failed = False
        self.must_recover = False
        """Set where a recovery failed: the next group begins with another one."""

    def prepare(self, work: Sequence[Callable[[Transaction], list[Any]]], wall_us: int, monotonic_s: float) -> Group:
        """Decides a group of work and writes it, up to the commit.

        Args:
            work: what to do; each gets the transaction and answers results.
            wall_us: the wall clock. Quota's own clock follows it but never goes back.
            monotonic_s: the monotonic clock, to notice that the wall clock jumped.

        Raises:
            sqlite3.Error: nothing of the group is stored, and `recover` has to be called.
        """
        if self.must_recover:
            self.recover(is_outage=True)
        # Groups that store nothing leave clock_us behind, and what they answered must not be taken back either.
        now_us = max(wall_us, self.memory.clock_us, self._last_now_us or 0)
        self._notice_jump(now_us, monotonic_s)
        transaction = Transaction(self._connection, self.memory, now_us)
        self._connection.execute("BEGIN IMMEDIATE")
        if self.may_expire(now_us):
            transaction.expire_due()
        results = [step(transaction) for step in work]
        failpoints.hit("quota.before_write")
        committed = transaction.write()
        return Group(results, committed, now_us, transaction.has_stored)

    def commit(self) -> None:
        """Makes the prepared group durable. May run in another thread, while nobody else uses the engine.

        Raises:
            sqlite3.Error: it is not known to be stored, and `recover` has to be called.
        """
        failpoints.hit("quota.before_commit")
        self._connection.execute("COMMIT")
        failpoints.hit("quota.after_commit")

    def committed(self, group: Group) -> None:
        """Notes that a group is durable. After a failure, only one that stored something shows that quota serves."""
        if self._serving_since_us is None and (group.has_stored or not self._has_failed):
            self._serving_since_us = group.now_us
            self._has_failed = False
        self.memory.forget_idle_accounts()

    @property
    def has_failed(self) -> bool:
        """Whether nothing has been stored since a failure."""
        return self._has_failed

    def may_expire(self, now_us: int) -> bool:
        """Whether leases may expire: quota has served for the hold time since its last outage."""
        if self._hold_us == 0:
            return True
        return self._serving_since_us is not None and now_us - self._serving_since_us >= self._hold_us

    def next_expiry_us(self) -> int | None:
        """When the next lease is to expire, by quota's clock; None where none runs."""
        due_us = self.memory.next_due_us()
        if due_us is None:
            return None
        since_us = self._serving_since_us if self._serving_since_us is not None else self.memory.clock_us
        return max(due_us, since_us + self._hold_us)

    def recover(self, *, is_outage: bool) -> None:
        """After a failed group: forgets what memory holds, reads the file; after an outage, holds expiry back."""
        if is_outage:
            self._serving_since_us = None
            self._has_failed = True
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self.memory = Memory(self._connection)
        self.must_recover = False

    def _notice_jump(self, now_us: int, monotonic_s: float) -> None:
        if self._last_now_us is not None:
            passed_us = (monotonic_s - self._last_monotonic_s) * 1_000_000
            if now_us - self._last_now_us > passed_us + JUMP_US:
                self._serving_since_us = now_us
        self._last_now_us, self._last_monotonic_s = now_us, monotonic_s


class Transaction:
    """One group's work in progress: decisions in memory, written together at the end."""

    def __init__(self, connection: sqlite3.Connection, memory: Memory, now_us: int) -> None:
        self.connection = connection
        self.memory = memory
        self.now_us = now_us
        self._known: dict[SessionKey, Session | None] = {}
        self._inserted: dict[SessionKey, Session] = {}
        self._updated: dict[SessionKey, Session] = {}
        self._counters: set[tuple[str, int]] = set()
        self._requests: dict[tuple[str, str], str] = {}
        self._events: list[tuple[int, int, int, int, str, str]] = []
        self._accounts: set[str] = set()
        self._partitions: set[int] = set()
        self._clock_moves = False
        self.has_stored = False

    def expire_due(self) -> None:
        """Lets the leases expire that have run out."""
        due = self.memory.due(self.now_us)
        if due:
            self.memory.load_accounts({session.account_id for session in due})
            for session in due:
                account = self.memory.accounts[session.account_id]
                self._take(account, (session.account_id, session.session_id), expire(session, self.now_us))

    def execute(self, commands: Sequence[Command]) -> list[Result]:
        """Decides commands in order."""
        keys = [command[:2] for command in commands]
        self.memory.load_accounts({account_id for account_id, _ in keys})
        wanted = set(keys).difference(self._known)
        found = self.memory.read_sessions(wanted)
        for key in wanted:
            self._known[key] = found.get(key)
        return [self._execute(key, command) for key, command in zip(keys, commands, strict=True)]

    def _execute(self, key: SessionKey, command: Command) -> Result:
        account = self.memory.accounts[key[0]]
        holder = self._request_holder(command) if isinstance(command, Reserve) and command.request_id else None
        session, replayed, error, change = decide(account, command, self.now_us, self._known[key], holder)
        if error is not None:
            return error
        if change is not None:
            self._take(account, key, change)
        assert session is not None
        return Done(session, quota_of(account, self.now_us), replayed)

    def _request_holder(self, command: Reserve) -> Session | None:
        key = (command.account_id, command.request_id)
        session_id = self._requests.get(key) or self.memory.read_request(*key)
        if session_id is None:
            return None
        return self.session(command.account_id, session_id)

    def session(self, account_id: str, session_id: str) -> Session | None:
        """A session, as this transaction sees it."""
        key = (account_id, session_id)
        if key not in self._known:
            self._known[key] = self.memory.read_sessions({key}).get(key)
        return self._known[key]

    def account(self, account_id: str) -> Account:
        """An account's state, as this transaction sees it."""
        self.memory.load_accounts({account_id})
        return self.memory.accounts[account_id]

    def move_clock(self) -> None:
        """Makes the time of this group durable, so that no later event can be dated before it."""
        self._clock_moves = True

    def probe(self) -> None:
        """Finds out whether there is room to store a session: fails as a command would, and leaves nothing behind."""
        self.connection.execute("INSERT INTO requests VALUES ('', '', ?)", (" " * PROBE_BYTES,))
        self.connection.execute("DELETE FROM requests WHERE account_id = ''")
        self._clock_moves = True

    def touch(self, account: Account) -> None:
        """Notes that an account's quota changed other than by a session."""
        self._accounts.add(account.account_id)

    def _take(self, account: Account, key: SessionKey, change: Change) -> None:
        session, is_new, _, _, _, event = change
        if is_new or key in self._inserted:
            self._inserted[key] = session
        else:
            self._updated[key] = session
        self._known[key] = session
        apply(account, change)
        self._accounts.add(key[0])
        if not session.is_tombstone:
            self._counters.add((key[0], session.period_start_us))
        if session.state is SessionState.RESERVED:
            self.memory.add_reserved(account.partition, key, session)
            if session.request_id:
                self._requests[key[0], session.request_id] = key[1]
        elif not is_new:
            self.memory.remove_reserved(account.partition, key)
        if event is not None:
            self._append_event(account.partition, event, key)

    def _append_event(self, partition: int, event: EventType, key: SessionKey) -> None:
        state = self.memory.partitions[partition]
        state.position += 1
        self._events.append((partition, state.position, int(event), self.now_us, *key))

    def write(self) -> Committed:
        """Writes what was decided and not written yet. The caller commits.

        Answers what the whole transaction touched so far.
        """
        many = self.connection.executemany
        if self._inserted:
            new = self._inserted.values()
            reserved = SessionState.RESERVED
            many(rows.INSERT_RESERVED, [rows.row_from_reserved(some) for some in new if some.state is reserved])
            many(rows.INSERT_SESSION, [rows.row_from_session(some) for some in new if some.state is not reserved])
        if self._updated:
            many(
                "UPDATE sessions SET state = ?, resolve_us = ?, served_mode = ?, outcome = ?, release_reason = ? "
                "WHERE session_id = ? AND account_id = ?",
                [_resolution(session) for session in self._updated.values()],
            )
        if self._counters:
            many(
                "INSERT OR REPLACE INTO counters (account_id, period_start_us, reserved, managed, byok) "
                "VALUES (?, ?, ?, ?, ?)",
                [self._counter_row(account_id, period_us) for account_id, period_us in self._counters],
            )
        if self._requests:
            many(
                "INSERT OR REPLACE INTO requests (account_id, request_id, session_id) VALUES (?, ?, ?)",
                [(*key, session_id) for key, session_id in self._requests.items()],
            )
        if self._events:
            many(
                "INSERT INTO events (partition, position, type, time_us, account_id, session_id) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                self._events,
            )
        if self._accounts or self._clock_moves:
            self.has_stored = True
            self.memory.clock_us = self.now_us
            self.connection.execute("UPDATE meta SET clock_us = ?", (self.now_us,))
        self._partitions.update(event[0] for event in self._events)
        for written in (self._inserted, self._updated, self._counters, self._requests, self._events):
            written.clear()
        return Committed(frozenset(self._partitions), frozenset(self._accounts))

    def _counter_row(self, account_id: str, period_start_us: int) -> tuple[str, int, int, int, int]:
        counters = self.memory.accounts[account_id].counters[period_start_us]
        return (account_id, period_start_us, counters.reserved, counters.managed, counters.byok)


def _resolution(session: Session) -> tuple[int, int, int | None, bytes | None, int, str, str]:
    outcome = session.outcome
    return (
        int(session.state),
        session.resolve_us,
        None if outcome is None else outcome.served_credential_mode,
        None if outcome is None else outcome.payload,
        session.release_reason,
        session.session_id,
        session.account_id,
    )
