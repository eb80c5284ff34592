"""The outbox of session events: reading, acknowledging, pruning. Runs inside the engine's transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.quota.adapters.sqlite import rows
from services.quota.adapters.sqlite.engine import Transaction
from services.quota.domain.cursors import Position
from services.quota.domain.model import DAY_US, EventType, SessionEvent
from services.quota.store import EventPage
from services.shared.errors import FlowStackError, Reason, invalid_request

KEPT_US: Final = 2 * DAY_US
"""A session is kept this long after it was resolved, and until it has been acknowledged. Twice a session_id's age,
so that one made as far ahead as is allowed is too old for a reserve when its session goes."""

PRUNE_AT_ONCE: Final = 200
"""Sessions pruned in one group: a few milliseconds, between which commands have their turn."""

_JOINED: Final = ", ".join(f"s.{column}" for column in rows.SESSION_COLUMNS.split(", "))


def read_page(transaction: Transaction, after: Position, limit: int) -> EventPage:
    """Up to `limit` events of one partition after a position.

    Raises:
        FlowStackError: INVALID_REQUEST for a position of another history.
    """
    # What this group resolved has to be among the events, because it is no longer among the running sessions.
    transaction.write()
    check_position(transaction, after)
    found = transaction.connection.execute(
        f"SELECT e.position, e.type, e.time_us, {_JOINED} FROM events e JOIN sessions s "  # noqa: S608  # constants
        "ON s.session_id = e.session_id AND s.account_id = e.account_id "
        "WHERE e.partition = ? AND e.position > ? AND e.type != ? ORDER BY e.position LIMIT ?",
        (after.partition, after.position, EventType.TOMBSTONE.value, limit + 1),
    ).fetchall()
    events = [
        SessionEvent(after.partition, row[0], EventType(row[1]), row[2], rows.session_from_row(row[3:]))
        for row in found[:limit]
    ]
    reserved = transaction.memory.partitions[after.partition].reserved
    oldest = next(iter(reserved.values()), 0)
    return EventPage(events, len(found) > limit, transaction.memory.clock_us, oldest)


def check_position(transaction: Transaction, position: Position) -> None:
    """Refuses a position that this store's history does not have.

    Raises:
        FlowStackError: INVALID_REQUEST.
    """
    if position.position == 0:
        return
    state = transaction.memory.partitions[position.partition]
    row = transaction.connection.execute(
        "SELECT time_us FROM events WHERE partition = ? AND position = ?", (position.partition, position.position)
    ).fetchone()
    pruned = row is None and position.position <= state.pruned
    if not pruned and (row is None or row[0] != position.time_us):
        raise invalid_request("positions.after_cursor", "names a place that this store's history does not have")


def acknowledge(transaction: Transaction, positions: Sequence[Position]) -> None:
    """Marks everything up to the positions as stored elsewhere for good; never goes back.

    Raises:
        FlowStackError: INVALID_REQUEST for a position of another history; then nothing is marked.
    """
    for position in positions:
        check_position(transaction, position)
    for position in positions:
        state = transaction.memory.partitions[position.partition]
        if position.position > state.acknowledged:
            state.acknowledged = position.position
            _write_partition(transaction, position.partition)


def prune(transaction: Transaction, partition: int) -> bool:
    """Deletes sessions that were acknowledged and resolved long enough ago, with their events and request ids.

    Answers whether there may be more of them in the partition.
    """
    before_us = transaction.now_us - KEPT_US
    state = transaction.memory.partitions[partition]
    old = transaction.connection.execute(
        "SELECT position, account_id, session_id FROM events "
        "WHERE partition = ? AND position <= ? AND time_us < ? ORDER BY position LIMIT ?",
        (partition, _prunable_up_to(transaction, partition), before_us, PRUNE_AT_ONCE),
    ).fetchall()
    if not old:
        return False
    many = transaction.connection.executemany
    many(
        "DELETE FROM requests WHERE (account_id, request_id, session_id) IN "
        "(SELECT account_id, request_id, session_id FROM sessions "
        "WHERE session_id = ? AND account_id = ? AND request_id != '')",
        [(session_id, account_id) for _, account_id, session_id in old],
    )
    many(
        "DELETE FROM sessions WHERE session_id = ? AND account_id = ?",
        [(session_id, account_id) for _, account_id, session_id in old],
    )
    state.pruned = old[-1][0]
    transaction.connection.execute(
        "DELETE FROM events WHERE partition = ? AND position <= ?", (partition, state.pruned)
    )
    _write_partition(transaction, partition)
    return len(old) == PRUNE_AT_ONCE


def _prunable_up_to(transaction: Transaction, partition: int) -> int:
    """The newest position that may go: acknowledged, or a tombstone, which is never sent, right behind that."""
    acknowledged = transaction.memory.partitions[partition].acknowledged
    row = transaction.connection.execute(
        "SELECT min(position) FROM events WHERE partition = ? AND position > ? AND type != ?",
        (partition, acknowledged, EventType.TOMBSTONE.value),
    ).fetchone()
    if row[0] is not None:
        return int(row[0]) - 1
    return transaction.memory.partitions[partition].position


def _write_partition(transaction: Transaction, partition: int) -> None:
    state = transaction.memory.partitions[partition]
    transaction.connection.execute(
        "INSERT OR REPLACE INTO partitions (partition, acknowledged, pruned) VALUES (?, ?, ?)",
        (partition, state.acknowledged, state.pruned),
    )


def unavailable() -> FlowStackError:
    """QUOTA_UNAVAILABLE: nothing was decided, or it is not known to be stored."""
    return FlowStackError(
        Reason.QUOTA_UNAVAILABLE,
        "Quota cannot store anything now, so no session can start. Try again; the command may be repeated as it is.",
    )
