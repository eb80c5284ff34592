"""All services, started once for the tests that change none of their settings."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.go_programs import GRPCURL
from tests.support.suite import Suite, running_suite


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """All services on echo, with short leases and no hold of expiry."""
    async with running_suite(
        tmp_path_factory.mktemp("suite"),
        FLOWSTACK_SESSION_TIME_LIMIT_SECONDS="5",
        FLOWSTACK_LEASE_SECONDS="35",
        FLOWSTACK_EXPIRY_HOLD_SECONDS="0",
    ) as running:
        yield running


@pytest.fixture(scope="session")
def grpcurl() -> str:
    """The program grpcurl. Skips where it is not installed and there is no Go to build it; in CI that fails."""
    found = GRPCURL.find()
    if found is None:
        message = "grpcurl is not installed, and there is no Go to build it."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs these tests in the loop of the session's fixture."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
