from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.grpc.router.harness import RouterUnderTest, running_router
from tests.grpc.router.process import process_settings
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


@pytest.fixture
async def settings(quota: FakeQuota, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    async with process_settings(quota, tmp_path) as variables:
        yield variables
