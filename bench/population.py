"""Fills a quota database before its server starts, faster than through it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from services.quota.adapters.sqlite import rows
from services.quota.adapters.sqlite.schema import open_database
from services.quota.domain.model import (
    Candidate,
    CredentialMode,
    Entitlement,
    EventType,
    Outcome,
    Session,
    SessionState,
    Term,
    partition_of,
)

UNLIMITED = 2_000_000_000
ANCHOR_US = 1_790_000_000 * 1_000_000
CANDIDATES = (Candidate("echo", "echo-1", CredentialMode.BYOK),)


def account_id(number: int) -> str:
    """The id of the n-th account."""
    return f"acct_{number}"


def add_accounts(path: Path, count: int) -> None:
    """Stores entitlements without limits for `count` accounts."""
    term = Term(ANCHOR_US, "bench", UNLIMITED, (), UNLIMITED, 0, 25, "")
    connection = open_database(path)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO entitlements VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            rows.row_from_entitlement(Entitlement(account_id(n), 1, "sub_1", ANCHOR_US, (term,), 0, None))
            for n in range(count)
        ),
    )
    connection.execute("COMMIT")
    connection.close()


def add_sessions(path: Path, count: int) -> None:
    """Stores `count` committed sessions of the first account in its present period, with their events."""
    account = account_id(0)
    partition = partition_of(account)
    now_us = time.time_ns() // 1000
    connection = open_database(path)
    connection.execute("BEGIN")
    connection.executemany(
        f"INSERT INTO sessions ({rows.SESSION_COLUMNS}) VALUES ({rows.SESSION_MARKS})",
        (rows.row_from_session(session) for session in _sessions(account, count, now_us)),
    )
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
        (
            (partition, n + 1, EventType.COMMITTED.value, now_us - count + n, account, _session_id(now_us, count, n))
            for n in range(count)
        ),
    )
    connection.execute("COMMIT")
    connection.close()


def _session_id(now_us: int, count: int, number: int) -> str:
    return f"ses_{(now_us - 3_600_000_000 - count + number) // 1000:012x}7000{0x8000_0000_0000_0000 + number:016x}"


def _sessions(account: str, count: int, now_us: int) -> Iterator[Session]:
    for number in range(count):
        reserved_us = now_us - count + number
        yield Session(
            _session_id(now_us, count, number),
            account,
            SessionState.COMMITTED,
            CANDIDATES,
            ANCHOR_US,
            reserved_us,
            reserved_us + 330_000_000,
            reserved_us,
            Outcome(CredentialMode.BYOK, b"\x08\x01\x1a\x04echo\x22\x06echo-1\x28\x02\x30\x0a\x38\x14"),
            0,
            "",
            "",
            (),
            1,
        )
