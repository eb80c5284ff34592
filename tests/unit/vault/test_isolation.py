"""Two accounts in the vault never meet, whatever is asked; and what tests that finds the defects that are planted."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError, MultipleResultsFound

from services.vault.adapters.sql.database import Database, open_database
from tests.support.clock import ManualClock
from tests.support.vault_books import VaultBooks
from tests.support.vault_model import accounts_stay_apart
from tests.support.vault_planted import MUTANTS

SETTINGS = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
SEEDS_MAX = 20
# An answer that is wrong, one that should have been an error, or what the store's own checks make of it.
FOUND = (AssertionError, pytest.fail.Exception, KeyError, MultipleResultsFound, IntegrityError)


@pytest.mark.parametrize("is_indexed", [False, True])
@SETTINGS
@given(random=st.randoms(use_true_random=False))
async def test_accounts_stay_apart(vault_database: Database, is_indexed: bool, random: Random) -> None:
    clock = ManualClock()
    await accounts_stay_apart(VaultBooks(vault_database, clock), clock, random, is_indexed=is_indexed)


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_defect_is_found(tmp_path: Path, name: str) -> None:
    await find(f"sqlite:///{tmp_path / 'vault.db'}", name)


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_defect_is_found_on_postgresql(vault_postgres: str, name: str) -> None:
    await find(vault_postgres, name)


async def find(address: str, name: str) -> None:
    clock = ManualClock()
    database = await open_database(address)
    books = VaultBooks(database, clock)
    try:
        with MUTANTS[name](database):
            for seed in range(SEEDS_MAX):
                try:
                    await accounts_stay_apart(books, clock, Random(seed), is_indexed=bool(seed % 2))
                except FOUND:
                    return
    finally:
        await database.close()
    raise AssertionError(f"{name} was not found in {SEEDS_MAX} seeds")
