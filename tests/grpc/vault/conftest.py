"""Fixtures: a vault on a fresh database of each kind, with a billing that knows every key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.clock import ManualClock
from tests.support.vault import ALICE, BOB, VaultClient, VaultUnderTest, fake_billing, settings_for, vault


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def service(tmp_path: Path, vault_address: str, clock: ManualClock) -> AsyncIterator[VaultUnderTest]:
    async with fake_billing() as (billing, address):
        settings = settings_for(tmp_path, address, vault_database=vault_address)
        async with vault(settings, clock, billing) as running:
            yield running


@pytest.fixture
def alice(service: VaultUnderTest) -> VaultClient:
    return service.customer(ALICE)


@pytest.fixture
def bob(service: VaultUnderTest) -> VaultClient:
    return service.customer(BOB)
