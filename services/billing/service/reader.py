"""Reads quota's session events into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from services.billing.domain.leases import Lacking, next_look_us
from services.billing.domain.ledger import EventBatch, PartitionLease, PositionedEntry, Watermark, advanced
from services.billing.ledger_store import Balance, LedgerInsert
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.store import Transaction
from services.shared import failpoints
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger

WATERMARK_INTERVAL_US: Final = 5_000_000
"""Watermarks that come without events are written this often: an idle system is to write next to nothing."""

ENTRIES_AT_ONCE: Final = 2_000
"""About as many entries go into one transaction, where that many are waiting."""

BATCHES_WAITING_MAX: Final = 64
"""What quota sends beyond these batches waits in the connection."""

MICRO: Final = 1_000_000


class SessionEventReader:
    """Follows quota's events over the partitions that this replica holds.

    The entries of a batch and the cursors behind them are one transaction; what is stored is acknowledged after it.
    A crash between the two makes quota send again what the ledger has, and the ledger takes nothing twice.

    Replicas share the partitions by leases, see `domain.leases`. A store that is not shared needs no such rounds.
    """

    def __init__(
        self, context: Context, dispatcher: EntitlementDispatcher, booking: Booking, replica: str, lease_s: float
    ) -> None:
        """Makes a reader.

        Args:
            context: what it works with.
            dispatcher: is told where quota's store was replaced.
            booking: the way into the ledger.
            replica: this replica's name among all that ever run.
            lease_s: how long a replica that has fallen silent keeps its partitions, in seconds.
        """
        self._context = context
        self._dispatcher = dispatcher
        self._booking = booking
        self._replica = replica
        self._lease_us = round(lease_s * MICRO)
        self._log = get_logger()
        self._held: dict[int, PartitionLease] = {}
        self._unwritten: dict[int, PartitionLease] = {}
        """Watermarks that came without entries, and are not stored yet."""
        self._watermarks_written_us = 0
        self._balancing: asyncio.Task[Balance] | None = None

    async def run_once(self) -> bool:
        """Reads until the connection ends or the partitions are shared anew; True where it got anywhere.

        Raises:
            FlowStackError: QUOTA_UNAVAILABLE, BILLING_UNAVAILABLE.
        """
        self._unwritten.clear()
        await self._booking.book_strays()
        leases, lack = await self._balance()
        self._held = {lease.partition: lease for lease in leases}
        waiting: asyncio.Queue[_Item] = asyncio.Queue(BATCHES_WAITING_MAX)
        rounds = asyncio.create_task(self._until_shared_anew(waiting, lack))
        try:
            return await self._follow(waiting)
        except FlowStackError as error:
            if error.reason is not Reason.INVALID_REQUEST or "store_epoch" not in error.metadata:
                raise
            await self._start_over()
            return False
        finally:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)

    async def release(self) -> None:
        """Gives the partitions up, where the database can be reached: others need not wait for the leases' end.

        To be called once nothing is read any more.
        """
        await self._balanced()
        try:
            await self._context.store.transact(lambda transaction: transaction.partitions.release(self._replica))
        except FlowStackError as error:
            self._log.warning("leases_not_released", reason=error.reason.value)

    async def _balance(self) -> Balance:
        await self._balanced()
        now_us = self._context.clock.now_us()
        self._balancing = asyncio.create_task(
            self._context.store.transact(
                lambda transaction: transaction.partitions.balance(self._replica, now_us, self._lease_us)
            )
        )
        return await asyncio.shield(self._balancing)

    async def _balanced(self) -> None:
        """Waits for a round whose caller was cancelled, which no cancellation reaches.

        After the release it would take the partitions back, for a replica that is gone.
        """
        if self._balancing is not None:
            await asyncio.gather(self._balancing, return_exceptions=True)

    async def _until_shared_anew(self, waiting: asyncio.Queue[_Item], lack: Lacking) -> None:
        """Says that this replica is alive; ends the reading at the next batch where the partitions are others."""
        looks = 0
        while self._context.store.shared:
            await asyncio.sleep(next_look_us(lack, self._context.clock.now_us(), self._lease_us, looks) / MICRO)
            looks += 1
            try:
                leases, lack = await self._balance()
                await self._booking.book_strays()
            except Exception as error:  # raised again where the batches are taken in
                await waiting.put(error)
                return
            if {lease.partition: lease.fence for lease in leases} != {
                lease.partition: lease.fence for lease in self._held.values()
            }:
                self._log.info("partitions_shared_anew", count=len(leases))
                await waiting.put(None)
                return

    async def _follow(self, waiting: asyncio.Queue[_Item]) -> bool:
        stored = {lease.partition: lease.cursor for lease in self._held.values() if lease.cursor}
        if stored:
            # Of the last run there may be something that was stored and not acknowledged.
            await self._context.quota.acknowledge(stored)
        positions = {lease.partition: lease.cursor for lease in self._held.values()}
        incoming = self._context.quota.read_session_events(positions) if positions else _nothing()
        ended_well = not positions
        async with aclosing(_merged(waiting, incoming)) as batches:
            async for batch in batches:
                if not await self._take(batch):
                    self._log.warning("reader_superseded")
                    return False
                ended_well = True
        return ended_well

    async def _take(self, batch: EventBatch) -> bool:
        """Stores a batch; False where another replica has taken a partition over."""
        now_us = self._context.clock.now_us()
        moved = advanced(self._held, batch)
        self._held |= moved
        self._unwritten |= moved
        if not batch.entries and now_us - self._watermarks_written_us < WATERMARK_INTERVAL_US:
            return True
        leases = tuple(self._unwritten.values())

        async def store(transaction: Transaction) -> LedgerInsert:
            # The cursors come first: their rows say whether another replica has taken over meanwhile.
            if not await transaction.partitions.advance(leases, now_us + self._lease_us):
                raise _SupersededError
            inserted = await self._booking.book(transaction, batch.entries, now_us)
            failpoints.hit("billing.before_ledger_commit")
            return inserted

        try:
            inserted = await self._context.store.transact(store)
        except _SupersededError:
            return False
        failpoints.hit("billing.after_ledger_commit")
        self._unwritten.clear()
        self._watermarks_written_us = now_us
        for account_id in sorted(inserted.unknown_accounts):
            self._log.error("event_of_unknown_account", account_id=account_id)
        if batch.entries:
            failpoints.hit("billing.before_acknowledge")
            partitions = {positioned.partition for positioned in batch.entries}
            await self._context.quota.acknowledge({partition: self._held[partition].cursor for partition in partitions})
            failpoints.hit("billing.after_acknowledge")
        return True

    async def _start_over(self) -> None:
        """Reads a replaced store of quota's from its beginning, and gives it the entitlements that it may lack.

        Reading again is safe: the ledger takes no event twice.
        """
        self._log.error("quota_store_replaced")
        beginning = [lease._replace(cursor="") for lease in self._held.values()]
        end_us = self._context.clock.now_us() + self._lease_us
        await self._context.store.transact(lambda transaction: transaction.partitions.advance(beginning, end_us))
        await self._dispatcher.renew()


class _SupersededError(Exception):
    """Another replica has taken a partition over: the transaction is undone."""


_Item = EventBatch | Exception | None
"""What waits to be stored: a batch, or the end of the reading, with the error that it ended with."""


async def _nothing() -> AsyncIterator[EventBatch]:
    """What comes where there is nothing to read: no batch, and no end."""
    await asyncio.Event().wait()
    yield EventBatch((), ())


async def _merged(
    waiting: asyncio.Queue[_Item], batches: AsyncIterator[EventBatch]
) -> AsyncGenerator[EventBatch, None]:
    """What came while the last batch was stored, as one batch: the busier it is, the fewer transactions."""
    filling = asyncio.create_task(_fill(waiting, batches))
    try:
        while True:
            batch, last = await _take_waiting(waiting)
            if batch.entries or batch.watermarks:
                yield batch
            if isinstance(last, Exception):
                raise last
            if last is None:
                return
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def _fill(waiting: asyncio.Queue[_Item], batches: AsyncIterator[EventBatch]) -> None:
    try:
        async for batch in batches:
            await waiting.put(batch)
    except Exception as error:  # raised again where the batches are taken in
        await waiting.put(error)
    else:
        await waiting.put(None)


async def _take_waiting(waiting: asyncio.Queue[_Item]) -> tuple[EventBatch, _Item]:
    """Everything that waits, at least one item, as one batch; and the last item, which may be the end."""
    entries: list[PositionedEntry] = []
    watermarks: list[Watermark] = []
    item = await waiting.get()
    while isinstance(item, EventBatch):
        entries += item.entries
        watermarks += item.watermarks
        if waiting.empty() or len(entries) >= ENTRIES_AT_ONCE:
            break
        item = waiting.get_nowait()
    return EventBatch(tuple(entries), tuple(watermarks)), item
