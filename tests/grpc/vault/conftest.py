"""Fixtures: a vault on a fresh database of each kind, with a billing that knows every key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from services.shared.clock import SystemClock
from tests.support.clock import ManualClock
from tests.support.threads import in_thread
from tests.support.vault import (
    ALICE,
    BOB,
    FakeBilling,
    VaultClient,
    VaultUnderTest,
    fake_billing,
    settings_for,
    vault,
    whole_vault,
)


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


# pytest-grpc's fixtures, pointed at the real server: `grpc_channel` and `grpc_stub` are a blocking client of it, as
# another team's would be. Its own server runs servicers without a loop.


@pytest.fixture(scope="module")
def grpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FakeBilling]]:
    folder = tmp_path_factory.mktemp("vault")
    with in_thread(lambda: whole_vault(folder, SystemClock())) as running:
        yield running


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: tuple[str, FakeBilling]) -> str:
    return grpc_server[0]


@pytest.fixture(scope="module")
def grpc_create_channel(grpc_addr: str) -> Callable[..., grpc.Channel]:
    def create(credentials: grpc.ChannelCredentials | None = None, options: Any = None) -> grpc.Channel:
        assert credentials is None, "the server speaks plaintext"
        return grpc.insecure_channel(grpc_addr, options)

    return create


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type:
    return VaultServiceStub
