"""What reads of usage rest on: one moment of the database, and an index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar, cast

from sqlalchemy import event

from services.billing.adapters.sql.database import Database, open_database
from services.billing.domain.ledger import LedgerEntry, PositionedEntry, partition_of
from services.billing.domain.usage import QuotaReading
from services.billing.ledger_store import SessionFilter
from services.billing.service.booking import Booking
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.usage import UsageService
from services.billing.store import Transaction
from services.shared.periods import period_at
from tests.support.books import Books
from tests.support.clock import DAY_US, ManualClock
from tests.support.rollups import OnePrice

T = TypeVar("T")


def session(account_id: str, number: int, time_us: int, period_us: int) -> PositionedEntry:
    entry = LedgerEntry(
        account_id, f"ses_{number}", 1, time_us, 2, period_us, time_us, 2, time_us, 2, "p", "m", 2, 1_000_000, 0, None,
        None, None, False, 1, 0, "", f"r{number}", "{}", "{}", 1,
    )  # fmt: skip
    return PositionedEntry(partition_of(account_id), "c", entry)


class MeetingStore:
    """The real store, in which another replica commits something while a transaction is under way."""

    def __init__(self, database: Database, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._meanwhile = meanwhile

    async def transact(self, work: Callable[[Transaction], Awaitable[T]], *, snapshot: bool = False) -> T:
        async def met(transaction: Transaction) -> T:
            read_charges = transaction.invoices.charged_micro

            async def charged_micro(account_id: str, period_us: int) -> int:
                await self._meanwhile()
                return await read_charges(account_id, period_us)

            read_watermark = transaction.partitions.watermark_us

            async def watermark_us(partition: int) -> int:
                await self._meanwhile()
                return await read_watermark(partition)

            transaction.invoices.charged_micro = charged_micro  # type: ignore[method-assign]
            transaction.partitions.watermark_us = watermark_us  # type: ignore[method-assign]
            return await work(transaction)

        return await self._database.transact(met, snapshot=snapshot)


async def test_costs_are_as_of_the_time_that_they_say(billing_postgres: str) -> None:
    database = await open_database(billing_postgres)
    clock = ManualClock()
    books = Books(database, clock)
    account_id = await books.open_account("professional")
    start_us = clock.now_us()
    period = period_at(start_us, start_us)
    (lease,) = [
        lease
        for lease in (await database.transact(lambda t: t.partitions.balance("r", start_us, 99 * DAY_US))).leases
        if lease.partition == partition_of(account_id)
    ]
    clock.advance_us(DAY_US)
    now_us = clock.now_us()
    booked = False

    async def book() -> None:
        nonlocal booked
        if booked:
            return
        booked = True
        one = session(account_id, 1, start_us + 1, period.start_us)

        async def work(transaction: Transaction) -> None:
            assert await transaction.partitions.advance([lease._replace(watermark_us=now_us)], now_us + DAY_US)
            await Booking(replace(books.context, prices=OnePrice())).book(transaction, [one], now_us)

        await database.transact(work)

    context = replace(books.context, store=MeetingStore(database, book))
    quota = QuotaReading("professional", *period, 9, 1, 0, 1, 0, 8, (), True, "", 1)
    reads = UsageService(context, cast("EntitlementDispatcher", None))
    usage = await reads.usage_at(account_id, quota)
    assert booked
    assert (usage.costs_as_of_us, usage.estimated_monthly_cost_micro - usage.current_charges_micro) == (start_us, 0)
    usage = await reads.usage_at(account_id, quota)
    assert usage.costs_as_of_us == now_us
    assert usage.estimated_monthly_cost_micro > usage.current_charges_micro
    await database.close()


async def test_one_session_of_many_is_found_by_an_index(database: Database) -> None:
    books = Books(database, ManualClock())
    account_id = await books.open_account("professional")
    rows = [session(account_id, number, number + 1, 1) for number in range(2_000)]
    await database.transact(lambda t: t.ledger.insert(rows, 1))
    is_sqlite = database.engine.dialect.name == "sqlite"
    asked: list[tuple[str, object]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def _asked(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        asked.append((statement, parameters))

    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE")
    for wanted, index in (
        (SessionFilter(account_id, request_id="r7"), "ledger_by_request"),
        (SessionFilter(account_id, session_id="ses_7"), "sqlite_autoindex_ledger_1" if is_sqlite else "ledger_pkey"),
        (SessionFilter(account_id), "ledger_by_time"),
    ):
        asked.clear()
        found = await database.transact(lambda t, w=wanted: t.ledger.sessions(w, None, 9, 100))
        assert len(found.entries) == (9 if index == "ledger_by_time" else 1)
        assert found.looked_to is None
        statement, parameters = asked[-1]
        async with database.engine.begin() as connection:
            explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
            plan = await connection.exec_driver_sql(f"{explain} {statement}", parameters)  # type: ignore[arg-type]
            assert index in str(plan.all())
