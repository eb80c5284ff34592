"""The ledger and the cursors of quota's partitions in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Table, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.dialect import insert_unless_there
from services.billing.adapters.sql.tables import ACCOUNTS, LEDGER, PARTITION_CURSORS, STRAY_EVENTS
from services.billing.domain.ledger import (
    CredentialMode,
    EventType,
    LedgerUsage,
    PartitionCursor,
    PositionedEntry,
    Watermark,
)
from services.billing.store import LedgerInsert

ACCOUNTS_AT_ONCE: Final = 500
"""How many accounts one query asks for; SQLite takes some 32,000 parameters, older ones 999."""

_CURSORS = PARTITION_CURSORS.c


class SqlLedger:
    """The append-only ledger, and how far quota's events have been read."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self) -> tuple[int, Sequence[PartitionCursor]]:
        """Takes over every partition."""
        # Locked, so that two readers that claim at the same time get different fences.
        rows = (await self._connection.execute(select(PARTITION_CURSORS).with_for_update())).all()
        fence = max(row.fence for row in rows) + 1
        await self._connection.execute(update(PARTITION_CURSORS).values(fence=fence))
        return fence, [PartitionCursor(row.partition, row.cursor, row.watermark_us) for row in rows]

    async def advance(self, fence: int, cursors: Mapping[int, str], watermarks: Sequence[Watermark]) -> bool:
        """Moves cursors and watermarks; False where another reader has claimed a partition since."""
        touched = sorted({*cursors, *(watermark.partition for watermark in watermarks)})
        if not touched:
            return True
        # The rows stay locked to the transaction's end: who claims waits until what this reader has is stored.
        held = select(_CURSORS.partition).where(_CURSORS.partition.in_(touched), _CURSORS.fence == fence)
        if len((await self._connection.execute(held.with_for_update())).all()) < len(touched):
            return False
        if cursors:
            await self._update(
                {"cursor": bindparam("value")}, [{"part": part, "value": cursor} for part, cursor in cursors.items()]
            )
        if watermarks:
            await self._update(
                {"watermark_us": bindparam("value"), "oldest_reserve_us": bindparam("oldest")},
                [{"part": part, "value": value, "oldest": oldest} for part, value, oldest in watermarks],
            )
        return True

    async def _update(self, values: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        statement = update(PARTITION_CURSORS).where(_CURSORS.partition == bindparam("part")).values(values)
        await self._connection.execute(statement, rows)

    async def insert(self, entries: Sequence[PositionedEntry], now_us: int) -> LedgerInsert:
        """Appends what is new of `entries`; a repeat changes nothing, whenever it comes."""
        if not entries:
            return LedgerInsert(0, frozenset())
        known = await self._known({positioned.entry.account_id for positioned in entries})
        booked = [{**item.entry._asdict(), "insert_us": now_us} for item in entries if item.entry.account_id in known]
        stray = [
            {**entry._asdict(), "insert_us": now_us, "partition": partition, "cursor": cursor}
            for partition, cursor, entry in entries
            if entry.account_id not in known
        ]
        inserted = await self._append(LEDGER, booked)
        await self._append(STRAY_EVENTS, stray)
        return LedgerInsert(inserted, frozenset(row["account_id"] for row in stray))

    async def _append(self, table: Table, rows: list[dict[str, Any]]) -> int:
        if not rows:
            return 0
        statement = insert_unless_there(self._connection, table).returning(table.c.session_id)
        return len((await self._connection.execute(statement, rows)).all())

    async def _known(self, account_ids: set[str]) -> set[str]:
        wanted = sorted(account_ids)
        known: set[str] = set()
        for begin in range(0, len(wanted), ACCOUNTS_AT_ONCE):
            query = select(ACCOUNTS.c.account_id).where(
                ACCOUNTS.c.account_id.in_(wanted[begin : begin + ACCOUNTS_AT_ONCE])
            )
            known.update((await self._connection.execute(query)).scalars())
        return known

    async def usage(self, account_id: str, day_start_us: int, period_start_us: int) -> LedgerUsage:
        """An account's counts in the day and the period."""
        columns = LEDGER.c
        is_byok = (columns.period_start_us == period_start_us) & (columns.credential_mode == int(CredentialMode.BYOK))
        query = select(
            func.coalesce(func.sum(case((columns.reserve_us >= day_start_us, 1), else_=0)), 0),
            func.coalesce(func.sum(case((is_byok, 1), else_=0)), 0),
        ).where(
            columns.account_id == account_id,
            columns.reserve_us >= min(day_start_us, period_start_us),
            columns.event == int(EventType.COMMITTED),
        )
        today, byok = (await self._connection.execute(query)).one()
        return LedgerUsage(int(today), int(byok))

    async def watermark_us(self, partition: int) -> int:
        """Every event of the partition before this time has been read; 0 where nothing is known."""
        query = select(_CURSORS.watermark_us).where(_CURSORS.partition == partition)
        watermark_us: int = (await self._connection.execute(query)).scalar_one()
        return watermark_us
