"""Queries of usage in SQL: buckets and groups of the ledger's rollups, page by page.

What is grouped, ordered and cut is so in the database: the statement answers a page's rows and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, case, collate, func, literal_column, or_, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.usage_tables import USAGE_HOURS, USAGE_LABELS
from services.billing.domain.ledger import CredentialMode
from services.billing.domain.rollups import HOUR_US, Sums, hour_of
from services.billing.domain.usage import DAY_US
from services.billing.domain.usage_query import (
    CostItem,
    Dimension,
    Granularity,
    GroupKey,
    Totals,
    UsageQuery,
    UsageRow,
    bucket_end,
)
from services.billing.usage_store import CostItems, Span

_COLUMNS: Final = {
    Dimension.PROVIDER: "provider",
    Dimension.MODEL: "model",
    Dimension.CREDENTIAL_MODE: "served_credential_mode",
}
_GROUP_FIELDS: Final = ("provider", "model", "served_credential_mode", "label_value")
"""The fields of a `GroupKey`, as they are called here."""
_TEXTS: Final = ("provider", "model", "label_value")
_TOTALS: Final = ("managed", "byok", *Sums._fields)


async def totals(connection: AsyncConnection, query: UsageQuery, span: Span, sums_max: int) -> Totals | None:
    """All that a query adds up; None where that rests on more than `sums_max` stored sums."""
    table = USAGE_HOURS if query.label_value is None else USAGE_LABELS
    reached = select(table.c.hour_us).where(*_place(table, query, span)).limit(1).offset(sums_max)
    if (await connection.execute(reached)).first() is not None:
        return None
    found = select(*_added(table)).where(*_place(table, query, span), *_filters(table, query)).subquery()
    sums = select(*(func.coalesce(func.sum(found.c[name]), 0) for name in _TOTALS))
    return _totals((await connection.execute(sums)).one())


async def reach(connection: AsyncConnection, query: UsageQuery, span: Span, sums: int) -> int | None:
    """The hour up to which, excluding it, a query by groups rests on at most that many stored sums."""
    hours: list[int] = []
    for table in _tables(query):
        reached = (
            select(table.c.hour_us).where(*_place(table, query, span)).order_by(table.c.hour_us).limit(1).offset(sums)
        )
        hours += (await connection.execute(reached)).scalars()
    return min(hours, default=None)


async def rows(
    connection: AsyncConnection, query: UsageQuery, span: Span, after: GroupKey | None, limit: int
) -> Sequence[UsageRow]:
    """The rows of a query by bucket and group."""
    found = union_all(*_parts(connection, query, span)).subquery()
    names = ["bucket_us", *_group_columns(query)]
    keys = [_letter_by_letter(connection, name, found.c[name]) for name in names]
    sums = [func.sum(found.c[name]).label(name) for name in _TOTALS]
    page = select(*(key.label(f"key_{name}") for key, name in zip(keys, names, strict=True)), *sums).group_by(*keys)
    if after is not None:
        page = page.where(tuple_(*keys) > tuple_(span.start_us, *_group_values(query, after)))
    page = page.having(or_(*(func.sum(found.c[name]) != 0 for name in Sums._fields)))
    answered = await connection.execute(page.order_by(*keys).limit(limit))
    return [_row(query, dict(zip(names, row, strict=False)), row[len(names) :]) for row in answered]


async def costs(connection: AsyncConnection, account_id: str, period_start_us: int, limit: int) -> CostItems:
    """A period by provider, model and credentials, the dearest first, and what is beyond the limit in one sum."""
    columns = USAGE_HOURS.c
    keys = [columns[name] for name in _COLUMNS.values()]
    added = [func.sum(value).label(value.name) for value in _added(USAGE_HOURS)]
    grouped = (
        select(*keys, *added)
        .where(
            columns.account_id == account_id,
            columns.hour_us >= hour_of(period_start_us),
            columns.period_start_us == period_start_us,
        )
        .group_by(*keys)
        .subquery()
    )
    found = grouped.c
    dearest = (found.cost_micro.desc(), found.committed.desc())
    names = [_letter_by_letter(connection, name, found[name]) for name in _COLUMNS.values()]
    rows = (await connection.execute(select(grouped).order_by(*dearest, *names).limit(limit + 1))).all()
    count = len(keys)
    items = [CostItem(row[0], row[1], int(row[2]), _totals(row[count:])) for row in rows[:limit]]
    if len(rows) <= limit:
        return CostItems(items, 0, Totals())
    everything = select(func.count(), *(func.sum(found[name]) for name in _TOTALS)).select_from(grouped)
    number, *sums = (await connection.execute(everything)).one()
    others = _totals(sums)
    for item in items:
        others = others.minus(item.totals)
    return CostItems(items, int(number) - limit, others)


def bucket_of(table: Table, granularity: Granularity) -> ColumnElement[Any]:
    """The start of the hour or day that a stored sum is in."""
    # Literal: of two parameters PostgreSQL does not see that what is selected is what is grouped by.
    length_us = HOUR_US if granularity is Granularity.HOUR else DAY_US
    return table.c.hour_us - table.c.hour_us % literal_column(str(length_us))


def _letter_by_letter(connection: AsyncConnection, name: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A key as SQLite compares it anyway, so that an order of pages is one for both and needs no locale."""
    is_text = name in _TEXTS and connection.dialect.name == "postgresql"
    return collate(column, "C") if is_text else column


