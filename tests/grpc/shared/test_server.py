"""What every server does around a method: errors, limits, policies, reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc as pb_grpc
from grpc_reflection.v1alpha import reflection_pb2

from services.quota.servicer import POLICIES
from services.shared.auth import Authenticator, Policy
from services.shared.errors import Reason
from services.shared.interceptor import UNARY_SECONDS_MAX, RpcInterceptor
from services.shared.secret import Secret
from services.shared.server import Port, Registration, ServiceHost
from services.shared.settings import CommonSettings, StartupError
from tests.support.billing import bearer, failure_of

TOKEN = "token-of-the-tests"
CREDENTIALS = bearer(TOKEN)
PLANTED = "planted-text-that-nobody-may-see"
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["QuotaService"]
NAME = DESCRIPTOR.full_name
ACCOUNT = "acct_1"


class Servicer(pb_grpc.QuotaServiceServicer):
    """Fails, waits or is not there, by method."""

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Any) -> pb.GetQuotaResponse:
        raise ValueError(PLANTED)

    async def WatchQuota(self, request: pb.WatchQuotaRequest, context: Any) -> AsyncIterator[pb.WatchQuotaResponse]:
        yield pb.WatchQuotaResponse()
        raise ValueError(PLANTED)

    async def GetEntitlement(self, request: pb.GetEntitlementRequest, context: Any) -> pb.GetEntitlementResponse:
        await asyncio.Event().wait()
        raise AssertionError("waits for ever")

    async def PutEntitlement(self, request: pb.PutEntitlementRequest, context: Any) -> pb.PutEntitlementResponse:
        raise AssertionError("the tests send nothing valid")

    async def AcknowledgeSessionEvents(
        self, request: pb.AcknowledgeSessionEventsRequest, context: Any
    ) -> pb.AcknowledgeSessionEventsResponse:
        for _ in range(100):
            await asyncio.sleep(0)
        return pb.AcknowledgeSessionEventsResponse()


def authenticator(policies: Mapping[str, Policy]) -> Authenticator:
    return Authenticator(policies, internal_tokens=(Secret(TOKEN),))


def host_of(folder: Path, policies: Mapping[str, Policy] = POLICIES, **settings: Any) -> ServiceHost:
    registration = Registration(DESCRIPTOR, pb_grpc.add_QuotaServiceServicer_to_server, Servicer(), policies)
    port = Port("127.0.0.1:0", "FLOWSTACK_QUOTA_ADDRESS", [registration], authenticator, internal=True)
    return ServiceHost("quota", CommonSettings(data_dir=folder, admin_port_base=0, **settings), [port])


@asynccontextmanager
async def serving(host: ServiceHost) -> AsyncIterator[grpc.aio.Channel]:
    await host.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{host.bound_ports[0]}") as channel:
            yield channel
    finally:
        await host.drain(0)


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with serving(host_of(tmp_path)) as opened:
        yield opened


async def test_an_exception_tells_a_client_nothing(channel: grpc.aio.Channel) -> None:
    stub: Any = pb_grpc.QuotaServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT), metadata=CREDENTIALS)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert PLANTED not in repr(caught.value)
    assert PLANTED not in repr(caught.value.trailing_metadata())

    call = stub.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT), metadata=CREDENTIALS)
    await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert PLANTED not in repr(caught.value) + repr(caught.value.trailing_metadata())


async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel) -> None:
    for method in (f"/{NAME}/Nothing", "/flowstack.nothing.v1.Nothing/Nothing", "/"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"", metadata=CREDENTIALS)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_that_is_declared_only_says_so(channel: grpc.aio.Channel) -> None:
    stub: Any = pb_grpc.QuotaServiceStub(channel)
    session_id = f"ses_{'0' * 12}7{'0' * 3}8{'0' * 15}"
    calls = [
        stub.GetSession(pb.GetSessionRequest(account_id=ACCOUNT, session_id=session_id), metadata=CREDENTIALS),
        stub.ReadSessionEvents(
            pb.ReadSessionEventsRequest(positions=[pb.PartitionPosition(partition=1)]), metadata=CREDENTIALS
        ),
        stub.ExecuteCommands(metadata=CREDENTIALS),
    ]
    for call in calls:
        code, error = await failure_of(call)
        assert (code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, Reason.METHOD_NOT_AVAILABLE)


@pytest.mark.parametrize("changed", ["one policy less", "one policy too many"])
async def test_a_server_whose_policies_are_not_those_of_its_methods_does_not_start(
    tmp_path: Path, changed: str
) -> None:
    policies = dict(POLICIES)
    if changed == "one policy less":
        del policies["GetQuota"]
    else:
        policies["Nothing"] = Policy.OPEN
    host = host_of(tmp_path, policies)
    with pytest.raises(StartupError, match="GetQuota" if changed == "one policy less" else "Nothing"):
        await host.start()
    await host.drain(0)


@asynccontextmanager
async def intercepted(policies: Mapping[str, Policy], **limits: float) -> AsyncIterator[Any]:
    """The servicer behind an interceptor alone."""
    server = grpc.aio.server()
    guarded: Any = RpcInterceptor(server, authenticator(policies), **limits)
    pb_grpc.add_QuotaServiceServicer_to_server(Servicer(), guarded)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
            yield pb_grpc.QuotaServiceStub(opened)
    finally:
        await server.stop(0)


FULL = {f"/{NAME}/{name}": policy for name, policy in POLICIES.items()}


async def test_a_method_without_a_policy_is_refused_whoever_calls() -> None:
    without = {name: policy for name, policy in FULL.items() if not name.endswith("/GetQuota")}
    async with intercepted(without) as stub:
        code, error = await failure_of(stub.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT), metadata=CREDENTIALS))
    assert (code, error.reason) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL)
    assert "policy" in error.message


async def test_a_call_without_a_deadline_gets_one() -> None:
    assert UNARY_SECONDS_MAX == 30
    async with intercepted(FULL, unary_s_max=0.01) as stub:
        request = pb.GetEntitlementRequest(account_id=ACCOUNT)
        code, error = await failure_of(stub.GetEntitlement(request, metadata=CREDENTIALS))
    assert (code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.CALL_TIME_LIMIT)


async def test_a_call_with_a_deadline_keeps_its_own() -> None:
    request = pb.AcknowledgeSessionEventsRequest(positions=[pb.PartitionPosition(partition=1)])
    async with intercepted(FULL, unary_s_max=0.0) as stub:
        await stub.AcknowledgeSessionEvents(request, metadata=CREDENTIALS, timeout=60)
        code, _ = await failure_of(stub.AcknowledgeSessionEvents(request, metadata=CREDENTIALS))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_metadata_beyond_16_kib_is_refused(channel: grpc.aio.Channel) -> None:
    stub: Any = pb_grpc.QuotaServiceStub(channel)
    request = pb.AcknowledgeSessionEventsRequest(positions=[pb.PartitionPosition(partition=1)])
    await stub.AcknowledgeSessionEvents(request, metadata=(*CREDENTIALS, ("x-much", "x" * 12 * 1024)), timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AcknowledgeSessionEvents(request, metadata=(*CREDENTIALS, ("x-much", "x" * 17 * 1024)), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("is_on", [True, False])
async def test_reflection_is_there_or_not_as_set(tmp_path: Path, version: str, is_on: bool) -> None:
    host = host_of(tmp_path, reflection=is_on)
    async with serving(host) as public, grpc.aio.insecure_channel(f"127.0.0.1:{host.admin_port}") as admin:
        for channel, served in ((public, NAME), (admin, "grpc.channelz.v1.Channelz")):
            call = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                reflection_pb2.ServerReflectionRequest.SerializeToString,
                reflection_pb2.ServerReflectionResponse.FromString,
            )(iter([reflection_pb2.ServerReflectionRequest(list_services="*")]))
            if is_on:
                response = await call.read()
                assert served in {found.name for found in response.list_services_response.service}
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
