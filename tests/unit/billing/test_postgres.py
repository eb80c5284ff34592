"""The server that the tests run: what it promises them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.postgres import Databases, running_server


def count(address: str) -> int:
    with psycopg.connect(address) as connection:
        (number,) = connection.execute("SELECT count(*) FROM kept").fetchone() or (0,)
    return int(number)


def test_every_test_has_a_database_of_its_own(postgres: Databases) -> None:
    with postgres.fresh() as first, postgres.fresh() as second:
        with psycopg.connect(first) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            count(second)
        assert count(first) == 0


def test_what_was_committed_survives_a_kill() -> None:
    with running_server() as server:
        address = server.address()
        connection = psycopg.connect(address, autocommit=True)
        connection.execute("CREATE TABLE kept (number int)")
        for round_number in range(2):
            connection.execute("INSERT INTO kept VALUES (1)")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("INSERT INTO kept VALUES (2)")
            server.start()
            assert count(address) == round_number + 1
            connection = psycopg.connect(address, autocommit=True)
        connection.close()


def test_it_outlives_the_thread_that_started_it() -> None:
    with running_server() as server:
        server.stop()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        with psycopg.connect(server.address(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        assert count(server.address()) == 0


HOLDER = """
import sys
from tests.support.postgres import running_server
with running_server() as server:
    print(server.folder, flush=True)
    sys.stdin.read()
"""


def test_it_ends_with_a_test_process_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        try:
            processes = psutil.Process(holder.pid).children(recursive=True)
            assert any(process.name() == "postgres" for process in processes)
            holder.kill()
            _, alive = psutil.wait_procs(processes, timeout=60)
            assert alive == []
        finally:
            shutil.rmtree(folder)


def test_one_that_cannot_start_says_why_and_leaves_nothing() -> None:
    with pytest.raises(AssertionError, match="invalid value for parameter"), running_server(max_connections="no"):
        pass
