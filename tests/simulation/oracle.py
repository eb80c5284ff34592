"""What has to hold, judged from outside: by the rows that are durable and by what was acknowledged.

It shares no code with quota: it has its own calendar and its own sums.
"""

from __future__ import annotations

import json
import sqlite3
from calendar import monthrange
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from services.billing.domain.entitlements import Entitlement, EntitlementTerm
from tests.support.simulation_loop import Life, SimulatedLoop

RESERVED, COMMITTED, RELEASED, EXPIRED = 1, 2, 3, 4
MANAGED: Final = 1
NAMES: Final = {RESERVED: "RESERVED", COMMITTED: "COMMITTED", RELEASED: "RELEASED", EXPIRED: "EXPIRED"}
EVENT_OF: Final = {COMMITTED: 1, RELEASED: 2, EXPIRED: 3}
JUMP_US: Final = 30_000_000
KEPT_US: Final = 48 * 3600 * 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

COLUMNS: Final = (
    "session_id, account_id, state, candidates, period_start_us, reserve_us, expire_us, resolve_us, served_mode, "
    "request_id, labels, entitlement_revision"
)
Key = tuple[str, str]


class Row(NamedTuple):
    """A stored session."""

    session_id: str
    account_id: str
    state: int
    candidates: str
    period_start_us: int
    reserve_us: int
    expire_us: int
    resolve_us: int
    served_mode: int | None
    request_id: str
    labels: str
    revision: int

    @property
    def key(self) -> Key:
        """What names it."""
        return (self.account_id, self.session_id)

    @property
    def mode(self) -> int:
        """What it counts as."""
        return int(self.served_mode or json.loads(self.candidates)[0][2])


class Event(NamedTuple):
    """A stored event."""

    partition: int
    position: int
    type: int
    time_us: int
    account_id: str
    session_id: str


def period_start_us(anchor_us: int, now_us: int) -> int:
    """The start of the month, counted from the anchor, in which `now_us` lies."""
    anchor, now = EPOCH + timedelta(microseconds=anchor_us), EPOCH + timedelta(microseconds=now_us)
    start, months = anchor, 0
    while True:
        months += 1
        year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
        following = anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))
        if following > now:
            return (start - EPOCH) // timedelta(microseconds=1)
        start = following


@dataclass
class Service:
    """How long one run of quota has served without an outage, by its own clock."""

    since_us: int | None = None
    """When it stored a group first: leases end the hold after this at the earliest."""
    surely_since_us: int | None = None
    """When it stored a change that can be seen first: leases end the hold after this at the latest."""
    last_us: int | None = None
    last_s: float = 0.0


