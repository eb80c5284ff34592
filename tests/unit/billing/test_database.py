"""How the database is opened, what it refuses, and what a transaction promises."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from services.billing.adapters.migrations.steps import MIGRATIONS
from services.billing.adapters.sql.database import Database, open_database
from services.billing.adapters.sql.tables import METADATA
from services.billing.domain.entitlements import Entitlement
from services.billing.domain.ledger import LedgerEntry, PositionedEntry
from services.billing.store import Transaction
from services.shared.database.migrations import Migrations
from services.shared.errors import FlowStackError
from services.shared.settings import StartupError
from tests.support.books import Books
from tests.support.clock import ManualClock
from tests.support.database import connection_to, read_rows, waits_for_a_lock


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'billing.db'}"


def entry(session_id: str, account_id: str = "acct_unknown", event: int = 1) -> LedgerEntry:
    return LedgerEntry(
        account_id, session_id, event, 1, 2, 1, 1, 2, 1, 2, "", "", 0, None, None, None, None, None, False,
        0, 0, "", "", "{}", "{}", 1,
    )  # fmt: skip


async def table_sizes(database: Database) -> dict[str, int]:
    async with database.engine.begin() as connection:
        return {
            name: (await connection.exec_driver_sql(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in ("ledger", "stray_events")
        }


async def test_the_file_is_durable_and_owned(tmp_path: Path) -> None:
    database = await open_database(address(tmp_path))
    async with database.engine.begin() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "locking_mode")
        }
    await database.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}


async def test_a_file_that_another_process_owns_is_refused(tmp_path: Path) -> None:
    owner = (
        "import asyncio, sys\n"
        "from services.billing.adapters.sql.database import open_database\n"
        "async def main():\n"
        "    database = await open_database(sys.argv[1])\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", owner, address(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StartupError, match="Another process has"):
            await open_database(address(tmp_path))
        process.communicate()
    await (await open_database(address(tmp_path))).close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    await (await open_database(address(tmp_path))).close()
    with closing(sqlite3.connect(tmp_path / "billing.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartupError, match="newer version of billing"):
        await open_database(address(tmp_path))


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "billing.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StartupError, match="cannot be used as billing's database"):
        await open_database(address(tmp_path))


@pytest.mark.parametrize("bad", ["mysql://x/y", "nonsense", "sqlite://", "sqlite:///:memory:"])
async def test_an_address_of_another_kind_is_refused(bad: str) -> None:
    with pytest.raises(StartupError, match="FLOWSTACK_BILLING_DATABASE"):
        await open_database(bad)


def test_migrations_make_the_tables_that_the_code_knows(empty: str) -> None:
    with connection_to(empty) as connection:
        MIGRATIONS.migrate(connection, "m.db")
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert MIGRATIONS.problem_of_schema(connection) == ""


def test_migrations_go_up_and_down(empty: str) -> None:
    with connection_to(empty) as connection:
        for _ in range(2):
            MIGRATIONS.migrate(connection, "m.db")
            assert set(inspect(connection).get_table_names()) >= set(METADATA.tables)
            command.downgrade(MIGRATIONS.config_for(connection), "base")
            inspect(connection).clear_cache()
            assert set(inspect(connection).get_table_names()) == {"alembic_version"}


def test_a_shared_database_is_not_served_until_it_is_current(empty: str) -> None:
    with connection_to(empty) as connection:
        assert "make migrate" in MIGRATIONS.problem_of_schema(connection)
        MIGRATIONS.migrate(connection, "m.db")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        assert "newer version" in MIGRATIONS.problem_of_schema(connection)


def test_no_unique_key_can_hold_null() -> None:
    # A unique index over a NULL column stops nothing.
    nullable = [
        f"{table.name}.{column.name}"
        for table in METADATA.tables.values()
        for columns in (table.primary_key.columns, *(index.columns for index in table.indexes if index.unique))
        for column in columns
        if column.nullable
    ]
    assert nullable == []


async def test_only_what_is_new_is_inserted(database: Database) -> None:
    batch = [PositionedEntry(1, f"c{number}", entry(f"ses_{number % 3}")) for number in range(9)]
    for _ in range(2):
        inserted = await database.transact(lambda transaction: transaction.ledger.insert(batch, 1))
        assert inserted.unknown_accounts == {"acct_unknown"}
    assert (await table_sizes(database))["stray_events"] == 3


async def test_the_ledger_takes_a_large_batch(database: Database) -> None:
    batch = [PositionedEntry(1, "c", entry(f"ses_{number:05}", f"acct_{number % 700}")) for number in range(3_000)]
    await database.transact(lambda transaction: transaction.ledger.insert(batch, 1))
    assert (await table_sizes(database))["stray_events"] == 3_000


async def test_a_cancelled_caller_leaves_a_whole_transaction(database: Database, database_address: str) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(transaction: Transaction) -> None:
        begun.set()
        await go_on.wait()
        await transaction.ledger.insert([PositionedEntry(1, "c", entry("ses_1"))], 1)

    caller = asyncio.create_task(database.transact(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await database.close()
    assert len(read_rows(database_address, "stray_events")) == 1


async def test_a_repeated_request_gets_its_answer_and_another_content_is_refused(database: Database) -> None:
    async def first(transaction: Transaction) -> None:
        assert await transaction.requests.begin("M", "acct_1", "r", "content", 1) is None
        await transaction.requests.finish("M", "acct_1", "r", "answer")

    await database.transact(first)
    assert await database.transact(lambda t: t.requests.begin("M", "acct_1", "r", "content", 2)) == "answer"
    # Method and scope are part of what a request_id is unique in.
    assert await database.transact(lambda t: t.requests.begin("M", "acct_2", "r", "content", 2)) is None
    assert await database.transact(lambda t: t.requests.begin("N", "acct_1", "r", "other", 2)) is None
    with pytest.raises(FlowStackError, match="other content"):
        await database.transact(lambda t: t.requests.begin("M", "acct_1", "r", "other", 2))


async def test_a_newer_entitlement_is_not_marked_by_an_older_answer(database: Database) -> None:
    def entitlement(revision: int) -> Entitlement:
        return Entitlement("acct_1", revision, "sub_1", 1, (), 0, None)

    await database.transact(lambda t: t.entitlements.put(entitlement(1), 10))
    await database.transact(lambda t: t.entitlements.put(entitlement(2), 20))
    await database.transact(lambda t: t.entitlements.mark_applied("acct_1", 1, 30))
    pending = await database.transact(lambda t: t.entitlements.find_pending("acct_1"))
    assert pending is not None
    assert pending.entitlement.revision == 2
    await database.transact(lambda t: t.entitlements.mark_failed("acct_1", 2, 99))
    assert await database.transact(lambda t: t.entitlements.due(98, 10)) == []
    assert await database.transact(lambda t: t.entitlements.next_due_us()) == 99
    await database.transact(lambda t: t.entitlements.mark_applied("acct_1", 2, 100))
    assert await database.transact(lambda t: t.entitlements.next_due_us()) is None
    with pytest.raises(Exception, match=r"(?i)unique"):
        await database.transact(lambda t: t.entitlements.put(entitlement(2), 110))


async def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate = Migrations.migrate

    def fail_halfway(migrations: Migrations, connection: Connection, name: str) -> None:
        migrate(migrations, connection, name)
        raise RuntimeError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr("services.shared.database.migrations.Migrations.migrate", fail_halfway)
        with pytest.raises(RuntimeError):
            await open_database(address(tmp_path))
    with closing(sqlite3.connect(tmp_path / "billing.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []


async def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot be made"):
        await open_database(f"sqlite:///{tmp_path}/file/billing.db")


async def test_who_waits_for_an_account_gets_it_with_the_subscription_that_it_has_then(database: Database) -> None:
    account_id = await Books(database, ManualClock()).open_account("free")
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def begin_another(transaction: Transaction) -> None:
        account = await transaction.accounts.lock(account_id)
        subscription = await transaction.subscriptions.get(account.subscription_id)
        terms = replace(subscription.terms, plan_id="hobbyist")
        await transaction.subscriptions.insert(replace(subscription, subscription_id="sub_2", terms=terms))
        await transaction.accounts.update(replace(account, subscription_id="sub_2", plan_id="hobbyist"))
        locked.set()
        await go_on.wait()

    beginning = asyncio.create_task(database.transact(begin_another))
    await locked.wait()
    waiting = asyncio.create_task(database.transact(lambda transaction: transaction.accounts.lock(account_id)))
    while database.shared and not waiting.done() and not await waits_for_a_lock(database):
        pass
    go_on.set()
    await beginning
    account = await waiting
    assert (account.subscription_id, account.plan_id) == ("sub_2", "hobbyist")
