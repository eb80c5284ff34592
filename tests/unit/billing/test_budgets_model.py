"""Any history of sessions, invoices, budgets and period ends: a budget blocks exactly while it is exceeded.

What a period has cost is worked out here from what was put in: invoices as they are listed, and sessions one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from services.billing.adapters.sql.alert_tables import ALERTS
from services.billing.adapters.sql.database import Database
from services.billing.adapters.sql.invoice_tables import DUE_ACCOUNTS
from services.billing.adapters.sql.tables import LEDGER
from services.billing.domain.alerts import AlertKind, AlertSettings, Budget, BudgetAction
from services.billing.domain.audit import Actor, ActorKind
from services.billing.domain.entitlements import Block, BlockReason
from services.billing.domain.invoices import InvoiceState
from services.billing.domain.ledger import LedgerEntry, PositionedEntry, partition_of
from services.billing.service.alert_settings import AlertSettingsService, SettingsChange
from services.billing.service.alerting import Alerting, budget_standing
from services.billing.service.booking import Booking
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import Period, period_at
from tests.support.books import Books
from tests.support.clock import DAY_US, ManualClock
from tests.support.database import emptied
from tests.support.rollups import OnePrice

CUSTOMER: Final = Actor(ActorKind.CUSTOMER, "key_1")
MANAGED, BYOK = 1, 2
SESSION_MICRO: Final = 1_000_000
"""What a session with a known cost costs: a million tokens at a dollar."""

KINDS: Final = (
    ("costs", BYOK, "m", 1_000_000),
    ("released", BYOK, "m", 1_000_000),
    ("no price", BYOK, "unheard-of", 1_000_000),
    ("no tokens", BYOK, "m", None),
    ("managed", MANAGED, "m", 1_000_000),
)
kinds = st.sampled_from([KINDS[0], KINDS[0], *KINDS])
budgets = st.tuples(
    # On top of what was spent so far: nothing, or a session more or less.
    st.sampled_from([0, 0, 1, SESSION_MICRO - 1, SESSION_MICRO, 2 * SESSION_MICRO, -1, -SESSION_MICRO]),
    st.sampled_from([BudgetAction.WARN, BudgetAction.BLOCK, BudgetAction.BLOCK]),
)
set_budget = st.tuples(st.just("set_budget"), budgets)
sessions = st.tuples(st.just("sessions"), st.lists(kinds, min_size=1, max_size=4), st.booleans(), st.booleans())
steps = st.one_of(
    sessions,
    sessions,
    sessions,
    set_budget,
    st.tuples(st.just("drop_budget")),
    st.tuples(st.just("again"), st.integers(0, 40)),
    st.tuples(st.just("plan"), st.sampled_from(["hobbyist", "starter"])),
    st.tuples(st.just("void")),
)
groups = st.lists(steps, min_size=1, max_size=3)
days = st.sampled_from([0, 0, 0, 1, 31])
rounds = st.lists(st.tuples(set_budget, days, st.lists(groups, min_size=1, max_size=3), days), min_size=1, max_size=5)
"""In each a budget is set, time passes, some things happen, and time passes again."""


class World:
    """An account, two replicas, and what was put in."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.replicas = [Books(database, self.clock) for _ in range(2)]
        contexts = [replace(books.context, prices=OnePrice()) for books in self.replicas]
        self.bookings = [Booking(context, [Alerting(context).follow]) for context in contexts]
        self.account_id = ""
        self.entries: list[LedgerEntry] = []
        self.due: set[tuple[int, int, int]] = set()
        """Of alerts that had cause to fire: the period, the amount, the action."""

    async def do(self, turn: int, what: str, *details: Any) -> None:
        await getattr(self, what)(turn % 2, *details)

    async def sessions(self, replica: int, kinds: Sequence[Any], twice: bool, late: bool) -> None:
        """Sessions of the present period, or of the one before; quota may send them twice."""
        now_us = self.clock.now_us()
        reserve_us = now_us - 31 * DAY_US if late else now_us
        anchor_us = (await self.subscription()).anchor_us
        if reserve_us < anchor_us:
            reserve_us = now_us
        start_us = period_at(anchor_us, reserve_us).start_us
        made = []
        for kind, mode, model, tokens in kinds:
            event = 2 if kind == "released" else 1
            number = len(self.entries) + len(made)
            one = LedgerEntry(
                self.account_id, f"ses_{number}", event, now_us, event + 1, start_us, reserve_us, now_us, now_us,
                mode, "p", model, mode, tokens, 0, 0, 0, 0, False, 1, 0, "", "", "{}", "{}", 1,
            )  # fmt: skip
            made.append(one)
        self.entries += made
        await self.book(replica, made * (1 + twice))

    async def again(self, replica: int, first: int) -> None:
        await self.book(replica, self.entries[first : first + 20])

    async def book(self, replica: int, entries: Sequence[LedgerEntry]) -> None:
        """As the reader does: the partition first, then the entries."""
        partition = partition_of(self.account_id)

        async def work(transaction: Transaction) -> None:
            await transaction.partitions.lock({partition})
            positioned = [PositionedEntry(partition, "c", entry) for entry in entries]
            await self.bookings[replica].book(transaction, positioned, self.clock.now_us())

        if entries:
            await self.database.transact(work)

    async def set_budget(self, replica: int, wanted: tuple[int, BudgetAction]) -> None:
        spent_micro, _ = await self.spent(period_at((await self.subscription()).anchor_us, self.clock.now_us()))
        await self.put_budget(replica, Budget(max(0, spent_micro + wanted[0]), wanted[1]))

    async def drop_budget(self, replica: int) -> None:
        await self.put_budget(replica, None)

    async def put_budget(self, replica: int, budget: Budget | None) -> None:
        books = self.replicas[replica]
        change = SettingsChange(self.account_id, AlertSettings(self.account_id, budget=budget), ("budget",), "")
        await AlertSettingsService(books.context, books.dispatcher).update(change, CUSTOMER)

    async def plan(self, replica: int, plan_id: str) -> None:
        books = self.replicas[replica]
        await books.subscriptions.change_plan(books.wish(self.account_id), plan_id, 0)

    async def void(self, replica: int) -> None:
        """The newest open invoice should not have been made."""
        books = self.replicas[replica]
        for invoice in reversed(await books.invoices_of(self.account_id)):
            if invoice.state is InvoiceState.OPEN:
                try:
                    await books.corrections.void(books.correction(self.account_id, invoice.invoice_id), "a mistake")
                except FlowStackError as error:
                    assert error.reason is Reason.INVOICE_NOT_OPEN, "of two at the same time one comes too late"
                return

    async def settle(self, replica: int) -> None:
        """What booking has found to be urgent, and what is due; then quota is told."""
        await self.replicas[replica].settle()

    async def subscription(self) -> Any:
        async def read(transaction: Transaction) -> Any:
            account = await transaction.accounts.get(self.account_id)
            return await transaction.subscriptions.get(account.subscription_id)

        return await self.database.transact(read)

    async def spent(self, period: Period) -> tuple[int, int]:
        """What a period has cost so far, and how many of its sessions have a cost that nobody knows."""
        invoices = await self.replicas[0].invoices_of(self.account_id)
        charged = sum(
            invoice.total_micro - invoice.credited_micro
            for invoice in invoices
            if invoice.period_start_us == period.start_us and invoice.state is not InvoiceState.VOID
        )
        mine = [one for one in self.entries if one.period_start_us == period.start_us and one.credential_mode == BYOK]
        known = len(self.known(period.start_us))
        return charged + SESSION_MICRO * known, len(mine) - known

    async def check(self) -> None:
        for replica in range(2):
            await self.settle(replica)
        subscription, now_us = await self.subscription(), self.clock.now_us()
        period = period_at(subscription.anchor_us, now_us)
        spent_micro, unpriced = await self.spent(period)
        budget = (await self.database.transact(lambda t: t.alerts.settings(self.account_id))).budget
        exceeded = budget is not None and spent_micro > budget.max_micro
        if budget is not None and exceeded:
            self.due.add((period.start_us, budget.max_micro, int(budget.action)))

        async def read(transaction: Transaction) -> Any:
            settings = await transaction.alerts.settings(self.account_id)
            standing = await budget_standing(transaction, subscription, settings, now_us)
            return standing, await transaction.entitlements.find(self.account_id)

        standing, entitlement = await self.database.transact(read)
        assert (standing is None) == (budget is None)
        if standing is not None:
            assert (standing.spent_micro, standing.unpriced, standing.exceeded) == (spent_micro, unpriced, exceeded)
        blocks = exceeded and budget is not None and budget.action is BudgetAction.BLOCK
        self.check_block(entitlement.block, period if blocks else None)
        await self.check_quota(entitlement)
        await self.check_alerts()

    def check_block(self, block: Block | None, until: Period | None) -> None:
        assert (block is None) == (until is None)
        if block is not None and until is not None:
            assert (block.reason, block.until_us) == (BlockReason.BUDGET_EXCEEDED, until.end_us)

    async def check_quota(self, entitlement: Any) -> None:
        for books in self.replicas:
            await books.dispatcher.apply(self.account_id)
        told = [books.quota.taken[self.account_id] for books in self.replicas if self.account_id in books.quota.taken]
        assert max(told, key=lambda one: one.revision) == entitlement

    async def check_alerts(self) -> None:
        query = select(ALERTS).where(
            ALERTS.c.account_id == self.account_id, ALERTS.c.kind == int(AlertKind.BUDGET_EXCEEDED)
        )
        async with self.database.engine.begin() as connection:
            rows = list(await connection.execute(query))
        assert len(rows) == len({row.once_key for row in rows})
        fired = {tuple(map(int, row.once_key.split(":")[1:])) for row in rows}
        assert self.due <= fired
        for row in rows:
            assert row.period_start_us <= row.create_us < row.period_end_us, "a period that is over cannot be helped"
        for start_us, amount, _ in fired:
            assert await self.most(start_us) > amount, "fired without cause"

    async def most(self, start_us: int) -> int:
        """The most that a period can have cost at any time: with the invoices that were voided later."""
        invoices = await self.replicas[0].invoices_of(self.account_id)
        charged = sum(invoice.total_micro for invoice in invoices if invoice.period_start_us == start_us)
        return charged + SESSION_MICRO * len(self.known(start_us))

    def known(self, start_us: int) -> list[LedgerEntry]:
        """The sessions of a period whose cost is known."""
        return [
            one
            for one in self.entries
            if (one.period_start_us, one.credential_mode, one.served_model) == (start_us, BYOK, "m")
            and one.input_tokens is not None
        ]

    async def pass_by(self, days: int) -> None:
        """Time passes. What is owed is paid in time: a payment that is overdue would block before a budget does."""
        if not days:
            return
        books = self.replicas[0]
        for invoice in await books.invoices_of(self.account_id):
            if invoice.state is InvoiceState.OPEN:
                await books.corrections.mark_paid(books.correction(self.account_id, invoice.invoice_id), "", 0)
        self.clock.advance_us(days * DAY_US)


@pytest.mark.timeout(300)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=rounds)
async def test_a_budget_blocks_exactly_while_it_is_exceeded(database: Database, history: list[tuple[Any, ...]]) -> None:
    async with database.engine.begin() as connection:
        await emptied(connection, ALERTS, LEDGER, DUE_ACCOUNTS)
    world = World(database)
    world.account_id = await world.replicas[0].open_account("hobbyist")
    turn = 0
    for budget, days_between, groups, days_after in history:
        for group, days in [([budget], days_between), *((group, 0) for group in groups), ([], days_after)]:
            # What stands in a group happens at the same time, as far as the store lets it.
            turn += len(group)
            await asyncio.gather(*(world.do(turn + place, *step) for place, step in enumerate(group)))
            await world.check()
            await world.pass_by(days)
