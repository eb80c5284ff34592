from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.grpc.router.harness import RouterUnderTest, running_router
from tests.support.fake_quota import FakeQuota, quota_server
from tests.support.fault_server import FaultServer, fault_server


@pytest.fixture
async def quota() -> AsyncIterator[FakeQuota]:
    async with quota_server() as fake:
        yield fake


@pytest.fixture
async def upstream() -> AsyncIterator[FaultServer]:
    async with fault_server() as server:
        yield server


@pytest.fixture
async def router(quota: FakeQuota, upstream: FaultServer) -> AsyncIterator[RouterUnderTest]:
    async with running_router(quota, upstream) as running:
        yield running
