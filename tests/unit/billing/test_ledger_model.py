"""Any mix of redelivery, crash, reordering and change of hands: the ledger is what quota's events say, each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from services.billing.adapters.sql.database import Database
from services.billing.adapters.sql.tables import ACCOUNTS, LEDGER, PARTITION_CURSORS, READER_REPLICAS, STRAY_EVENTS
from services.billing.adapters.sql.usage_tables import USAGE_HOURS, USAGE_LABELS, USAGE_PERIODS
from services.billing.domain.ledger import (
    EventBatch,
    LedgerEntry,
    LedgerKey,
    PositionedEntry,
    Watermark,
    partition_of,
)
from services.billing.domain.prices import stamped
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.reader import SessionEventReader
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from tests.support.clock import ManualClock
from tests.support.database import emptied
from tests.support.rollups import OnePrice, sums_of_ledger, sums_stored

T = TypeVar("T")
KNOWN: Final = ("acct_a", "acct_b")
LATE: Final = "acct_c"
LEASE_S: Final = 10.0


class CrashError(Exception):
    """The process dies here."""


@dataclass
class Faults:
    """What goes wrong with the next run of a reader."""

    die_in: int = 0
    """The transaction that it dies in, from 1; 0 for none."""
    committed: bool = False
    """It dies after that transaction's commit, before anything is acknowledged."""
    rewind: int = 0
    """Quota sends that many events of each partition again."""
    duplicate: bool = False
    chunk: int = 3
    """Events in a batch, of whatever partitions."""
    order: int = 0
    """Which partition comes first."""


@dataclass
class FaultyStore:
    """The real store, in which processes die."""

    database: Database
    faults: Faults
    booked: list[LedgerEntry]
    """What consequences were told of, in transactions that held."""
    told: list[LedgerEntry] = field(default_factory=list)
    transactions: int = 0
    shared: bool = False

    async def transact(self, work: Callable[[Transaction], Awaitable[T]], *, snapshot: bool = False) -> T:
        self.transactions += 1
        dies = self.transactions == self.faults.die_in

        async def until_death(transaction: Transaction) -> T:
            self.told.clear()
            result = await work(transaction)
            if dies and not self.faults.committed:
                raise CrashError
            return result

        result = await self.database.transact(until_death, snapshot=snapshot)
        self.booked += self.told
        self.told.clear()
        if dies:
            raise CrashError
        return result

    async def note(self, _: Transaction, entries: Sequence[LedgerEntry], __: int) -> None:
        """A consequence."""
        self.told += entries


@dataclass
class Quota:
    """Events in order within each partition, and a history that can be replaced."""

    clock: ManualClock
    epoch: int = 0
    events: dict[int, list[LedgerEntry]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def resolve(self, account_id: str, number: int, mode: int) -> None:
        entry = LedgerEntry(
            account_id, f"ses_{number}", 1 + number % 3, self.clock.now_us(), 2, 1 + number % 2, number * 900_000_000,
            2, 1, mode, "p", "mn"[number % 4 == 0], mode, number * 1_000, None if number % 5 == 0 else 7, None, None,
            None, False, 1, 0, "", "", ("{}", '{"team":"a"}')[number % 3 == 0], "{}", 1,
        )  # fmt: skip
        self.events.setdefault(partition_of(account_id), []).append(entry)

    async def read_session_events(self, after: Mapping[int, str], *, follow: bool = True) -> AsyncIterator[EventBatch]:
        places = {part: self._place(cursor) for part, cursor in after.items()}
        queues = {
            part: [(number, entry) for number, entry in enumerate(found, 1) if number > places[part]]
            for part, found in sorted(self.events.items())
            if part in places
        }
        while any(queues.values()):
            taken: list[PositionedEntry] = []
            parts = sorted(queues)
            for turn in range(self.faults.chunk):
                part = parts[(turn + self.faults.order) % len(parts)]
                if queues[part]:
                    number, entry = queues[part].pop(0)
                    one = PositionedEntry(part, f"{self.epoch}:{number}", entry)
                    taken += [one, one] if self.faults.duplicate else [one]
            if not taken:
                self.faults.order += 1
            done = tuple(Watermark(part, self.clock.now_us(), 0) for part in parts if not queues[part])
            yield EventBatch(tuple(taken), done)

    def _place(self, cursor: str) -> int:
        if not cursor:
            return 0
        epoch, _, number = cursor.partition(":")
        if int(epoch) != self.epoch:
            raise FlowStackError(Reason.INVALID_REQUEST, "Replaced.", metadata={"store_epoch": str(self.epoch)})
        return max(0, int(number) - self.faults.rewind)

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        for cursor in cursors.values():
            self._place(cursor)


class Dispatcher:
    """Entitlements are no part of this."""

    async def renew(self) -> None:
        """Does nothing."""


faults = st.builds(
    Faults, st.integers(0, 6), st.booleans(), st.integers(0, 4), st.booleans(), st.integers(1, 7), st.integers(0, 2)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("resolve"), st.sampled_from([*KNOWN, LATE]), st.sampled_from([1, 2])),
        st.tuples(st.just("read"), st.sampled_from(["one", "two"]), faults),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("replace")),
        st.tuples(st.just("learn")),
    ),
    max_size=40,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(history=steps)
