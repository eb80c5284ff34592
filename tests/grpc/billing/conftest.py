"""Fixtures: a quota that billing reads, and billing on a fresh database of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.billing.config import BillingSettings
from tests.support.billing import BillingUnderTest, Customer, billing, settings_for
from tests.support.clock import ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def quota(clock: ManualClock) -> AsyncIterator[FakeQuotaEvents]:
    fake = FakeQuotaEvents(clock.now_us)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def settings(tmp_path: Path, quota: FakeQuotaEvents, database_address: str) -> BillingSettings:
    """Of a billing service on each store in turn."""
    return settings_for(tmp_path, quota.address, billing_database=database_address)


@pytest.fixture
async def service(settings: BillingSettings, clock: ManualClock) -> AsyncIterator[BillingUnderTest]:
    async with billing(settings, clock) as running:
        yield running


@pytest.fixture
async def customer(service: BillingUnderTest) -> Customer:
    return await service.new_customer("starter")
