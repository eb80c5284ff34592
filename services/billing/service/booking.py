"""How session events get into the ledger, with all that follows from them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.billing.domain.ledger import LedgerEntry, PositionedEntry
from services.billing.domain.prices import stamped
from services.billing.ledger_store import LedgerInsert
from services.billing.service.context import Context
from services.billing.store import Transaction
from services.shared.log import get_logger

STRAYS_AT_ONCE: Final = 1_000

Consequence = Callable[[Transaction, Sequence[LedgerEntry], int], Awaitable[None]]
"""What follows from entries that are new in the ledger, in the transaction that appends them, at a time.

It is called once for every entry, whatever is redelivered: sums, alerts and the like belong here.
"""


async def keep_rollups(transaction: Transaction, entries: Sequence[LedgerEntry], now_us: int) -> None:  # noqa: ARG001
    """The consequence that the ledger never goes without: its sums. Others find them up to date."""
    await transaction.rollups.add(entries)


class Booking:
    """The one way into the ledger."""

    def __init__(self, context: Context, consequences: Sequence[Consequence] = ()) -> None:
        self._context = context
        self._consequences = (keep_rollups, *consequences)
        self._log = get_logger()

    async def book(self, transaction: Transaction, entries: Sequence[PositionedEntry], now_us: int) -> LedgerInsert:
        """Appends entries with their costs, and what follows from the new ones, in the caller's transaction."""
        price_of = self._context.prices.price_of
        priced = [PositionedEntry(part, cursor, stamped(entry, price_of)) for part, cursor, entry in entries]
        inserted = await transaction.ledger.insert(priced, now_us)
        if inserted.entries:
            for consequence in self._consequences:
                await consequence(transaction, inserted.entries, now_us)
            if usage := self._context.signals.usage:
                changed = {entry.account_id for entry in inserted.entries}
                transaction.after_commit(lambda: usage.changed(changed))
        return inserted

    async def book_strays(self) -> int:
        """Books events that were kept aside until their account became known; answers how many.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE.
        """
        total = 0
        while count := await self._context.store.transact(self._book_some_strays):
            total += count
        if total:
            self._log.info("stray_events_booked", count=total)
        return total

    async def _book_some_strays(self, transaction: Transaction) -> int:
        strays = await transaction.ledger.take_strays(STRAYS_AT_ONCE)
        if strays:
            # As whoever reads the partitions does, so that alerts are decided by one at a time.
            await transaction.partitions.lock({positioned.partition for positioned in strays})
            await self.book(transaction, strays, self._context.clock.now_us())
        return len(strays)