@dataclass
class Oracle:
    """See the module's docstring. `violations` is what was found; empty is well."""

    loop: SimulatedLoop
    hold_us: int
    violations: list[str] = field(default_factory=list)
    entitlements: dict[str, dict[int, Entitlement]] = field(default_factory=dict)
    """Every entitlement that was ever sent, by account and revision."""
    sessions: dict[Key, Row] = field(default_factory=dict)
    """Every session that was ever durable, as it was last."""
    pruned: set[Key] = field(default_factory=set)
    events: dict[tuple[int, int], Event] = field(default_factory=dict)
    clock_us: int = 0
    service: Service = field(default_factory=Service)
    granted: dict[str, Key] = field(default_factory=dict)
    """By tag: the sessions whose grant a router has, not replayed."""
    commits_begun: set[Key] = field(default_factory=set)
    owed: dict[Key, tuple[Life, float]] = field(default_factory=dict)
    """The commits of routers: by whom, and until when quota has to take them, in virtual seconds."""
    acknowledged: dict[Key, int] = field(default_factory=dict)
    """The state that somebody was told last."""
    booked: set[Key] = field(default_factory=set)
    """The sessions whose event billing has stored for good."""
    leaps_s: list[float] = field(default_factory=list)
    """When a wall clock was set forward."""
    seen: Counter[str] = field(default_factory=Counter)
    _changes: int = -1

    def fail(self, text: str) -> None:
        """Notes a violation, which ends the run."""
        self.violations.append(text)
        self.loop.note(f"VIOLATION {text}")
        self.loop.halt()

    # What quota stores.

    def starts(self) -> None:
        """A run of quota begins."""
        self.service = Service()
        self._changes = -1

    def prepared(self, wall_us: int) -> int:
        """A group is about to be committed; answers quota's clock at it."""
        service, now_s = self.service, self.loop.time()
        now_us = max(wall_us, self.clock_us, service.last_us or 0)
        if service.last_us is not None and now_us - service.last_us > (now_s - service.last_s) * 1e6 + JUMP_US:
            service.since_us, service.surely_since_us = now_us, None
        service.last_us, service.last_s = now_us, now_s
        return now_us

    def failed(self) -> None:
        """A group failed: that is an outage."""
        self.service.since_us = self.service.surely_since_us = None

    def stored(self, connection: sqlite3.Connection, prepared_us: int) -> None:
        """A commit is durable: compares what is stored with what was."""
        if self.service.since_us is None:
            self.service.since_us = prepared_us
        if connection.total_changes == self._changes:
            return
        self._changes = connection.total_changes
        rows = {row.key: row for row in map(Row._make, connection.execute(f"SELECT {COLUMNS} FROM sessions"))}
        before, clock_us = dict(self.sessions), self.clock_us
        admitted: list[Row] = []
        for key, row in rows.items():
            old = before.get(key)
            if old is None:
                self._appeared(row)
                if row.reserve_us:
                    admitted.append(row)
            elif old != row:
                self._changed(old, row)
            self.sessions[key] = row
        self._check_gone(rows)
        self._check_clock(connection)
        self._check_counters(connection)
        self._check_admissions(admitted)
        self._check_events(connection)
        self._check_requests()
        if self.service.surely_since_us is None and (self.sessions != before or self.clock_us > clock_us):
            self.service.surely_since_us = prepared_us

    def _appeared(self, row: Row) -> None:
        if row.key in self.pruned:
            self.fail(f"{row.session_id} came back after it was pruned")
        self.seen["tombstones" if not row.reserve_us else "admissions"] += 1
        if row.state == COMMITTED:
            self._check_charge(row)

    def _changed(self, old: Row, row: Row) -> None:
        if old.state != RESERVED:
            self.fail(f"{row.session_id} was {NAMES[old.state]} and is {NAMES[row.state]}: resolved twice")
        if old._replace(state=row.state, resolve_us=row.resolve_us, served_mode=row.served_mode) != row:
            self.fail(f"{row.session_id} changed otherwise than by being resolved")
        self.seen[NAMES[row.state].lower()] += 1
        may_expire = self._has_served_until(self.service.since_us, row.resolve_us)
        has_to_expire = self._has_served_until(self.service.surely_since_us, row.resolve_us)
        if row.state == COMMITTED:
            self._check_charge(row)
        if row.state == EXPIRED and not (may_expire and row.resolve_us >= row.expire_us):
            self.fail(f"{row.session_id} expired at {row.resolve_us}, lease to {row.expire_us}, {self.service}")
        if row.state in (COMMITTED, RELEASED) and row.resolve_us >= row.expire_us and has_to_expire:
            self.fail(f"{row.session_id} was resolved after its lease had ended")

    def _has_served_until(self, since_us: int | None, now_us: int) -> bool:
        """Whether quota has served for as long as it holds expiry back."""
        return since_us is not None and now_us - since_us >= self.hold_us

    def _check_charge(self, row: Row) -> None:
        if row.key not in self.commits_begun:
            self.fail(f"{row.session_id} is charged, and nobody committed it")

    def _check_gone(self, rows: Mapping[Key, Row]) -> None:
        for key, row in self.sessions.items():
            if key in rows or key in self.pruned:
                continue
            if row.state == RESERVED or (self.service.last_us or 0) - row.resolve_us < KEPT_US:
                self.fail(f"{row.session_id}, {NAMES[row.state]}, is lost")
            if row.reserve_us and key not in self.booked:
                self.fail(f"{row.session_id} was pruned before billing had it")
            self.pruned.add(key)
            self.seen["pruned"] += 1

    def _check_clock(self, connection: sqlite3.Connection) -> None:
        clock_us = connection.execute("SELECT clock_us FROM meta").fetchone()[0]
        if clock_us < self.clock_us:
            self.fail(f"the durable clock went back by {self.clock_us - clock_us} us")
        self.clock_us = clock_us

    def sums(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """(reserved, managed, byok) of each account and period, from the sessions."""
        found: dict[tuple[str, int], list[int]] = {}
        for row in self.sessions.values():
            if not row.reserve_us:
                continue
            counts = found.setdefault((row.account_id, row.period_start_us), [0, 0, 0])
            if row.state == RESERVED:
                counts[0] += 1
            elif row.state == COMMITTED:
                counts[1 if row.mode == MANAGED else 2] += 1
        return {key: (reserved, managed, byok) for key, (reserved, managed, byok) in found.items()}

    def _check_counters(self, connection: sqlite3.Connection) -> None:
        stored = {
            (account_id, period_us): (reserved, managed, byok)
            for account_id, period_us, reserved, managed, byok in connection.execute(
                "SELECT account_id, period_start_us, reserved, managed, byok FROM counters"
            )
        }
        sums = self.sums()
        if stored != sums:
            wrong = sorted(key for key in stored.keys() | sums.keys() if stored.get(key) != sums.get(key))
            self.fail(f"counters differ from the sessions: {[(k, stored.get(k), sums.get(k)) for k in wrong]}")

    def _check_admissions(self, admitted: list[Row]) -> None:
        """Every admission left its account within the limits that were in force when it was decided."""
        groups: dict[tuple[str, int], list[tuple[Row, EntitlementTerm]]] = {}
        for row in admitted:
            term = self._term(row)
            if term is not None:
                groups.setdefault((row.account_id, row.period_start_us), []).append((row, term))
        sums = self.sums()
        for (account_id, period_us), members in groups.items():
            used = sum(sums[account_id, period_us])
            limit = max(term.session_limit for _, term in members)
            if used > limit:
                self.fail(f"{account_id} has {used} of {limit} sessions after an admission")
            running = sum(counts[0] for (account, _), counts in sums.items() if account == account_id)
            concurrent = max(term.max_concurrent_sessions for _, term in members)
            if running > concurrent:
                self.fail(f"{account_id} runs {running} of {concurrent} sessions after an admission")

    def _term(self, row: Row) -> EntitlementTerm | None:
        """The term that an admission rests on, once it is known to rest on one."""
        entitlement = self.entitlements.get(row.account_id, {}).get(row.revision)
        if entitlement is None:
            self.fail(f"{row.session_id} was admitted under revision {row.revision}, which does not exist")
            return None
        begun = [term for term in entitlement.terms if term.effective_us <= row.reserve_us]
        block = entitlement.block
        ended = entitlement.end_us and row.reserve_us >= entitlement.end_us
        if not begun or ended or (block is not None and (not block.until_us or row.reserve_us < block.until_us)):
            self.fail(f"{row.session_id} was admitted against its entitlement")
            return None
        if row.period_start_us != period_start_us(entitlement.period_anchor_us, row.reserve_us):
            self.fail(f"{row.session_id} belongs to a period in which it was not reserved")
        return begun[-1]

    def _check_events(self, connection: sqlite3.Connection) -> None:
        stored = {
            (event.partition, event.position): event
            for event in map(
                Event._make,
                connection.execute("SELECT partition, position, type, time_us, account_id, session_id FROM events"),
            )
        }
        for place, event in stored.items():
            if self.events.setdefault(place, event) != event:
                self.fail(f"the event at {place} changed")
        newest: dict[int, Event] = {}
        resolved: Counter[Key] = Counter()
        for place in sorted(self.events):
            event = self.events[place]
            last = newest.get(event.partition)
            if event.position != (last.position if last else 0) + 1 or event.time_us < (last.time_us if last else 0):
                self.fail(f"the event at {place} is out of order")
            newest[event.partition] = event
            resolved[event.account_id, event.session_id] += 1
            row = self.sessions[event.account_id, event.session_id]
            expected = 0 if not row.reserve_us else EVENT_OF.get(row.state, -1)
            if event.type != expected or event.time_us != row.resolve_us:
                self.fail(f"the event at {place} does not say what became of {row.session_id}")
        for key, row in self.sessions.items():
            if resolved[key] != (row.state != RESERVED):
                self.fail(f"{row.session_id}, {NAMES[row.state]}, has {resolved[key]} events")

    def _check_requests(self) -> None:
        held = Counter(
            (row.account_id, row.request_id)
            for row in self.sessions.values()
            if row.request_id and row.state in (RESERVED, COMMITTED)
        )
        for (account_id, request_id), count in held.items():
            if count > 1:
                self.fail(f"the request {request_id} of {account_id} holds {count} sessions")

    # What somebody is told.

    def told(self, key: Key, state: int, *, fresh: bool = True) -> None:
        """An answer arrived: what it says has to be durable by now, and never to change."""
        self.seen[f"told {NAMES[state]}" if fresh else "told again"] += 1
        row = self.sessions.get(key)
        if row is None:
            self.fail(f"{key[1]} was acknowledged as {NAMES[state]} and is not stored")
        elif state not in (RESERVED, row.state):
            self.fail(f"{key[1]} was acknowledged as {NAMES[state]} and is {NAMES[row.state]}")
        elif state == RESERVED and fresh and not row.reserve_us:
            self.fail(f"{key[1]} was granted after it was released")
        self.acknowledged[key] = state

    def provider_called(self, tag: str) -> None:
        """A provider is called for a session: it has to hold a reservation."""
        key = self.granted.get(tag)
        if key is None:
            self.fail(f"a provider was called for {tag}, which has no grant")
            return
        row = self.sessions[key]
        if row.state != RESERVED and not (row.state == EXPIRED and self.leaps_s):
            self.fail(f"a provider was called for {key[1]}, which is {NAMES[row.state]}")

    # Afterwards.

    def check_acknowledged(self) -> None:
        """Everything that anybody was told still stands."""
        for key, state in self.acknowledged.items():
            row = self.sessions.get(key)
            if row is None or state not in (RESERVED, row.state):
                self.fail(f"{key[1]} was acknowledged as {NAMES[state]}, and is {row and NAMES[row.state]}")

    def check_owed(self, healed_s: float) -> None:
        """What a living router had to commit, and could once all was healed, is counted."""
        for key, (life, lease_end_s) in self.owed.items():
            row = self.sessions.get(key)
            could = life.alive and lease_end_s > healed_s and not self.leaps_s
            if could and (row is None or row.state != COMMITTED):
                self.fail(f"{key[1]} should have been counted, and is {row and NAMES[row.state]}")

    def running(self) -> list[str]:
        """The sessions that hold a unit."""
        return [row.session_id for row in self.sessions.values() if row.state == RESERVED]
