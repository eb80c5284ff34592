"""What SQLite and PostgreSQL both have and say alike, and SQLAlchemy spells by dialect."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction


def insert_unless_there(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that passes over rows whose key is there already; with `returning` it answers the new ones."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


async def append_many(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> int:
    """Inserts `rows`, values in the table's order of columns, unless they are there; answers how many were not.

    The driver gets them as they are: on both stores its executemany is several times as fast as statements that
    SQLAlchemy makes of them. Columns whose values need converting are not for it.
    """
    if not rows:
        return 0
    statement = _positional_insert(table, connection.dialect)
    return (await connection.exec_driver_sql(statement, list(rows))).rowcount


async def add_many(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Adds `rows` to a table of sums: what is no part of the key is added to what is there, or set where nothing is.

    Like `append_many` it leaves them to the driver. The rows' keys must differ.
    """
    if rows:
        await connection.exec_driver_sql(_positional_addition(table, connection.dialect), list(rows))


async def savepoint(connection: AsyncConnection) -> AsyncTransaction:
    """Begins a part of the transaction that can be undone alone."""
    if connection.dialect.name == "sqlite":
        raw = (await connection.get_raw_connection()).driver_connection
        # The driver begins a transaction at the first write, and takes a savepoint for none: released, it would commit.
        if raw is not None and not raw.in_transaction:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
    return await connection.begin_nested()


@cache
def _positional_insert(table: Table, dialect: Dialect) -> str:
    return f"{_insert(table, dialect)} ON CONFLICT DO NOTHING"


@cache
def _positional_addition(table: Table, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer
    keys = ", ".join(quote.format_column(column) for column in table.primary_key)
    name = quote.format_table(table)
    sums = [quote.format_column(column) for column in table.columns if not column.primary_key]
    additions = ", ".join(f"{column} = {name}.{column} + excluded.{column}" for column in sums)
    return f"{_insert(table, dialect)} ON CONFLICT ({keys}) DO UPDATE SET {additions}"


def _insert(table: Table, dialect: Dialect) -> str:
    mark = {"qmark": "?", "format": "%s", "pyformat": "%s"}[dialect.paramstyle]
    quote = dialect.identifier_preparer
    columns = ", ".join(quote.format_column(column) for column in table.columns)
    marks = ", ".join([mark] * len(table.columns))
    return f"INSERT INTO {quote.format_table(table)} ({columns}) VALUES ({marks})"  # noqa: S608  # names of ours
