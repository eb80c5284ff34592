"""The SQLite file: what is asserted before it is used, and what is refused with a sentence."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from services.quota.adapters.sqlite import SqliteStore
from services.shared.process import EXIT_STARTUP_FAILED
from services.shared.settings import StartupError
from tests.support.clock import ManualClock
from tests.support.quota import HOLD_US, entitlement, sqlite_store

ROOT = Path(__file__).parents[3]


async def refusal(path: Path) -> str:
    with pytest.raises(StartupError) as caught:
        SqliteStore.open(path, ManualClock(), HOLD_US)
    return str(caught.value)


def start_service(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Starts the service on `path`; it is expected to refuse."""
    environment = os.environ | {
        "FLOWSTACK_QUOTA_STORE": f"sqlite:///{path}",
        "FLOWSTACK_QUOTA_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
        "FLOWSTACK_DATA_DIR": str(folder),
    }
    command = [sys.executable, "-m", "services.quota"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


async def test_durability_is_what_the_connection_really_has(tmp_path: Path) -> None:
    async with sqlite_store(tmp_path / "quota.db", ManualClock()) as store:
        await store.put_entitlement(entitlement())
        pragma = {
            name: store._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "locking_mode")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}


async def test_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "quota.db"
    async with sqlite_store(path, ManualClock()):
        assert path.exists()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    async with sqlite_store(path, ManualClock()) as store:
        ended = start_service(path, tmp_path)
        assert ended.returncode == EXIT_STARTUP_FAILED, ended.stderr
        assert f"quota: Another process has {path} open." in ended.stderr
        assert "FLOWSTACK_QUOTA_STORE" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert await store.put_entitlement(entitlement()) == entitlement(), "the owner is untouched"


async def test_a_second_store_of_the_same_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    async with sqlite_store(path, ManualClock()):
        assert "Another process has" in await refusal(path)


async def test_a_file_that_was_let_go_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    async with sqlite_store(path, ManualClock()) as store:
        await store.put_entitlement(entitlement())
    async with sqlite_store(path, ManualClock()) as store:
        assert await store.entitlement(entitlement().account_id) == entitlement()


async def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    async with sqlite_store(path, ManualClock()):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    sentence = await refusal(path)
    assert "newer version" in sentence
    assert "schema 99" in sentence
    ended = start_service(path, tmp_path)
    assert ended.returncode == EXIT_STARTUP_FAILED
    assert "Traceback" not in ended.stderr
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    connection.close()


async def test_a_garbage_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "quota.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at\n" * 100)
    before = path.read_bytes()
    assert f"{path} cannot be used as quota's database" in await refusal(path)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "billing.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE invoices (number INTEGER)")
    connection.commit()
    assert str(path) in await refusal(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    connection.close()


async def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} cannot be used as quota's database" in await refusal(tmp_path)


async def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used as quota's database" in await refusal(tmp_path / "file" / "quota.db")
