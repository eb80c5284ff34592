"""What SQLite and PostgreSQL both have and say alike, and SQLAlchemy spells by dialect."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, TypeVar

import psycopg
from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

KEYS_AT_ONCE: Final = 300
"""How many keys one query asks for: up to three parameters each, and older SQLite takes 999."""

T = TypeVar("T")


def in_portions(items: Collection[T]) -> Iterator[list[T]]:
    """The items, as many at a time as one query may ask for."""
    left = iter(items)
    while some := list(islice(left, KEYS_AT_ONCE)):
        yield some


def insert_unless_there(
    connection: AsyncConnection, table: Table, key: Sequence[str] | None = None
) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that passes over rows whose key is there already; with `returning` it answers the new ones.

    Args:
        connection: to which database.
        table: into which table.
        key: the columns of the key that may be there; any of the table's where it is None.
    """
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=key)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=key)


async def append_many(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> int:
    """Inserts `rows`, values in the table's order of columns, unless they are there; answers how many were not.

    The driver gets them as they are: on both stores its executemany is several times as fast as statements that
    SQLAlchemy makes of them. Columns whose values need converting are not for it.
    """
    if not rows:
        return 0
    statement = _positional_insert(table, connection.dialect)
    return (await connection.exec_driver_sql(statement, list(rows))).rowcount


async def append_all(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Inserts `rows`, values in the table's order of columns, where none of them is there or twice among them.

    False where one is: then nothing was inserted. PostgreSQL takes them by COPY, half the cost of its executemany.
    """
    attempt = await savepoint(connection)
    if connection.dialect.name == "postgresql":
        done = await _copied(connection, table, rows)
    else:
        done = await append_many(connection, table, rows) == len(rows)
    await (attempt.commit() if done else attempt.rollback())
    return done


async def add_many(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Adds `rows` to a table of sums: what is no part of the key is added to what is there, or set where nothing is.

    Like `append_many` it leaves them to the driver. The rows' keys must differ.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        # One statement for all: its executemany is one for each.
        columns = tuple(map(list, zip(*rows, strict=True)))
        await connection.exec_driver_sql(_addition_of_columns(table, connection.dialect), columns)
    else:
        await connection.exec_driver_sql(_positional_addition(table, connection.dialect), list(rows))


async def savepoint(connection: AsyncConnection) -> AsyncTransaction:
    """Begins a part of the transaction that can be undone alone."""
    if connection.dialect.name == "sqlite":
        raw = (await connection.get_raw_connection()).driver_connection
        # The driver begins a transaction at the first write, and takes a savepoint for none: released, it would commit.
        if raw is not None and not raw.in_transaction:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
    return await connection.begin_nested()


async def _copied(connection: AsyncConnection, table: Table, rows: Sequence[tuple[Any, ...]]) -> bool:
    raw = (await connection.get_raw_connection()).driver_connection
    assert isinstance(raw, psycopg.AsyncConnection)
    statement = _copy(table, connection.dialect)
    try:
        async with raw.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                await copy.write_row(row)
    except psycopg.errors.UniqueViolation:
        return False
    except psycopg.Error as error:
        # As SQLAlchemy raises what comes of statements that go through it.
        raise DBAPIError.instance(statement, None, error, psycopg.Error, dialect=connection.dialect) from error
    return True


@cache
def _positional_insert(table: Table, dialect: Dialect) -> str:
    return f"{_insert(table, dialect)} ON CONFLICT DO NOTHING"


@cache
def _positional_addition(table: Table, dialect: Dialect) -> str:
    return f"{_insert(table, dialect)} {_on_conflict_add(table, dialect)}"


@cache
def _addition_of_columns(table: Table, dialect: Dialect) -> str:
    arrays = ", ".join(f"%s::{column.type.compile(dialect)}[]" for column in table.columns)
    name, columns = _names(table, dialect)
    rows = f"SELECT * FROM unnest({arrays})"  # noqa: S608  # names of ours
    return f"INSERT INTO {name} ({columns}) {rows} {_on_conflict_add(table, dialect)}"


def _on_conflict_add(table: Table, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer
    keys = ", ".join(quote.format_column(column) for column in table.primary_key)
    name = quote.format_table(table)
    sums = [quote.format_column(column) for column in table.columns if not column.primary_key]
    additions = ", ".join(f"{column} = {name}.{column} + excluded.{column}" for column in sums)
    return f"ON CONFLICT ({keys}) DO UPDATE SET {additions}"


def _insert(table: Table, dialect: Dialect) -> str:
    mark = {"qmark": "?", "format": "%s", "pyformat": "%s"}[dialect.paramstyle]
    name, columns = _names(table, dialect)
    marks = ", ".join([mark] * len(table.columns))
    return f"INSERT INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608  # names of ours


@cache
def _copy(table: Table, dialect: Dialect) -> str:
    name, columns = _names(table, dialect)
    return f"COPY {name} ({columns}) FROM STDIN"


def _names(table: Table, dialect: Dialect) -> tuple[str, str]:
    """A table's name and those of its columns, as SQL has them."""
    quote = dialect.identifier_preparer
    return quote.format_table(table), ", ".join(quote.format_column(column) for column in table.columns)