async def test_the_ledger_is_what_quotas_events_say(database: Database, history: list[tuple[Any, ...]]) -> None:
    await begin_anew(database)
    clock = ManualClock()
    quota, booked = Quota(clock), list[LedgerEntry]()
    known = False
    for number, (what, *details) in enumerate(history):
        if what == "resolve":
            quota.resolve(details[0], number, details[1])
        elif what == "read":
            await read(database, quota, booked, *details)
        elif what == "wait":
            clock.advance(details[0])
        elif what == "replace":
            # The new store has what the old one had: nothing was lost, and every cursor is another.
            quota.epoch += 1
        elif not known:
            known = True
            await add_accounts(database, [LATE])

    # Whatever happened: once the silent ones' leases have ended, any replica brings it to its end.
    for _ in range(3):
        clock.advance(LEASE_S + 1)
        await read(database, quota, booked, "three", Faults())

    everything = [entry for found in quota.events.values() for entry in found]
    mine = [entry for entry in everything if known or entry.account_id in KNOWN]
    strays = [entry for entry in everything if entry not in mine]
    mine = [stamped(entry, OnePrice().price_of) for entry in mine]
    assert await entries_of(database, LEDGER) == sorted(mine, key=key_of)
    assert await entries_of(database, STRAY_EVENTS) == sorted(strays, key=key_of)
    assert sorted(booked, key=key_of) == sorted(mine, key=key_of), "consequences are told of each entry once"
    assert await sums_stored(database) == await sums_of_ledger(database)


async def read(database: Database, quota: Quota, booked: list[LedgerEntry], replica: str, wrong: Faults) -> None:
    """A replica reads until everything is read, or until it dies."""
    now_us, lease_us = quota.clock.now_us(), round(LEASE_S * 1e6)
    if not (await database.transact(lambda t: t.partitions.balance(replica, now_us, lease_us))).leases:
        return  # others have everything: it would wait for its turn
    quota.faults = wrong
    store = FaultyStore(database, wrong, booked)
    nothing = cast("Any", None)
    context = Context(store, cast("Any", quota), nothing, nothing, quota.clock, bytes, prices=OnePrice())
    booking = Booking(context, [store.note])
    reader = SessionEventReader(context, cast("Any", Dispatcher()), booking, replica, LEASE_S)
    try:
        await reader.run_once()
    except CrashError:
        pass


def key_of(entry: LedgerEntry) -> LedgerKey:
    return entry.key


async def entries_of(database: Database, table: Any) -> list[LedgerEntry]:
    async with database.engine.begin() as connection:
        # What is kept aside has no cost.
        names = [name for name in LedgerEntry._fields if name in table.c]
        rows = await connection.execute(select(*(table.c[name] for name in names)))
        return sorted((LedgerEntry(*row) for row in rows), key=key_of)


async def add_accounts(database: Database, account_ids: Sequence[str]) -> None:
    blank = {column.name: "" if column.type.python_type is str else 0 for column in ACCOUNTS.c}
    async with database.engine.begin() as connection:
        await connection.execute(insert(ACCOUNTS), [blank | {"account_id": account_id} for account_id in account_ids])


async def begin_anew(database: Database) -> None:
    async with database.engine.begin() as connection:
        tables = (LEDGER, STRAY_EVENTS, ACCOUNTS, READER_REPLICAS, USAGE_PERIODS, USAGE_HOURS, USAGE_LABELS)
        await emptied(connection, *tables)
        await connection.execute(update(PARTITION_CURSORS).values(cursor="", watermark_us=0, owner="", lease_end_us=0))
    await add_accounts(database, KNOWN)


async def test_consequences_that_fail_undo_the_entries(database: Database) -> None:
    await begin_anew(database)

    async def fail(_: Transaction, entries: Sequence[LedgerEntry], __: int) -> None:
        assert len(entries) == 1
        raise RuntimeError("a defect")

    context = Context(database, *(cast("Any", None) for _ in range(5)))
    quota = Quota(ManualClock())
    quota.resolve("acct_a", 1, 1)
    (entry,) = quota.events[partition_of("acct_a")]
    positioned = [PositionedEntry(1, "c", entry)]
    try:
        await database.transact(lambda t: Booking(context, [fail]).book(t, positioned, 1))
    except RuntimeError:
        pass
    assert await entries_of(database, LEDGER) == []
    await asyncio.gather(*(database.transact(lambda t: Booking(context).book(t, positioned, 1)) for _ in range(5)))
    assert await entries_of(database, LEDGER) == [entry]
    assert await sums_stored(database) == await sums_of_ledger(database)
