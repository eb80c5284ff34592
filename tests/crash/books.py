"""What is left in the databases, held against itself and against what was told."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.load import COMMITTED, RESERVED, Told
from tests.support.database import read_rows

EVENT_OF = {COMMITTED: 1, 3: 2, 4: 3}
LIMIT = 200
"""Of the plan that the load uses."""


@dataclass
class Findings:
    """What is wrong: each list is empty where nothing is."""

    lost: list[str] = field(default_factory=list)
    """Told and not there."""
    double: list[str] = field(default_factory=list)
    """Counted, booked or charged more than once, or without having been used."""
    sessions: int = 0
    states: Counter[int] = field(default_factory=Counter)


def examine(quota: Path, billing: str, told: Told) -> Findings:
    """Compares quota's file, billing's database at an address, and what was told. The services have been stopped."""
    findings = Findings()
    with sqlite3.connect(quota) as connection:
        sessions = {
            (account_id, session_id): (state, reserve_us, period_us, request_id)
            for account_id, session_id, state, reserve_us, period_us, request_id in connection.execute(
                "SELECT account_id, session_id, state, reserve_us, period_start_us, request_id FROM sessions"
            )
        }
        counters = connection.execute(
            "SELECT account_id, period_start_us, reserved, managed + byok FROM counters"
        ).fetchall()
        events = Counter(connection.execute("SELECT account_id, session_id, type FROM events WHERE type != 0"))
        acknowledged = Counter(
            connection.execute(
                "SELECT account_id, session_id, type FROM events JOIN partitions USING (partition) "
                "WHERE type != 0 AND (position <= acknowledged OR type = 1)"
            )
        )
    ledger = Counter((row["account_id"], row["session_id"], row["event"]) for row in read_rows(billing))
    findings.sessions = len(sessions)
    findings.states = Counter(state for state, *_ in sessions.values())
    _compare_with_told(findings, sessions, told)
    _compare_counters(findings, sessions, counters)
    _compare_requests(findings, sessions)
    resolved = Counter(
        (*key, EVENT_OF[state]) for key, (state, reserve_us, *_) in sessions.items() if reserve_us and state != RESERVED
    )
    # What was not counted and not acknowledged may still be on its way to billing; the load waited for the rest.
    for name, expected, found in (("event", resolved, events), ("ledger entry", acknowledged, ledger)):
        findings.lost += [f"{name} of {key}" for key in expected - found]
        findings.double += [f"{name} of {key}" for key in found - resolved]
    return findings


Sessions = dict[tuple[str, str], tuple[int, int, int, str]]


def _compare_with_told(findings: Findings, sessions: Sessions, told: Told) -> None:
    for key, state in told.states.items():
        found = sessions.get(key)
        if found is None or (state not in (RESERVED, found[0])):
            findings.lost.append(f"{key} was told to be {state} and is {found}")


def _compare_counters(findings: Findings, sessions: Sessions, counters: list[tuple[str, int, int, int]]) -> None:
    counted: Counter[tuple[str, int]] = Counter()
    held: Counter[tuple[str, int]] = Counter()
    for (account_id, _), (state, reserve_us, period_us, _) in sessions.items():
        if reserve_us:
            counted[account_id, period_us] += state == COMMITTED
            held[account_id, period_us] += state == RESERVED
    for account_id, period_us, reserved, committed in counters:
        place = (account_id, period_us)
        if (reserved, committed) != (held[place], counted[place]):
            findings.double.append(f"{place} counts {committed} and {reserved}, has {counted[place]} and {held[place]}")
        if committed + reserved > LIMIT:
            findings.double.append(f"{place} has {committed} + {reserved} sessions")


def _compare_requests(findings: Findings, sessions: Sessions) -> None:
    holders = Counter(
        (account_id, request_id)
        for (account_id, _), (state, _, _, request_id) in sessions.items()
        if request_id and state in (RESERVED, COMMITTED)
    )
    findings.double += [f"{request} holds {count} sessions" for request, count in holders.items() if count > 1]
