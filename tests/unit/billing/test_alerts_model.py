"""Any interleaving of sessions, late ones too, redelivery, replicas, crashes, changes of plan, cancellations, settings,
customers' own alerts and period ends: each alert fires once, and is on its way to its sink once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from services.billing.adapters.sql.alert_tables import ALERT_DELIVERIES, ALERTS, WEBHOOKS
from services.billing.adapters.sql.database import Database
from services.billing.adapters.sql.invoice_tables import DUE_ACCOUNTS
from services.billing.adapters.sql.tables import LEDGER
from services.billing.domain.alerts import AlertKind, AlertSettings, AlertSeverity, AlertSink
from services.billing.domain.audit import Actor, ActorKind
from services.billing.domain.ledger import LedgerEntry, PositionedEntry, partition_of
from services.billing.domain.renewal import terms_at
from services.billing.domain.webhooks import Webhook, WebhookFormat
from services.billing.service.alert_settings import AlertSettingsService, SettingsChange
from services.billing.service.alerting import Alerting
from services.billing.service.alerts import AlertService, OwnAlert
from services.billing.service.booking import Booking
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import period_at
from tests.support.books import Books
from tests.support.clock import DAY_US, ManualClock
from tests.support.database import emptied, waits_for_a_lock

CUSTOMER: Final = Actor(ActorKind.CUSTOMER, "key_1")
PLANS: Final = ("hobbyist", "starter", "professional")

RUN, CRASH_BEFORE, CRASH_AFTER = range(3)
"""How a transaction that books ends: as it should, or its process dies before or after the commit."""
HOOK: Final = "wh_sink"
LOW: Final = (1, 2, 5, 10, 50)
"""Thresholds to begin with: few sessions reach one under several plans."""

counts = st.sampled_from([1, 2, 5, 10, 20, 25, 37, 50, 60])
thresholds = st.sets(st.one_of(st.sampled_from([1, 2, 5, 10, 75, 100]), st.integers(1, 100)), max_size=4)
"""Often such as are reached to the session, under more than one plan."""

together = st.lists(
    st.one_of(
        # Sessions come in batches, of which some come again, and some a period late.
        st.tuples(st.just("sessions"), counts, st.integers(0, 1), st.sampled_from([RUN, RUN, 1, 2])),
        st.tuples(st.just("sessions"), counts, st.integers(0, 1), st.just(RUN)),
        st.tuples(st.just("late"), counts),
        st.tuples(st.just("again"), st.integers(0, 200)),
        st.tuples(st.just("plan"), st.sampled_from(PLANS)),
        st.tuples(st.just("set_thresholds"), thresholds),
        st.tuples(st.just("cancel")),
        st.tuples(st.just("send_own"), st.integers(0, 3)),
        st.tuples(st.just("renewals")),
    ),
    min_size=1,
    max_size=4,
)
histories = st.lists(st.tuples(together, st.sampled_from([0, 0, 0, 1, 31])), min_size=1, max_size=10)


class TickingClock(ManualClock):
    """A clock that no two changes read alike, as none do where a transaction takes its time: their order is known."""

    def now_us(self) -> int:
        """Later than the last time."""
        self.advance_us(1)
        return super().now_us()


class CrashError(Exception):
    """The process dies here."""


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
        """Of accounts' periods, as they stood last."""
        self.thresholds: dict[str, set[int]] = {}
        """Of accounts, before what happens now."""
        self.anchors: defaultdict[str, list[int]] = defaultdict(list)
        """Of accounts' subscriptions, the present one's last, before what happens now."""
        self.told_before: set[str] = set()
        self.late_in: set[tuple[str, int]] = set()
        """Periods that are over and have got sessions just now."""
        self.own: set[tuple[str, int]] = set()
        """Accounts' own alerts, by their request."""

    async def open(self, plan_id: str) -> None:
        """An account whose alerts go to a webhook."""
        account_id = await self.replicas[0].open_account(plan_id)
        hook = Webhook(f"{HOOK}{len(self.accounts)}", account_id, "", "", WebhookFormat.SLACK, b"", b"", b"", 0, 1, 0)
        await self.database.transact(lambda transaction: transaction.webhooks.insert(hook))
        wanted = AlertSettings(account_id, LOW, (AlertSink(hook.webhook_id, ()),))
        await self.settings[0].update(SettingsChange(account_id, wanted, ("thresholds", "sinks"), ""), CUSTOMER)
        self.accounts.append(account_id)

    async def do(self, turn: int, what: str, *details: Any) -> None:
        """One thing, at one of the replicas."""
        books, account_id = self.replicas[turn % 2], self.accounts[turn // 2 % 2]
        await getattr(self, what)(turn, books, account_id, *details)

    async def sessions(self, turn: int, _: Books, account_id: str, count: int, again: int, end: int = RUN) -> None:
        made = [await self.session(account_id, self.clock.now_us()) for _ in range(count)]
        await self.book(turn, made * (1 + again), end)
        if end != RUN:
            # Quota has had no acknowledgement: another replica is sent them.
            await self.book(turn + 1, made)

    async def late(self, turn: int, _: Books, account_id: str, count: int) -> None:
        """Sessions that were reserved a month ago, under another subscription perhaps; a new account has none."""
        reserve_us = self.clock.now_us() - 31 * DAY_US
        if any(anchor_us <= reserve_us for anchor_us in self.anchors[account_id]):
            made = [await self.session(account_id, reserve_us) for _ in range(count)]
            self.late_in.add((account_id, made[0].period_start_us))
            await self.book(turn, made)

    async def again(self, turn: int, _: Books, __: str, first: int) -> None:
        await self.book(turn, self.entries[first : first + 50])

    async def plan(self, _: int, books: Books, account_id: str, plan_id: str) -> None:
        await books.subscriptions.change_plan(books.wish(account_id), plan_id, 0)

    async def cancel(self, _: int, books: Books, account_id: str) -> None:
        try:
            await books.subscriptions.cancel(books.wish(account_id))
        except FlowStackError as error:
            assert error.reason is Reason.SUBSCRIPTION_ENDED, "it has ended before"

    async def set_thresholds(self, turn: int, _: Books, account_id: str, thresholds: set[int]) -> None:
        wanted = AlertSettings(account_id, tuple(sorted(thresholds)))
        await self.settings[turn % 2].update(SettingsChange(account_id, wanted, ("thresholds",), ""), CUSTOMER)

    async def send_own(self, _: int, books: Books, account_id: str, number: int) -> None:
        """The same request at whatever replica, however often: one alert."""
        own = OwnAlert(account_id, f"own {number}", AlertSeverity.INFO, "", (), f"r{number}")
        await AlertService(books.context).send(own)
        self.own.add((account_id, number))

    async def renewals(self, _: int, books: Books, __: str) -> None:
        await books.settle()

    async def session(self, account_id: str, reserve_us: int) -> LedgerEntry:
        anchors = [*self.anchors[account_id], (await self.subscription(account_id)).anchor_us]
        start_us = period_at(max(one for one in anchors if one <= reserve_us), reserve_us).start_us
        now_us, number = self.clock.now_us(), len(self.entries)
        entry = LedgerEntry(
            account_id, f"ses_{number}", 1, now_us, 2, start_us, reserve_us, now_us, now_us, 1, "p", "m", 1,
            1, 1, None, None, None, False, 1, 0, "", "", "{}", "{}", 1,
        )  # fmt: skip
        self.entries.append(entry)
        return entry

    async def book(self, turn: int, entries: list[LedgerEntry], end: int = RUN) -> None:
        """As the reader does: the partitions first, then the entries."""

        async def work(transaction: Transaction) -> None:
            partitions = {partition_of(entry.account_id) for entry in entries}
            await transaction.partitions.lock(partitions)
            positioned = [PositionedEntry(partition_of(entry.account_id), "c", entry) for entry in entries]
            await self.bookings[turn % 2].book(transaction, positioned, self.clock.now_us())
            if end == CRASH_BEFORE:
                raise CrashError

        if entries:
            try:
                await self.database.transact(work)
            except CrashError:
                pass

    async def subscription(self, account_id: str) -> Any:
        async def read(transaction: Transaction) -> Any:
            account = await transaction.accounts.get(account_id)
            return await transaction.subscriptions.get(account.subscription_id)

        return await self.database.transact(read)

    async def fired(self, kind: AlertKind = AlertKind.USAGE_THRESHOLD) -> list[Any]:
        return [row for row in await self.alerts() if row.kind == kind]

    async def alerts(self) -> list[Any]:
        mine = ALERTS.c.account_id.in_(self.accounts)
        async with self.database.engine.begin() as connection:
            query = select(ALERTS).where(mine).order_by(ALERTS.c.account_id, ALERTS.c.sequence)
            return list(await connection.execute(query))

    async def begin(self) -> None:
        """Notes what the next things meet."""
        self.late_in.clear()
        self.thresholds = {account_id: await self.thresholds_of(account_id) for account_id in self.accounts}
        self.told_before = {row.alert_id for row in await self.alerts()}
        for account_id in self.accounts:
            self.anchors[account_id].append((await self.subscription(account_id)).anchor_us)

    async def thresholds_of(self, account_id: str) -> set[int]:
        return set((await self.database.transact(lambda t: t.alerts.settings(account_id))).thresholds)

    async def check(self) -> None:
        """Nothing twice, nothing without cause, and nothing missing of what the present limit has reached."""
        fired = await self.fired()
        told = [(row.account_id, row.period_start_us, row.threshold, row.sessions_limit) for row in fired]
        assert len(told) == len(set(told))
        used: defaultdict[tuple[str, int], int] = defaultdict(int)
        for entry in self.entries:
            used[entry.account_id, entry.period_start_us] += 1
        for row in fired:
            if row.alert_id not in self.told_before:
                assert row.period_start_us >= self.anchors[row.account_id][-1], "its limit is no more"
            assert row.sessions_used * 100 >= row.threshold * row.sessions_limit
            assert row.sessions_used <= used[row.account_id, row.period_start_us]
        for account_id in self.accounts:
            await self.check_present(account_id, used, told)
        for account_id, start_us in self.late_in:
            # By the limit that the period ended with, and the thresholds that stood all the while.
            limit = self.limits.get((account_id, start_us), 0)
            anchor_us = (await self.subscription(account_id)).anchor_us
            stood = self.thresholds[account_id] & await self.thresholds_of(account_id)
            if limit and start_us >= anchor_us:
                due = {t for t in stood if used[account_id, start_us] * 100 >= t * limit}
                assert due <= {t for a, start, t, of in told if (a, start, of) == (account_id, start_us, limit)}
        await self.check_sent()

    async def check_present(self, account_id: str, used: dict[tuple[str, int], int], told: list[Any]) -> None:
        """Nothing is missing of what the present limit has reached."""
        places = [row.sequence for row in await self.alerts() if row.account_id == account_id]
        assert places == list(range(1, len(places) + 1))
        subscription, now_us = await self.subscription(account_id), self.clock.now_us()
        if 0 < subscription.end_us <= now_us:
            return
        start_us = period_at(subscription.anchor_us, now_us).start_us
        limit = self.limits[account_id, start_us] = terms_at(subscription, now_us).session_limit
        thresholds = await self.thresholds_of(account_id)
        due = {t for t in thresholds if used[account_id, start_us] * 100 >= t * limit}
        assert due <= {t for a, start, t, of in told if (a, start, of) == (account_id, start_us, limit)}

    async def check_sent(self) -> None:
        """Own alerts are there once for each request, and every alert is on its way once."""
        own = await self.fired(AlertKind.CUSTOM)
        assert sorted((row.account_id, int(row.message.split()[1])) for row in own) == sorted(self.own)
        async with self.database.engine.begin() as connection:
            query = select(ALERT_DELIVERIES.c.alert_id).where(ALERT_DELIVERIES.c.account_id.in_(self.accounts))
            deliveries = list(await connection.execute(query))
        assert sorted(row.alert_id for row in deliveries) == sorted(row.alert_id for row in await self.alerts())


@pytest.mark.timeout(300)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(history=histories)
async def test_each_alert_fires_once_and_none_is_missed(
    database: Database, history: list[tuple[list[tuple[Any, ...]], int]]
) -> None:
    async with database.engine.begin() as connection:
        await emptied(connection, ALERTS, ALERT_DELIVERIES, WEBHOOKS, LEDGER, DUE_ACCOUNTS)
    world = World(database)
    for plan_id in ("hobbyist", "free"):
        await world.open(plan_id)
    turn = 0
    for group, days in history:
        # What stands in a group happens at the same time, as far as the store lets it.
        turn += len(group)
        await world.begin()
        await asyncio.gather(*(world.do(turn + place, *step) for place, step in enumerate(group)))
        await world.check()
        world.clock.advance_us(days * DAY_US)
        if days:
            await world.do(turn, "renewals")
            await world.begin()
            await world.check()


async def test_a_late_session_of_a_subscription_that_was_replaced_tells_nobody(database: Database) -> None:
    world = World(database)
    await world.open("free")
    world.accounts *= 2
    await world.begin()
    world.clock.advance_us(32 * DAY_US)
    # The first paid plan starts a subscription with an anchor of its own.
    await world.do(0, "plan", "hobbyist")
    await world.do(0, "late", 25)
    assert await world.fired() == []
    await world.do(0, "sessions", 2, 0)
    assert [(row.threshold, row.sessions_used) for row in await world.fired()] == [(1, 2)]


async def test_a_session_and_a_threshold_that_come_together_do_not_pass_each_other(database: Database) -> None:
    world = World(database)
    account_id = await world.replicas[0].open_account("hobbyist")
    world.accounts = [account_id] * 2
    await world.do(0, "sessions", 99, 0)
    entry = await world.session(account_id, world.clock.now_us())
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
    changing = asyncio.create_task(world.do(1, "set_thresholds", {50}))
    while database.shared and not changing.done() and not await waits_for_a_lock(database):
        pass
    go_on.set()
    await asyncio.gather(booking, changing)
    assert [(row.threshold, row.sessions_used) for row in await world.fired()] == [(50, 100)]
