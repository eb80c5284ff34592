"""Who reads quota's partitions, and how far they have been read, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.tables import PARTITION_CURSORS, READER_REPLICAS
from services.billing.domain.leases import LeaseState, Shares, lacking, share
from services.billing.domain.ledger import PartitionLease
from services.billing.ledger_store import Balance

FORGET_US: Final = 24 * 3600 * 1_000_000
"""A replica that has been silent for so long is forgotten. It counts as gone once its own lease has ended."""

_CURSORS = PARTITION_CURSORS.c
_REPLICAS = READER_REPLICAS.c
_LEASE: Final = select(
    _CURSORS.partition, _CURSORS.fence, _CURSORS.cursor, _CURSORS.watermark_us, _CURSORS.oldest_reserve_us
).order_by(_CURSORS.partition)
_STATE: Final = select(_CURSORS.partition, _CURSORS.owner, _CURSORS.fence, _CURSORS.lease_end_us).order_by(
    _CURSORS.partition
)
_ADVANCE: Final = (
    update(PARTITION_CURSORS)
    .where(_CURSORS.partition == bindparam("part"), _CURSORS.fence == bindparam("with_fence"))
    .values(
        cursor=bindparam("to_cursor"),
        watermark_us=bindparam("to_watermark"),
        oldest_reserve_us=bindparam("to_oldest"),
        lease_end_us=bindparam("to_end"),
    )
)


class SqlPartitions:
    """How far quota's partitions have been read, and which replica reads them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def balance(self, replica: str, now_us: int, lease_us: int) -> Balance:
        """Says that `replica` is alive, gives up and takes partitions; answers what it holds now."""
        end_us = now_us + lease_us
        alive = await self._note_alive(replica, now_us, end_us)
        states = [LeaseState(*tuple(row)) for row in await self._connection.execute(_STATE)]
        shares = share(states, alive, replica, now_us)
        await self._apply(shares, replica, end_us, await self._unchanged(shares, states))
        leases = await self._leases(_LEASE.where(_CURSORS.owner == replica))
        return Balance(leases, lacking(states, alive, replica, now_us, held=len(leases)))

    async def _note_alive(self, replica: str, now_us: int, end_us: int) -> Mapping[str, int]:
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        note = dialect.insert(READER_REPLICAS).values(replica=replica, end_us=end_us)
        await self._connection.execute(
            note.on_conflict_do_update(index_elements=[_REPLICAS.replica], set_={"end_us": end_us})
        )
        await self._connection.execute(delete(READER_REPLICAS).where(_REPLICAS.end_us < now_us - FORGET_US))
        alive = select(_REPLICAS.replica, _REPLICAS.end_us).where(_REPLICAS.end_us > now_us)
        return {row.replica: row.end_us for row in await self._connection.execute(alive)}

    async def _unchanged(self, shares: Shares, states: Sequence[LeaseState]) -> set[int]:
        """The partitions of `shares` that could be locked and are as `states` has them."""
        wanted = [*shares.keep, *shares.take, *shares.give]
        # Rows that are locked are being written, or change hands: they are passed over, and nobody waits for anybody.
        lock = _STATE.where(_CURSORS.partition.in_(wanted)).with_for_update(skip_locked=True)
        locked = [LeaseState(*tuple(row)) for row in await self._connection.execute(lock)]
        return {state.partition for state in locked if state in states}

    async def _apply(self, shares: Shares, replica: str, end_us: int, unchanged: set[int]) -> None:
        for partitions, values in (
            (shares.keep, {"lease_end_us": end_us}),
            (shares.take, {"owner": replica, "fence": _CURSORS.fence + 1, "lease_end_us": end_us}),
            (shares.give, {"owner": "", "lease_end_us": 0}),
        ):
            rows = unchanged.intersection(partitions)
            if rows:
                statement = update(PARTITION_CURSORS).where(_CURSORS.partition.in_(rows))
                await self._connection.execute(statement.values(values))

    async def release(self, replica: str) -> None:
        """Gives up all that `replica` holds."""
        held = _STATE.where(_CURSORS.owner == replica).with_for_update()
        partitions = [row.partition for row in await self._connection.execute(held)]
        if partitions:
            statement = update(PARTITION_CURSORS).where(_CURSORS.partition.in_(partitions))
            await self._connection.execute(statement.values(owner="", lease_end_us=0))
        await self._connection.execute(delete(READER_REPLICAS).where(_REPLICAS.replica == replica))

    async def advance(self, leases: Sequence[PartitionLease], end_us: int) -> bool:
        """Stores how far partitions have been read; False where one of the fences is an old one."""
        if not leases:
            return True
        # In one order, so that two writers never wait for each other.
        rows = [
            {
                "part": partition,
                "with_fence": fence,
                "to_cursor": cursor,
                "to_watermark": watermark_us,
                "to_oldest": oldest_reserve_us,
                "to_end": end_us,
            }
            for partition, fence, cursor, watermark_us, oldest_reserve_us in sorted(leases)
        ]
        return (await self._connection.execute(_ADVANCE, rows)).rowcount == len(rows)

    async def lock(self, partitions: Collection[int]) -> None:
        """Makes whoever books entries of these partitions wait for this transaction's end, and waits for them."""
        query = select(_CURSORS.partition).where(_CURSORS.partition.in_(sorted(partitions)))
        # In one order, as `advance`. On SQLite there is one transaction at a time anyway.
        await self._connection.execute(query.order_by(_CURSORS.partition).with_for_update())

    async def all(self) -> Sequence[PartitionLease]:
        """How far every partition has been read, whoever holds it."""
        return await self._leases(_LEASE)

    async def _leases(self, query: Any) -> Sequence[PartitionLease]:
        rows: Sequence[Row[Any]] = (await self._connection.execute(query)).all()
        return [PartitionLease(*tuple(row)) for row in rows]

    async def watermark_us(self, partition: int) -> int:
        """Every event of the partition before this time has been read; 0 where nothing is known."""
        query = select(_CURSORS.watermark_us).where(_CURSORS.partition == partition)
        watermark_us: int = (await self._connection.execute(query)).scalar_one()
        return watermark_us
