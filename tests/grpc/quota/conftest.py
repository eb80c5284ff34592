"""A real quota server on a free port: in this loop for aio clients, in a thread for blocking ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2_grpc

from tests.grpc.quota.wire import entitlement_request
from tests.support.clock import ManualClock
from tests.support.quota import CREDENTIALS, QuotaServer, new_session_id, quota_server, quota_server_in_thread


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[QuotaServer]:
    async with quota_server(tmp_path, clock) as running:
        yield running


@pytest.fixture
async def channel(server: QuotaServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.address) as opened:
        yield opened


class Client:
    """The service's methods with the internal token and a deadline on each call."""

    def __init__(self, channel: grpc.aio.Channel, clock: ManualClock) -> None:
        self._stub = quota_service_pb2_grpc.QuotaServiceStub(channel)
        self._clock = clock

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self._stub, method)
        return lambda request=None: call(request, metadata=CREDENTIALS, timeout=30)

    def new_id(self) -> str:
        """A session id made now."""
        return new_session_id(self._clock)


@pytest.fixture
async def quota(channel: grpc.aio.Channel, clock: ManualClock) -> Client:
    """A client of a server on which ACCOUNT may run 10 sessions a month."""
    client = Client(channel, clock)
    await client.PutEntitlement(entitlement_request())
    return client


# pytest-grpc's fixtures, pointed at the real server: `grpc_channel` and `grpc_stub` are a blocking client of it, as
# another team's would be. Its own server runs servicers without a loop.


@pytest.fixture(scope="module")
def grpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuotaServer]:
    with quota_server_in_thread(tmp_path_factory.mktemp("quota")) as running:
        yield running


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: QuotaServer) -> str:
    return grpc_server.address


@pytest.fixture(scope="module")
def grpc_create_channel(grpc_addr: str) -> Callable[..., grpc.Channel]:
    def create(credentials: grpc.ChannelCredentials | None = None, options: Any = None) -> grpc.Channel:
        assert credentials is None, "the server speaks plaintext"
        return grpc.insecure_channel(grpc_addr, options)

    return create


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type:
    return quota_service_pb2_grpc.QuotaServiceStub
