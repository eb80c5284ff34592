"""The ledger's rollups in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql import usage_rows
from services.billing.adapters.sql.dialect import add_many
from services.billing.adapters.sql.usage_rows import bucket_of
from services.billing.adapters.sql.usage_tables import USAGE_HOURS, USAGE_LABELS, USAGE_PERIODS
from services.billing.domain.ledger import LedgerEntry
from services.billing.domain.prices import ProviderCost
from services.billing.domain.rollups import Sums, hour_of, rolled_up
from services.billing.domain.usage_query import Granularity, GroupKey, Totals, UsageQuery, UsageRow
from services.billing.usage_store import CostItems, RollupFilter, RollupRow, Span


class SqlRollups:
    """Sums of the ledger."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entries: Sequence[LedgerEntry]) -> None:
        """Adds entries that are new in the ledger."""
        rollup = rolled_up(entries)
        # Tables and rows in one order for everybody, so that of two transactions one waits and neither forever.
        await self._add(USAGE_PERIODS, rollup.periods)
        await self._add(USAGE_HOURS, rollup.hours)
        await self._add(USAGE_LABELS, rollup.labels)

    async def _add(self, table: Table, found: Mapping[Any, Sums]) -> None:
        await add_many(self._connection, table, [(*key, *found[key]) for key in sorted(found)])

    async def provider_cost(self, account_id: str, period_start_us: int) -> ProviderCost:
        """What providers have charged the caller for BYOK sessions of a period."""
        columns = USAGE_PERIODS.c
        query = select(_sum(columns.cost_micro), _sum(columns.unpriced)).where(
            columns.account_id == account_id, columns.period_start_us == period_start_us
        )
        known_micro, unpriced = (await self._connection.execute(query)).one()
        return ProviderCost(int(known_micro), int(unpriced))

    async def committed_since(self, account_id: str, hour_us: int) -> int:
        """Counted sessions that were reserved in the hour that starts then, or later."""
        columns = USAGE_HOURS.c
        query = select(_sum(columns.committed)).where(columns.account_id == account_id, columns.hour_us >= hour_us)
        return int((await self._connection.execute(query)).scalar_one())

    async def committed_by_day(self, account_id: str, period_start_us: int) -> Mapping[int, int]:
        """Counted sessions of a period by the start of their day."""
        columns = USAGE_HOURS.c
        day = bucket_of(USAGE_HOURS, Granularity.DAY)
        query = select(day, _sum(columns.committed)).where(
            columns.account_id == account_id,
            columns.hour_us >= hour_of(period_start_us),
            columns.period_start_us == period_start_us,
        )
        rows = await self._connection.execute(query.group_by(day))
        return {int(day_us): int(committed) for day_us, committed in rows}

    async def read(self, wanted: RollupFilter) -> Sequence[RollupRow]:
        """Sums by credential mode."""
        columns = USAGE_PERIODS.c
        query = select(columns.credential_mode, *(_sum(columns[name]) for name in Sums._fields)).where(
            columns.account_id == wanted.account_id
        )
        if wanted.period_start_us is not None:
            query = query.where(columns.period_start_us == wanted.period_start_us)
        rows = await self._connection.execute(query.group_by(columns.credential_mode))
        return [RollupRow(int(mode), Sums(*map(int, sums))) for mode, *sums in rows]

    async def costs(self, account_id: str, period_start_us: int, limit: int) -> CostItems:
        """A period by provider, model and credentials, the dearest first."""
        return await usage_rows.costs(self._connection, account_id, period_start_us, limit)

    async def totals(self, query: UsageQuery, span: Span, sums_max: int) -> Totals | None:
        """All that a query adds up."""
        return await usage_rows.totals(self._connection, query, span, sums_max)

    async def reach(self, query: UsageQuery, span: Span, sums: int) -> int | None:
        """The hour up to which a query by groups rests on so many stored sums."""
        return await usage_rows.reach(self._connection, query, span, sums)

    async def rows(self, query: UsageQuery, span: Span, after: GroupKey | None, limit: int) -> Sequence[UsageRow]:
        """The rows of a query by bucket and group."""
        return await usage_rows.rows(self._connection, query, span, after, limit)


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0)