def _month_of(connection: AsyncConnection, table: Table) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        return literal_column(
            f"CAST(strftime('%s', {table.name}.hour_us / 1000000, 'unixepoch', 'start of month') AS INTEGER) * 1000000"
        )
    return literal_column(
        f"CAST(extract(epoch FROM date_trunc('month', to_timestamp({table.name}.hour_us / 1000000) AT TIME ZONE 'UTC'))"
        " AS bigint) * 1000000"
    )


def _tables(query: UsageQuery) -> list[Table]:
    """Which sums a query by groups reads."""
    if not query.needs_labels:
        return [USAGE_HOURS]
    return [USAGE_LABELS] if query.label_value is not None else [USAGE_HOURS, USAGE_LABELS]


def _parts(connection: AsyncConnection, query: UsageQuery, span: Span) -> list[Select[Any]]:
    """The sums that a query's rows are made of."""
    if not query.needs_labels:
        return [_part(connection, USAGE_HOURS, query, span)]
    labelled = _part(connection, USAGE_LABELS, query, span, has_label=1)
    if query.label_value is not None:
        return [labelled]
    # Sessions without the label are all sessions but those with it.
    everything = _part(connection, USAGE_HOURS, query, span)
    return [labelled, everything, _part(connection, USAGE_LABELS, query, span, sign=-1)]


def _part(
    connection: AsyncConnection, table: Table, query: UsageQuery, span: Span, *, has_label: int = 0, sign: int = 1
) -> Select[Any]:
    by_month = query.granularity is Granularity.MONTH
    bucket = _month_of(connection, table) if by_month else bucket_of(table, query.granularity)
    columns: dict[str, ColumnElement[Any]] = {"bucket_us": bucket}
    for name in _group_columns(query):
        if name == "has_label":
            columns[name] = literal_column(str(has_label))
        elif name == "label_value":
            columns[name] = table.c.label_value if has_label else literal_column("''")
        else:
            columns[name] = table.c[name]
    keys = [column.label(name) for name, column in columns.items()]
    return select(*keys, *_added(table, sign)).where(*_place(table, query, span), *_filters(table, query))


def _added(table: Table, sign: int = 1) -> list[ColumnElement[Any]]:
    """What a stored sum adds to totals, or takes off."""
    values: dict[str, ColumnElement[Any]] = {
        "managed": _committed_as(table, CredentialMode.MANAGED),
        "byok": _committed_as(table, CredentialMode.BYOK),
        **{name: table.c[name] for name in Sums._fields},
    }
    return [(value if sign > 0 else -value).label(name) for name, value in values.items()]


def _committed_as(table: Table, mode: CredentialMode) -> ColumnElement[Any]:
    is_of_mode = table.c.credential_mode == literal_column(str(int(mode)))
    return case((is_of_mode, table.c.committed), else_=literal_column("0"))


def _place(table: Table, query: UsageQuery, span: Span) -> list[ColumnElement[bool]]:
    """Which sums are looked at, by what the table is ordered by."""
    columns = table.c
    place = [columns.account_id == query.account_id, columns.hour_us >= span.start_us, columns.hour_us < span.end_us]
    return [*place, columns.label_key == query.label_key] if table is USAGE_LABELS else place


def _filters(table: Table, query: UsageQuery) -> list[ColumnElement[bool]]:
    """Which of these are added up."""
    wanted = {
        "provider": query.provider or None,
        "model": query.model or None,
        "served_credential_mode": query.credential_mode or None,
        "label_value": query.label_value if table is USAGE_LABELS else None,
    }
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def _group_columns(query: UsageQuery) -> list[str]:
    """What rows of a bucket are told apart and ordered by; whether there is a label comes before what it is."""
    names = [name for dimension, name in _COLUMNS.items() if dimension in query.group_by]
    return [*names, "has_label", "label_value"] if Dimension.LABEL in query.group_by else names


def _group_values(query: UsageQuery, group: GroupKey) -> list[Any]:
    values = dict(zip(_GROUP_FIELDS, group, strict=True))
    values |= {"has_label": int(group.label_value is not None), "label_value": group.label_value or ""}
    return [values[name] for name in _group_columns(query)]


def _row(query: UsageQuery, key: dict[str, Any], sums: Sequence[Any]) -> UsageRow:
    if "has_label" in key and not key["has_label"]:
        key["label_value"] = None
    start_us = int(key["bucket_us"])
    group = GroupKey(*(key.get(name) for name in _GROUP_FIELDS))
    return UsageRow(start_us, bucket_end(query.granularity, start_us), group, _totals(sums))


def _totals(sums: Sequence[Any]) -> Totals:
    managed, byok, *others = map(int, sums)
    return Totals(managed, byok, Sums(*others))
