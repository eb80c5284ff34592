from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.aimock import aimock
from tests.support.fault_server import FaultServer, fault_server


@pytest.fixture(scope="session")
def aimock_url() -> Iterator[str]:
    with aimock() as url:
        yield url


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with fault_server() as running:
        yield running
