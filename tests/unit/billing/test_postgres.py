"""The server that the tests run: what it promises them."""

from __future__ import annotations

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
