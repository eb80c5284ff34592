"""How the vault's database is opened and migrated, and how long a query may look."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, inspect

from services.billing.adapters.migrations.steps import MIGRATIONS as MIGRATIONS_OF_BILLING
from services.shared.database.command import bring_to
from services.shared.database.connect import CONNECTIONS_MAX
from services.shared.errors import FlowStackError, Reason
from services.shared.settings import StartupError
from services.vault.adapters.migrations.steps import MIGRATIONS
from services.vault.adapters.sql.database import open_database
from services.vault.adapters.sql.tables import METADATA
from services.vault.adapters.sql.time_limit import Watch
from tests.support.clock import ManualClock
from tests.support.database import connection_to, read_rows, waits_for_a_lock
from tests.support.vault import ALICE
from tests.support.vault_books import VaultBooks


async def test_the_file_is_durable_and_owned(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'vault.db'}")
    async with database.engine.begin() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "locking_mode", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive", "foreign_keys": 1}
    with pytest.raises(StartupError, match="one vault process owns its file alone"):
        await open_database(f"sqlite:///{tmp_path / 'vault.db'}")
    await database.close()


@pytest.mark.parametrize("bad", ["mysql://x/y", "nonsense", "sqlite:///:memory:"])
async def test_an_address_of_another_kind_is_refused(bad: str) -> None:
    with pytest.raises(StartupError, match="FLOWSTACK_VAULT_DATABASE"):
        await open_database(bad)


def test_migrations_make_the_tables_that_the_code_knows(empty: str) -> None:
    with connection_to(empty) as connection:
        for _ in range(2):
            MIGRATIONS.migrate(connection, "m.db")
            inspect(connection).clear_cache()
            assert set(inspect(connection).get_table_names()) == {*METADATA.tables, "alembic_version"}
            differences = compare_metadata(MigrationContext.configure(connection), METADATA)
            # JSONB is written as text here, so that it has another type in the code.
            assert [one for one in differences if "body" not in repr(one)] == []
            command.downgrade(MIGRATIONS.config_for(connection), "base")


async def test_postgresql_is_not_served_until_the_schema_is_current(empty_postgres: str) -> None:
    with pytest.raises(StartupError, match="make migrate"):
        await open_database(empty_postgres)
    await asyncio.gather(
        *(bring_to(MIGRATIONS, empty_postgres, "head", allow_loss=False, check=False) for _ in range(2))
    )
    await (await open_database(empty_postgres)).close()


async def test_billings_database_is_not_taken_for_the_vaults(empty: str) -> None:
    with connection_to(empty) as connection:
        MIGRATIONS_OF_BILLING.migrate(connection, "the database of a test")
    with pytest.raises(StartupError, match="written by a newer version of vault"):
        await open_database(empty)


async def test_a_query_that_finds_no_end_is_ended_on_postgresql(vault_postgres: str) -> None:
    database = await open_database(vault_postgres, Watch(0.001))
    books = VaultBooks(database, ManualClock())
    long = '{"a":[' + ",".join(str(number) for number in range(2_000)) + "]}"
    for number in range(200):
        await books.store(ALICE, "c", f"k{number}", long)
    with pytest.raises(FlowStackError) as raised:
        await books.query(ALICE, "c", '{"$or":[{"a.1999":1},{"a.1998":2},{"a.1997":3}]}', ["a.1996"])
    assert raised.value.reason is Reason.CALL_TIME_LIMIT
    await books.store(ALICE, "c", "k", "{}")
    assert (await books.queries.list_collections(ALICE, 0, "")).collections[0].document_count == 201, "all else goes on"
    await database.close()


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_a_query_whose_caller_has_gone_is_ended_on_postgresql(vault_postgres: str) -> None:
    # A statement that waits for a lock without an end stands for one that looks through documents.
    database = await open_database(f"{vault_postgres}&options=-c%20lock_timeout%3D0", Watch(600))
    observer = await open_database(vault_postgres)
    books = VaultBooks(database, ManualClock())

    async def until_waiting(count: int) -> None:
        async with asyncio.timeout(30):
            found = None
            while found != count:
                async with observer.engine.begin() as watcher:
                    found = (await watcher.exec_driver_sql(WAITING)).scalar_one()

    async with observer.engine.begin() as locker:
        await locker.exec_driver_sql("LOCK TABLE documents")
        for _ in range(2):
            calls = [asyncio.create_task(books.query(ALICE, "c", "")) for _ in range(CONNECTIONS_MAX)]
            await until_waiting(CONNECTIONS_MAX)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert all(call.cancelled() for call in calls)
            await until_waiting(0)
    await asyncio.gather(*(books.store(ALICE, "c", f"k{number}", "{}") for number in range(2 * CONNECTIONS_MAX)))
    assert len(await books.query(ALICE, "c", "")) == 2 * CONNECTIONS_MAX
    await observer.close()
    await database.close()


async def test_what_writes_is_brought_to_its_end_whoever_has_gone(vault_postgres: str) -> None:
    database, observer = await open_database(vault_postgres), await open_database(vault_postgres)
    books = VaultBooks(database, ManualClock())
    async with observer.engine.begin() as locker:
        await locker.exec_driver_sql("LOCK TABLE documents")
        call = asyncio.create_task(books.store(ALICE, "c", "k", "{}"))
        async with asyncio.timeout(30):
            while not await waits_for_a_lock(observer):
                pass
        call.cancel()
        await asyncio.wait([call])
    await database.close()
    await observer.close()
    assert [row["key"] for row in read_rows(vault_postgres, "documents")] == ["k"]


COPIES = """
INSERT INTO documents (account_id, collection, key, version, create_us, update_us, expire_us, size_bytes, body, text)
SELECT account_id, collection, key || number, version, create_us, update_us, expire_us, size_bytes, body, text
FROM documents, generate_series(0, 2999) AS number
"""


@pytest.mark.parametrize("sort", ["n", "-n"])
async def test_postgresql_reads_an_index_in_order_whatever_it_thinks_of_the_filter(
    vault_postgres: str, sort: str
) -> None:
    database = await open_database(vault_postgres)
    books = VaultBooks(database, ManualClock())
    await books.store(ALICE, "c", "k", '{"n":1,"m":2}')
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(COPIES)
    await books.build_index(ALICE, "c", ("n",))
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("ANALYZE")
    plans: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "JOIN documents" in statement and not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in rows))

    event.listen(database.engine.sync_engine, "before_cursor_execute", explain)
    found = await books.query(ALICE, "c", '{"n":{"$gte":1},"m":2}', [sort], 1000)
    await database.close()
    assert found == ["k", *sorted(f"k{number}" for number in range(3000))]
    assert plans
    for plan in plans:
        assert "Index Scan using sort_entries_pkey" in plan.replace(" Backward", ""), plan
        assert "Index Scan using documents_pkey on documents" in plan, plan
        assert not re.search("Seq Scan|Hash|Bitmap|-> +Sort", plan), plan
