"""Renewals without anybody's call: once, in time, after a long time off, and on several replicas at once."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from services.billing.adapters.sql.database import Database, open_database
from services.billing.domain.invoices import InvoiceKind, InvoiceState
from services.billing.service import scheduler as scheduler_module
from services.billing.service.open_account import OpenAccount
from tests.support.books import Books
from tests.support.clock import DAY_US, ManualClock, us


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(database: Database, clock: ManualClock) -> Books:
    return Books(database, clock)


async def test_a_period_is_invoiced_when_it_begins_and_once(books: Books, clock: ManualClock) -> None:
    account_id = await books.open_account()
    clock.advance_us(us(2026, 4, 10, 12) - 1 - clock.now_us())
    await books.settle()
    assert len(await books.invoices_of(account_id)) == 1
    clock.advance_us(1)
    for _ in range(2):
        await books.settle()
    first, second = await books.invoices_of(account_id)
    assert (first.period_end_us, second.period_start_us) == (us(2026, 4, 10, 12), us(2026, 4, 10, 12))
    assert second.kind is InvoiceKind.PERIOD_FEE


async def test_what_was_missed_while_nobody_ran_is_caught_up_period_by_period(books: Books, clock: ManualClock) -> None:
    account_id = await books.open_account()
    clock.advance_us(us(2026, 12, 24) - clock.now_us())
    await books.settle()
    invoices = await books.invoices_of(account_id)
    assert [invoice.total_micro for invoice in invoices] == [50_000_000] * 10
    assert [invoice.sequence_number for invoice in invoices] == list(range(1, 11))
    for earlier, later in pairwise(invoices):
        assert earlier.period_end_us == later.period_start_us


async def test_free_accounts_are_looked_after_and_invoiced_nothing(books: Books, clock: ManualClock) -> None:
    account_id = await books.open_account("free")
    clock.advance_us(400 * DAY_US)
    await books.settle()
    assert await books.invoices_of(account_id) == []


async def test_an_account_with_a_defect_does_not_keep_the_others_waiting(
    books: Books, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = await books.open_account(), await books.open_account()
    of = OpenAccount.of

    async def fail_for_one(context, transaction, account):  # type: ignore[no-untyped-def]
        if account.account_id == broken:
            raise RuntimeError("a defect")
        return await of(context, transaction, account)

    monkeypatch.setattr(OpenAccount, "of", staticmethod(fail_for_one))
    clock.advance_us(40 * DAY_US)
    await books.settle()
    assert len(await books.invoices_of(sound)) == 2
    assert len(await books.invoices_of(broken)) == 1
    monkeypatch.undo()
    clock.advance_us(scheduler_module.RETRY_US)
    await books.settle()
    assert len(await books.invoices_of(broken)) == 2


async def test_replicas_that_renew_at_the_same_time_invoice_once(
    database: Database, database_address: str, clock: ManualClock
) -> None:
    others = [await open_database(database_address) for _ in range(2)] if database.shared else []
    replicas = [Books(one, clock) for one in (database, *others)]
    accounts = [await replicas[0].open_account() for _ in range(12)]
    clock.advance_us(100 * DAY_US)
    await asyncio.gather(*(replica.settle() for replica in replicas))
    for account_id in accounts:
        invoices = await replicas[0].invoices_of(account_id)
        assert [invoice.sequence_number for invoice in invoices] == [1, 2, 3, 4]
        assert len({invoice.period_start_us for invoice in invoices}) == 4
    for other in others:
        await other.close()


async def test_replicas_that_change_one_account_at_the_same_time_do_it_one_after_the_other(
    database: Database, database_address: str, clock: ManualClock
) -> None:
    others = [await open_database(database_address) for _ in range(2)] if database.shared else []
    replicas = [Books(one, clock) for one in (database, *others)]
    account_id = await replicas[0].open_account("hobbyist")
    plans = ("starter", "professional", "hobbyist", "starter")
    await asyncio.gather(
        *(
            replica.subscriptions.change_plan(replica.wish(account_id), plan_id, 0)
            for replica in replicas
            for plan_id in plans
        )
    )
    invoices = await replicas[0].invoices_of(account_id)
    assert sum(invoice.total_micro for invoice in invoices) == 200_000_000
    assert [invoice.sequence_number for invoice in invoices] == list(range(1, len(invoices) + 1))
    assert {invoice.state for invoice in invoices} == {InvoiceState.OPEN}
    for other in others:
        await other.close()
