from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from services.router.providers.port import Provider
from tests.support.aimock import aimock
from tests.support.dialects import DIALECTS, Dialect
from tests.support.fault_server import FaultServer, fault_server
from tests.support.ministack import ministack


@pytest.fixture(scope="session")
def aimock_url() -> Iterator[str]:
    with aimock() as url:
        yield url.removesuffix("/v1")


@pytest.fixture(scope="session")
def ministack_url(aimock_url: str) -> Iterator[str]:
    with ministack(aimock_url) as url:
        yield url


@pytest.fixture(params=list(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Each provider in turn; a test of one alone parametrises it."""
    return DIALECTS[request.param]


@pytest.fixture
async def server(dialect: Dialect) -> AsyncIterator[FaultServer]:
    async with fault_server(dialect) as running:
        yield running


@pytest.fixture
async def provider(dialect: Dialect, server: FaultServer) -> AsyncIterator[Provider]:
    provider = dialect.provider(server.root)
    yield provider
    await provider.aclose()
