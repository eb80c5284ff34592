"""Databases for tests, and billing's: every test that takes `database_address` or `database` runs on each store."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Table, create_engine, delete, inspect, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.migrations.steps import MIGRATIONS
from services.billing.adapters.sql.database import Database, open_database
from services.shared.database.migrations import Migrations
from services.shared.database.store import SqlStore
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


def migrated(address: str, migrations: Migrations = MIGRATIONS) -> str:
    """The address of a database, whose schema is the current one now: billing's, unless told otherwise."""
    with connection_to(address) as connection:
        migrations.migrate(connection, "the database of a test")
    return address


# Fixtures are made by these, so that each service's databases come about in one way.


def template_of(migrations: Migrations) -> Any:
    """A fixture: the name of a PostgreSQL database with the current schema, for others to be copies of."""

    @pytest.fixture(scope="session")
    def template(postgres: Databases) -> Iterator[str]:
        with postgres.fresh() as address:
            yield postgres.name_of(migrated(address, migrations))

    return template


def copy_of(template: str) -> Any:
    """A fixture: the address of a PostgreSQL database that is a copy of what the fixture `template` names."""

    @pytest.fixture
    def copy(request: pytest.FixtureRequest, postgres: Databases) -> Iterator[str]:
        with postgres.fresh(request.getfixturevalue(template)) as address:
            yield address

    return copy


def file_template_of(migrations: Migrations) -> Any:
    """A fixture: a SQLite file with the current schema, for others to be copies of."""

    @pytest.fixture(scope="session")
    def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
        file = tmp_path_factory.mktemp("template") / "template.db"
        migrated(f"sqlite:///{file}", migrations)
        return file

    return template


def on_each_store(file: str, postgresql: str, file_template: str = "") -> Any:
    """A fixture: the address of a SQLite file, then the one that the fixture `postgresql` has.

    The file is a copy of the one that the fixture `file_template` has; without it, it is not there yet.
    """

    @pytest.fixture(params=STORES)
    def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
        if request.param == "postgresql":
            found: str = request.getfixturevalue(postgresql)
            return found
        if file_template:
            shutil.copyfile(request.getfixturevalue(file_template), tmp_path / file)
        return f"sqlite:///{tmp_path / file}"

    return address


billing_template = template_of(MIGRATIONS)
billing_file_template = file_template_of(MIGRATIONS)
billing_postgres = copy_of("billing_template")
empty = on_each_store("billing.db", "empty_postgres")
database_address = on_each_store("billing.db", "billing_postgres", "billing_file_template")


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    """An open store."""
    opened = await open_database(database_address)
    yield opened
    await opened.close()


async def emptied(connection: AsyncConnection, *tables: Table) -> None:
    """Deletes all rows of these tables, also of those whose triggers refuse it."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        guards: dict[str, str] = {}
    else:
        query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%BEFORE DELETE%'"
        guards = {row.name: row.sql for row in await connection.execute(text(query))}
    for name in guards:
        await connection.execute(text(f"DROP TRIGGER {name}"))
    for table in tables:
        await connection.execute(delete(table))
    for sql in guards.values():
        await connection.exec_driver_sql(sql)


async def waits_for_a_lock(database: SqlStore[Any]) -> bool:
    """Whether some transaction of this database waits for another's end."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.engine.begin() as connection:
        return bool((await connection.execute(text(query))).scalar_one())
