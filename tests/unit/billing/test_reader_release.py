"""A replica that goes gives its partitions up for good, whatever it was about to do."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest
from sqlalchemy import select

from services.billing.adapters.sql.database import Database
from services.billing.adapters.sql.tables import PARTITION_CURSORS, READER_REPLICAS
from services.billing.domain.ledger import PARTITIONS
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.reader import SessionEventReader
from tests.support.clock import ManualClock


class LateStore:
    """A database whose first transaction begins when it is let; a caller's cancellation does not reach it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.calls = 0
        self.begun = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def transact(self, work: Any, **options: Any) -> Any:
        self.calls += 1
        is_first = self.calls == 1

        async def late() -> Any:
            if is_first:
                await self.goes_on.wait()
            return await self._database.transact(work, **options)

        self.begun.set()
        return await asyncio.shield(asyncio.create_task(late()))


async def owners(database: Database) -> tuple[Counter[str], list[str]]:
    """How many partitions each replica holds, and who is taken for alive."""
    async with database.engine.begin() as connection:
        held = Counter((await connection.execute(select(PARTITION_CURSORS.c.owner))).scalars().all())
        return held, list((await connection.execute(select(READER_REPLICAS.c.replica))).scalars().all())


async def test_a_round_that_was_cut_off_takes_nothing_back(database: Database, clock: ManualClock) -> None:
    store = LateStore(database)
    nothing = cast("Any", None)
    context = Context(cast("Any", store), nothing, nothing, nothing, clock, bytes)
    booking = Booking(context, [])
    reader = SessionEventReader(context, nothing, booking, "replica", 10.0)
    round_ = asyncio.create_task(reader._balance())
    await store.begun.wait()
    round_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await round_

    releasing = asyncio.create_task(reader.release())
    for _ in range(10):
        await asyncio.sleep(0)  # turns of the loop
    assert store.calls == 1, "the release waits for it"
    store.goes_on.set()
    await releasing
    await database.close()  # waits for all that runs
    assert await owners(database) == ({"": PARTITIONS}, [])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
