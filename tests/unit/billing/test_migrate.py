"""The command that brings a schema to a revision, on both stores, with data in them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from services.billing.adapters.migrations.steps import MIGRATIONS
from services.billing.adapters.sql.database import open_database
from services.billing.adapters.sql.tables import ACCOUNTS
from services.billing.domain.invoices import Invoice, InvoiceKind, InvoiceState, StatedUsage
from services.billing.domain.ledger import PARTITIONS, LedgerEntry, PositionedEntry
from services.shared.database.command import bring_to
from services.shared.settings import StartupError
from tests.support.database import connection_to, read_rows
from tests.support.rollups import sums_of_ledger, sums_stored

EX_CONFIG = 78


async def go(address: str, target: str = "head", *, allow_loss: bool = False, check: bool = False) -> None:
    await bring_to(MIGRATIONS, address, target, allow_loss=allow_loss, check=check)


def entry(session_id: str) -> LedgerEntry:
    return LedgerEntry(
        "acct_x", session_id, 1, 1, 2, 1, 1, 2, 1, 2, "", "", 0, None, 7, None, None, None, True,
        0, 0, "", "", "{}", "{}", 1,
    )  # fmt: skip


async def test_up_and_down_with_data(empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    await go(empty)
    database = await open_database(empty)
    held = (await database.transact(lambda t: t.partitions.balance("replica", 1, 10))).leases
    moved = [held[7]._replace(cursor="c9", watermark_us=50, oldest_reserve_us=40)]
    assert await database.transact(lambda t: t.partitions.advance(moved, 99))
    await database.transact(lambda t: t.ledger.insert([PositionedEntry(7, "c9", entry("ses_1"))], 5))
    await database.close()
    strays = read_rows(empty, "stray_events")

    await go(empty, "0001", allow_loss=True)
    assert read_rows(empty, "stray_events") == strays
    await go(empty)
    row = read_rows(empty, "partition_cursors")[7]
    assert {"partition": 7, "cursor": "c9", "watermark_us": 50, "oldest_reserve_us": 40}.items() <= row.items()
    # Nobody holds what somebody held before: a new fence comes with the next one who takes it.
    assert (row["owner"], row["lease_end_us"]) == ("", 0)
    assert read_rows(empty, "stray_events") == strays
    said = capsys.readouterr().out
    assert "empty -> 0001" in said
    assert "0002 -> 0001: undone" in said

    await go(empty, "base", allow_loss=True)
    await go(empty)
    assert read_rows(empty, "stray_events") == []
    assert len(read_rows(empty, "partition_cursors")) == PARTITIONS


async def test_statements_from_before_their_days_were_kept_stay_without(empty: str) -> None:
    usage = StatedUsage(25, (3, 0))
    invoice = Invoice(
        "inv_1", "acct_1", "INV-1-00001", 1, InvoiceKind.USAGE_STATEMENT, InvoiceState.PAID, "sub_1", 1, 2, "", "Ada",
        "ada@example.org", (), 1, 0, usage,
    )  # fmt: skip
    await go(empty)
    database = await open_database(empty)
    await database.transact(lambda t: t.invoices.insert(invoice))
    assert await database.transact(lambda t: t.invoices.get("acct_1", "inv_1")) == invoice
    await database.close()

    await go(empty, "0005", allow_loss=True)
    await go(empty)
    with pytest.raises(DBAPIError, match="immutable"), connection_to(empty) as connection:
        connection.execute(text("UPDATE invoices SET usage = 'x'"))
    database = await open_database(empty)
    assert await database.transact(lambda t: t.invoices.get("acct_1", "inv_1")) == replace(invoice, usage=None)
    await database.close()


async def test_the_guards_of_the_ledger_come_and_go(empty: str) -> None:
    await go(empty)
    database = await open_database(empty)
    async with database.engine.begin() as connection:
        blank = {column.name: "" if column.type.python_type is str else 0 for column in ACCOUNTS.c}
        await connection.execute(insert(ACCOUNTS), blank | {"account_id": "acct_x"})
    await database.transact(lambda t: t.ledger.insert([PositionedEntry(7, "c9", entry("ses_1"))], 5))
    await database.close()
    changes = ("UPDATE ledger SET insert_us = 6", "DELETE FROM ledger")
    before = read_rows(empty)
    for statement in changes:
        with pytest.raises(DBAPIError, match="immutable"), connection_to(empty) as connection:
            connection.execute(text(statement))
    assert read_rows(empty) == before
    assert len(before) == 1

    await go(empty, "0008", allow_loss=True)
    for statement in changes:
        with connection_to(empty) as connection:
            connection.execute(text(statement))
    assert read_rows(empty) == []


async def test_a_second_time_changes_nothing(empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    await go(empty)
    capsys.readouterr()
    await go(empty)
    await go(empty, check=True)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "already at revision" in said[0]
    assert "is current" in said[1]


async def test_going_down_is_asked_for_twice(empty: str) -> None:
    await go(empty)
    with pytest.raises(StartupError, match="--allow-loss"):
        await go(empty, "0001")
    await go(empty, check=True)


async def test_an_unknown_revision_is_told_with_those_that_there_are(empty: str) -> None:
    with pytest.raises(StartupError, match=r"no revision 0815. There are: base, 0001"):
        await go(empty, "0815")


async def test_a_check_fails_where_the_schema_is_not_current(empty: str) -> None:
    with pytest.raises(StartupError, match="make migrate"):
        await go(empty, check=True)
    await go(empty, "0001")
    with pytest.raises(StartupError, match="make migrate"):
        await go(empty, check=True)


async def test_a_newer_schema_is_left_alone(empty: str) -> None:
    await go(empty)
    with connection_to(empty) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for check in (False, True):
        with pytest.raises(StartupError, match="newer version of billing"):
            await go(empty, check=check)


@pytest.mark.parametrize("revision", ["base", "0001"])
async def test_postgresql_is_not_served_with_a_schema_that_is_not_current(empty_postgres: str, revision: str) -> None:
    await go(empty_postgres, revision)
    with pytest.raises(StartupError, match="make migrate"):
        await open_database(empty_postgres)
    assert "reader_replicas" not in await tables_of(empty_postgres), "nothing was changed"
    await go(empty_postgres)
    await (await open_database(empty_postgres)).close()


async def tables_of(address: str) -> set[str]:
    with connection_to(address) as connection:
        query = text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        return set(connection.execute(query).scalars())


async def test_two_migrations_at_a_time_are_one_after_the_other(empty_postgres: str) -> None:
    await asyncio.gather(*(go(empty_postgres) for _ in range(3)))
    await go(empty_postgres, check=True)


async def test_a_postgresql_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    address = f"postgresql://user:hunter2@/none?host={tmp_path}"
    with pytest.raises(StartupError, match="cannot be reached") as raised:
        await go(address)
    assert "hunter2" not in str(raised.value)


def test_the_command_tells_a_mistake_in_one_sentence(tmp_path: Path) -> None:
    environment = {"FLOWSTACK_BILLING_DATABASE": f"sqlite:///{tmp_path}/b.db", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "services.billing.migrate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "now at revision" in done.stdout
    failed = subprocess.run([*command, "nonsense"], env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == EX_CONFIG
    assert failed.stderr.startswith("billing: There is no revision nonsense.")
    assert failed.stderr.count("\n") == 1


async def test_the_sums_of_a_ledger_that_is_there_are_made(empty: str) -> None:
    await go(empty)
    database = await open_database(empty)
    async with database.engine.begin() as connection:
        blank = {column.name: "" if column.type.python_type is str else 0 for column in ACCOUNTS.c}
        await connection.execute(insert(ACCOUNTS), blank | {"account_id": "acct_x"})
    entries = [
        entry(f"ses_{number}")._replace(
            event=1 + number % 3,
            reserve_us=number * 1_900_000_000,
            credential_mode=1 + number % 2,
            served_model=f"m{number % 3}",
            input_tokens=number or None,
            labels=('{"team":"a"}', '{"n":"\\\\u0000","team":"b\\u0000"}', '{"n":"\\"\\\\","team":"a"}', "{}")[
                number % 4
            ],
        )
        for number in range(30)
    ]
    positioned = [PositionedEntry(7, f"c{number}", one) for number, one in enumerate(entries)]
    await database.transact(lambda t: t.ledger.insert(positioned, 5))
    await database.close()
    for target in ("0003", "0006"):
        await go(empty, target, allow_loss=True)
        await go(empty)
        database = await open_database(empty)
        sums = await sums_stored(database)
        assert sums == await sums_of_ledger(database)
        assert len(sums["usage_hours"]) > 10
        assert {(key[1], key[3]) for key in sums["usage_labels"]} == {
            ("team", "a"),
            ("team", "b\ufffd"),
            ("n", "\\u0000"),
            ("n", '"\\'),
        }
        await database.close()
