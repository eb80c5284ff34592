"""Any interleaving of sessions, redelivery, replicas, upgrades, settings and period ends: each alert fires once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text

from services.billing.adapters.sql.alert_tables import ALERTS
from services.billing.adapters.sql.database import Database
from services.billing.adapters.sql.tables import LEDGER
from services.billing.domain.alerts import THRESHOLDS_DEFAULT, AlertSettings
from services.billing.domain.audit import Actor, ActorKind
from services.billing.domain.ledger import LedgerEntry, PositionedEntry, partition_of
from services.billing.domain.renewal import terms_at
from services.billing.service.alert_settings import AlertSettingsService, SettingsChange
from services.billing.service.alerting import Alerting
from services.billing.service.booking import Booking
from services.billing.store import Transaction
from services.shared.periods import period_at
from tests.support.books import Books
from tests.support.clock import DAY_US, ManualClock

CUSTOMER: Final = Actor(ActorKind.CUSTOMER, "key_1")
PLANS: Final = ("hobbyist", "starter", "professional")

together = st.lists(
    st.one_of(
        # Sessions come in batches, of which some come again.
        st.tuples(st.just("sessions"), st.integers(1, 60), st.integers(0, 1)),
        st.tuples(st.just("again"), st.integers(0, 200)),
        # Of a period that is over, counted from the newest such.
        st.tuples(st.just("late"), st.integers(1, 250), st.integers(0, 2)),
        st.tuples(st.just("plan"), st.sampled_from(PLANS)),
        st.tuples(st.just("thresholds"), st.sets(st.integers(1, 100), max_size=4)),
        st.tuples(st.just("renewals")),
    ),
    min_size=1,
    max_size=4,
)
histories = st.lists(st.tuples(together, st.sampled_from([0, 0, 1, 31])), min_size=1, max_size=10)


class TickingClock(ManualClock):
    """A clock that no two changes read alike, as none do where a transaction takes its time: their order is known."""

    def now_us(self) -> int:
        """Later than the last time."""
        self.advance_us(1)
        return super().now_us()


class World:
    """Two accounts, two replicas, and what has happened so far."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = TickingClock()
        self.replicas = [Books(database, self.clock) for _ in range(2)]
        self.bookings = [Booking(books.context, [Alerting(books.context).follow]) for books in self.replicas]
        self.settings = [AlertSettingsService(books.context, books.dispatcher) for books in self.replicas]
        self.accounts: list[str] = []
        self.entries: list[LedgerEntry] = []
        self.limits: dict[tuple[str, int], int] = {}
        """By account and period: the limit that holds, or with which the period has ended."""
        self.thresholds: defaultdict[str, set[int]] = defaultdict(lambda: set(THRESHOLDS_DEFAULT))
        """By account: those that nothing has changed since the last check began."""
        self.late: set[tuple[str, int]] = set()
        """Accounts and periods that sessions have come late for since the last check."""
        self.due: set[tuple[str, int, int, int]] = set()
        """What has to have fired: account, period, threshold, limit."""

    def account_at(self, turn: int) -> str:
        """Whose turn it is."""
        return self.accounts[turn // 2 % 2]

    async def do(self, turn: int, what: str, *details: Any) -> None:
        """One thing, at one of the replicas."""
        books, account_id = self.replicas[turn % 2], self.account_at(turn)
        if what == "sessions":
            await self.book(turn, [await self.session(account_id) for _ in range(details[0])] * (1 + details[1]))
        elif what == "late":
            await self.come_late(turn, account_id, *details)
        elif what == "again":
            await self.book(turn, self.entries[details[0] : details[0] + 50])
        elif what == "plan":
            await books.subscriptions.change_plan(books.wish(account_id), details[0], 0)
        elif what == "thresholds":
            self.thresholds[account_id] &= details[0]
            wanted = AlertSettings(account_id, tuple(sorted(details[0])))
            change = SettingsChange(account_id, wanted, ("thresholds",), "")
            await self.settings[turn % 2].update(change, CUSTOMER)
        else:
            await books.settle()

    async def come_late(self, turn: int, account_id: str, count: int, back: int) -> None:
        """Sessions of a period that is over, where there is one."""
        present_us = await self.period_start_us(account_id)
        over = sorted(start_us for account, start_us in self.limits if account == account_id and start_us < present_us)
        if over:
            start_us = over[-1 - back % len(over)]
            self.late.add((account_id, start_us))
            await self.book(turn, [self.entry(account_id, start_us, start_us) for _ in range(count)])

    async def session(self, account_id: str) -> LedgerEntry:
        return self.entry(account_id, await self.period_start_us(account_id), self.clock.now_us())

    def entry(self, account_id: str, start_us: int, reserve_us: int) -> LedgerEntry:
        now_us, number = self.clock.now_us(), len(self.entries)
        entry = LedgerEntry(
            account_id, f"ses_{number}", 1, now_us, 2, start_us, reserve_us, now_us, now_us, 1, "p", "m", 1,
            1, 1, None, None, None, False, 1, 0, "", "", "{}", "{}", 1,
        )  # fmt: skip
        self.entries.append(entry)
        return entry

    async def period_start_us(self, account_id: str) -> int:
        return period_at((await self.subscription(account_id)).anchor_us, self.clock.now_us()).start_us

    async def book(self, turn: int, entries: list[LedgerEntry]) -> None:
        """As the reader does: the partitions first, then the entries."""

        async def work(transaction: Transaction) -> None:
            partitions = {partition_of(entry.account_id) for entry in entries}
            await transaction.partitions.lock(partitions)
            positioned = [PositionedEntry(partition_of(entry.account_id), "c", entry) for entry in entries]
            await self.bookings[turn % 2].book(transaction, positioned, self.clock.now_us())

        if entries:
            await self.database.transact(work)

    async def subscription(self, account_id: str) -> Any:
        async def read(transaction: Transaction) -> Any:
            account = await transaction.accounts.get(account_id)
            return await transaction.subscriptions.get(account.subscription_id)

        return await self.database.transact(read)

    async def fired(self) -> list[Any]:
        async with self.database.engine.begin() as connection:
            return list(await connection.execute(select(ALERTS).order_by(ALERTS.c.account_id, ALERTS.c.sequence)))

    async def check(self) -> None:
        """Nothing twice, nothing without cause, and nothing missing of what a period's limit has reached."""
        fired = await self.fired()
        told = [(row.account_id, row.period_start_us, row.threshold, row.sessions_limit) for row in fired]
        assert len(told) == len(set(told))
        used: defaultdict[tuple[str, int], int] = defaultdict(int)
        for entry in self.entries:
            used[entry.account_id, entry.period_start_us] += 1
        for row in fired:
            assert row.sessions_used * 100 >= row.threshold * row.sessions_limit
            assert row.sessions_used <= used[row.account_id, row.period_start_us]
            if row.create_us >= row.period_end_us:
                assert row.sessions_limit == self.limits[row.account_id, row.period_start_us]
        for account_id in self.accounts:
            places = [row.sequence for row in fired if row.account_id == account_id]
            assert places == list(range(1, len(places) + 1))
            subscription = await self.subscription(account_id)
            now_us = self.clock.now_us()
            start_us = period_at(subscription.anchor_us, now_us).start_us
            self.limits[account_id, start_us] = terms_at(subscription, now_us).session_limit
            settings = await self.database.transact(lambda t, a=account_id: t.alerts.settings(a))  # type: ignore[misc]
            # Of the present period all that is set now; of one that is over what was set whenever its late ones came.
            self.owe(used, account_id, start_us, set(settings.thresholds))
            for _, late_us in (place for place in self.late if place[0] == account_id):
                self.owe(used, account_id, late_us, self.thresholds[account_id])
            self.thresholds[account_id] = set(settings.thresholds)
        self.late.clear()
        assert self.due <= set(told)

    def owe(self, used: Mapping[tuple[str, int], int], account_id: str, start_us: int, thresholds: set[int]) -> None:
        """Notes what has to have fired of a period."""
        limit = self.limits[account_id, start_us]
        for threshold in thresholds:
            if used[account_id, start_us] * 100 >= threshold * limit:
                self.due.add((account_id, start_us, threshold, limit))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(history=histories)
@example(
    # Late ones are told by the limit with which their period has ended, whatever holds by now.
    history=[
        ([("sessions", 60, 0)] * 3, 31),
        ([("plan", "starter"), ("renewals",), ("plan", "starter")], 0),
        ([("late", 130, 0)] * 3, 0),
        ([("late", 130, 0)] * 3, 31),
        ([("late", 250, 1)] * 4, 0),
    ]
)
async def test_each_alert_fires_once_and_none_is_missed(
    database: Database, history: list[tuple[list[tuple[Any, ...]], int]]
) -> None:
    async with database.engine.begin() as connection:
        for table in (ALERTS, LEDGER):
            await connection.execute(delete(table))
    world = World(database)
    world.accounts = [await world.replicas[0].open_account("hobbyist") for _ in range(2)]
    turn = 0
    for group, days in history:
        # What stands in a group happens at the same time, as far as the store lets it.
        turn += len(group)
        await asyncio.gather(*(world.do(turn + place, *step) for place, step in enumerate(group)))
        await world.check()
        world.clock.advance_us(days * DAY_US)
        if days:
            await world.do(turn, "renewals")


async def test_a_session_and_a_threshold_that_come_together_do_not_pass_each_other(database: Database) -> None:
    world = World(database)
    account_id = await world.replicas[0].open_account("hobbyist")
    world.accounts = [account_id] * 2
    await world.do(0, "sessions", 99, 0)
    entry = await world.session(account_id)
    decided, go_on = asyncio.Event(), asyncio.Event()

    async def book(transaction: Transaction) -> None:
        partition = partition_of(account_id)
        await transaction.partitions.lock({partition})
        await world.bookings[0].book(transaction, [PositionedEntry(partition, "c", entry)], world.clock.now_us())
        decided.set()
        await go_on.wait()

    booking = asyncio.create_task(database.transact(book))
    await decided.wait()
    # The ledger has decided by the old thresholds, and its session is not to be seen yet.
    changing = asyncio.create_task(world.do(1, "thresholds", {50}))
    while database.shared and not changing.done() and not await waits_for_a_lock(database):
        pass
    go_on.set()
    await asyncio.gather(booking, changing)
    assert [(row.threshold, row.sessions_used) for row in await world.fired()] == [(50, 100)]


async def waits_for_a_lock(database: Database) -> bool:
    """Whether some transaction of this database waits for another's end."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.engine.begin() as connection:
        return bool((await connection.execute(text(query))).scalar_one())
