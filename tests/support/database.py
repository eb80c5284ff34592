"""Billing's database for tests: every test that takes `database_address` or `database` runs on each store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, create_engine, inspect, make_url, text

from services.billing.adapters.migrations.steps import MIGRATIONS
from services.billing.adapters.sql.database import Database, open_database
from tests.support.postgres import Databases

STORES: Final = ("sqlite", "postgresql")


@contextmanager
def connection_to(address: str) -> Iterator[Connection]:
    """A connection for looking into a database, or at its schema; what is changed is committed at the block's end.

    A billing process keeps a SQLite file to itself: it has to have ended.
    """
    url = make_url(address)
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    engine = create_engine(url.set(drivername=driver))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def read_rows(address: str, table: str = "ledger") -> list[dict[str, Any]]:
    """All rows of a table, in the order of their columns."""
    with connection_to(address) as connection:
        rows = connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).mappings().all()
    return sorted((dict(row) for row in rows), key=lambda row: list(row.values())[:3])


def everything_in(address: str) -> bytes:
    """All that a database holds, as text; of SQLite also its files, with what was deleted in them."""
    with connection_to(address) as connection:
        tables = inspect(connection).get_table_names()
    content = repr({table: read_rows(address, table) for table in tables}).encode()
    url = make_url(address)
    if url.get_backend_name() == "sqlite":
        file = Path(str(url.database))
        content += b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    return content


def migrated(address: str) -> str:
    """The address of a database, whose schema is the current one now."""
    with connection_to(address) as connection:
        MIGRATIONS.migrate(connection, "the database of a test")
    return address


@pytest.fixture(scope="session")
def billing_template(postgres: Databases) -> Iterator[str]:
    """The name of a database with the current schema, for others to be copies of."""
    with postgres.fresh() as address:
        yield postgres.name_of(migrated(address))


@pytest.fixture
def billing_postgres(postgres: Databases, billing_template: str) -> Iterator[str]:
    """The address of a PostgreSQL database with the current schema."""
    with postgres.fresh(billing_template) as address:
        yield address


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'billing.db'}"
    address: str = request.getfixturevalue("empty_postgres")
    return address


@pytest.fixture(params=STORES)
def database_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that billing can open: a SQLite file that is not there yet, or PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'billing.db'}"
    address: str = request.getfixturevalue("billing_postgres")
    return address


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    """An open store."""
    opened = await open_database(database_address)
    yield opened
    await opened.close()
