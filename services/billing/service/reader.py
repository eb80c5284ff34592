"""Reads quota's session events into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from services.billing.domain.ledger import EventBatch, PartitionCursor, PositionedEntry, Watermark, newest_cursors
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.store import LedgerInsert, Transaction
from services.shared import failpoints
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger

WATERMARK_INTERVAL_US: Final = 5_000_000
"""Watermarks that come without events are written this often: an idle system is to write next to nothing."""

ENTRIES_AT_ONCE: Final = 1_000
"""About as many entries go into one transaction, where that many are waiting."""

BATCHES_WAITING_MAX: Final = 64
"""What quota sends beyond these batches waits in the connection."""


class SessionEventReader:
    """Follows quota's events over all partitions.

    The entries of a batch and the cursors behind them are one transaction; what is stored is acknowledged after it.
    A crash between the two makes quota send again what the ledger has, and the ledger takes nothing twice.
    """

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._log = get_logger()
        self._watermarks: dict[int, Watermark] = {}
        self._watermarks_written_us = 0

    async def run_once(self) -> bool:
        """Reads until the connection ends; True where anything came.

        Raises:
            FlowStackError: QUOTA_UNAVAILABLE, BILLING_UNAVAILABLE.
        """
        self._watermarks.clear()
        fence, cursors = await self._context.store.transact(lambda transaction: transaction.ledger.claim())
        try:
            return await self._follow(fence, cursors)
        except FlowStackError as error:
            if error.reason is not Reason.INVALID_REQUEST or "store_epoch" not in error.metadata:
                raise
            await self._start_over(fence, cursors)
            return False

    async def _follow(self, fence: int, cursors: Sequence[PartitionCursor]) -> bool:
        stored = {cursor.partition: cursor.cursor for cursor in cursors if cursor.cursor}
        if stored:
            # Of the last run there may be something that was stored and not acknowledged.
            await self._context.quota.acknowledge(stored)
        positions = {cursor.partition: cursor.cursor for cursor in cursors}
        advanced = False
        async with aclosing(_merged(self._context.quota.read_session_events(positions))) as batches:
            async for batch in batches:
                if not await self._take(fence, batch):
                    self._log.warning("reader_superseded")
                    return False
                advanced = True
        return advanced

    async def _take(self, fence: int, batch: EventBatch) -> bool:
        """Stores a batch; False where another reader has taken over."""
        now_us = self._context.clock.now_us()
        self._watermarks.update((watermark.partition, watermark) for watermark in batch.watermarks)
        if not batch.entries and now_us - self._watermarks_written_us < WATERMARK_INTERVAL_US:
            return True
        cursors = newest_cursors(batch.entries)
        watermarks = tuple(self._watermarks.values())

        async def store(transaction: Transaction) -> LedgerInsert | None:
            # The cursors come first: their rows are what a reader that took over meanwhile is told by.
            if not await transaction.ledger.advance(fence, cursors, watermarks):
                return None
            inserted = await transaction.ledger.insert(batch.entries, now_us)
            failpoints.hit("billing.before_ledger_commit")
            return inserted

        inserted = await self._context.store.transact(store)
        failpoints.hit("billing.after_ledger_commit")
        if inserted is None:
            return False
        self._watermarks.clear()
        self._watermarks_written_us = now_us
        for account_id in sorted(inserted.unknown_accounts):
            self._log.error("event_of_unknown_account", account_id=account_id)
        if cursors:
            failpoints.hit("billing.before_acknowledge")
            await self._context.quota.acknowledge(cursors)
            failpoints.hit("billing.after_acknowledge")
        return True

    async def _start_over(self, fence: int, cursors: Sequence[PartitionCursor]) -> None:
        """Reads a replaced store of quota's from its beginning, and gives it the entitlements that it may lack.

        Reading again is safe: the ledger takes no event twice.
        """
        self._log.error("quota_store_replaced")
        beginning = {cursor.partition: "" for cursor in cursors}
        await self._context.store.transact(lambda transaction: transaction.ledger.advance(fence, beginning, ()))
        await self._dispatcher.renew()


_Item = EventBatch | Exception | None
"""What waits to be stored: a batch, or the end of the stream, with the error that it ended with."""


async def _merged(batches: AsyncIterator[EventBatch]) -> AsyncGenerator[EventBatch, None]:
    """What came while the last batch was stored, as one batch: the busier it is, the fewer transactions."""
    waiting: asyncio.Queue[_Item] = asyncio.Queue(BATCHES_WAITING_MAX)
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
