"""Who may call, what the server tells of itself, and what it never tells."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.grpc.quota.conftest import Client
from tests.grpc.quota.wire import (
    METHODS,
    NAME,
    call_raw,
    commit_request,
    entitlement_request,
    failure,
    failure_of_status,
    release_request,
    reserve_request,
)
from tests.support.clock import ManualClock, us
from tests.support.quota import (
    ACCOUNT,
    INTERNAL_TOKEN,
    SERVICE,
    QuotaServer,
    serve_store,
    sqlite_store,
    uuid7_session_id,
)

CODE = grpc.StatusCode
GOOD_ID = uuid7_session_id(us(2026, 3, 10, 12), 7)

VALID: dict[str, Any] = {
    "ReserveSession": reserve_request(GOOD_ID),
    "CommitSession": commit_request(GOOD_ID),
    "ReleaseSession": release_request(GOOD_ID),
    "ExecuteCommands": pb.ExecuteCommandsRequest(
        commands=[pb.SessionCommand(sequence=1, reserve=reserve_request(GOOD_ID))]
    ),
    "GetSession": pb.GetSessionRequest(account_id=ACCOUNT, session_id=GOOD_ID),
    "GetQuota": pb.GetQuotaRequest(account_id=ACCOUNT),
    "WatchQuota": pb.WatchQuotaRequest(account_id=ACCOUNT),
    "PutEntitlement": entitlement_request(),
    "GetEntitlement": pb.GetEntitlementRequest(account_id=ACCOUNT),
    "ReadSessionEvents": pb.ReadSessionEventsRequest(positions=[pb.PartitionPosition(partition=1)]),
    "AcknowledgeSessionEvents": pb.AcknowledgeSessionEventsRequest(positions=[pb.PartitionPosition(partition=1)]),
}

REFUSED = {
    "nothing": ((), "API_KEY_MISSING"),
    "an empty token": ((("authorization", "Bearer "),), "API_KEY_MISSING"),
    "another scheme": ((("authorization", f"Basic {INTERNAL_TOKEN}"),), "API_KEY_MISSING"),
    "no scheme": ((("authorization", INTERNAL_TOKEN),), "API_KEY_MISSING"),
    "another header": ((("x-authorization", f"Bearer {INTERNAL_TOKEN}"),), "API_KEY_MISSING"),
    "a wrong token": ((("authorization", "Bearer wrong"),), "API_KEY_INVALID"),
    "a longer token": ((("authorization", f"Bearer {INTERNAL_TOKEN}x"),), "API_KEY_INVALID"),
    "a part of the token": ((("authorization", f"Bearer {INTERNAL_TOKEN[:-1]}"),), "API_KEY_INVALID"),
    "another case": ((("authorization", f"Bearer {INTERNAL_TOKEN.upper()}"),), "API_KEY_INVALID"),
    "a customer's key": ((("authorization", "Bearer fs_0123456789abcdef"),), "API_KEY_INVALID"),
    "a second header": (
        (("authorization", "Bearer wrong"), ("authorization", f"Bearer {INTERNAL_TOKEN}")),
        "API_KEY_INVALID",
    ),
}


def test_every_method_is_tried() -> None:
    assert set(VALID) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
async def test_who_may_not_call(channel: grpc.aio.Channel, server: QuotaServer, method: str) -> None:
    for name, (metadata, reason) in REFUSED.items():
        told = await failure(call_raw(channel, method, VALID[method], metadata=metadata))
        assert (told.code, told.reason) == (CODE.UNAUTHENTICATED, reason), name
        assert INTERNAL_TOKEN not in told.message
    assert await server.store.entitlement(ACCOUNT) is None
    assert await server.store.session(ACCOUNT, GOOD_ID) is None


@pytest.mark.parametrize("method", METHODS)
async def test_the_token_opens_every_method(channel: grpc.aio.Channel, quota: Client, method: str) -> None:
    if method in {"CommitSession", "ReleaseSession", "GetSession"}:
        await quota.ReserveSession(VALID["ReserveSession"])
    call = call_raw(channel, method, VALID[method])
    if SERVICE.methods_by_name[method].server_streaming:
        await call.read()
        call.cancel()
    else:
        await call


@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_do_not_decode(channel: grpc.aio.Channel, quota: Client, method: str) -> None:
    for message in (b"\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe"):
        told = await failure(call_raw(channel, method, message))
        assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST"), message


@pytest.mark.parametrize(
    "method", [method for method in METHODS if not SERVICE.methods_by_name[method].server_streaming]
)
async def test_random_bytes_get_an_answer_with_a_reason(channel: grpc.aio.Channel, quota: Client, method: str) -> None:
    dice = random.Random(method)
    for _ in range(40):
        told = await failure(call_raw(channel, method, dice.randbytes(dice.randrange(60))))
        assert told.reason == "INVALID_REQUEST"


@pytest.mark.parametrize("method", METHODS)
async def test_oversized_messages(server: QuotaServer, method: str) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(server.address, options=options) as wide:
        told = await failure(call_raw(wide, method, b"\x0a" + b"\x00" * (4 * 1024 * 1024)))
    assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_unknown_methods(channel: grpc.aio.Channel) -> None:
    for path in (f"/{NAME}/GrantEverything", "/flowstack.quota.v2.QuotaService/GetQuota", "/nonsense"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(b"", timeout=30)
        assert caught.value.code() is CODE.UNIMPLEMENTED


async def health(channel: grpc.aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)).status


async def test_health(server: QuotaServer, channel: grpc.aio.Channel) -> None:
    admin_address = f"127.0.0.1:{server.host.admin_port}"
    async with grpc.aio.insecure_channel(admin_address) as admin:
        for open_channel in (channel, admin):
            for service in ("", NAME):
                assert await health(open_channel, service) == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health(open_channel, "flowstack.quota.v1.Nobody")
            assert caught.value.code() is CODE.NOT_FOUND


async def test_watching_health(server: QuotaServer, channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watched = stub.Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=30)
    assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="flowstack.quota.v1.Nobody"), timeout=30)
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    drain = asyncio.ensure_future(server.host.drain(30))
    assert (await watched.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watched.cancel()
    unknown.cancel()
    await drain


async def reflect(
    channel: grpc.aio.Channel, version: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter(requests), timeout=30)
    return [response async for response in call]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(channel: grpc.aio.Channel, version: str) -> None:
    listed, described = await reflect(
        channel,
        version,
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=NAME),
    )
    names = {service.name for service in listed.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= names
    files = [FileDescriptorProto.FromString(text) for text in described.file_descriptor_response.file_descriptor_proto]
    services = [service for file in files for service in file.service if file.package == "flowstack.quota.v1"]
    assert [method.name for service in services for method in service.method] == METHODS


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service_that_it_lists(channel: grpc.aio.Channel, version: str) -> None:
    (listed,) = await reflect(channel, version, reflection_pb2.ServerReflectionRequest(list_services=""))
    for service in listed.list_services_response.service:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name)
        (answer,) = await reflect(channel, version, request)
        assert answer.file_descriptor_response.file_descriptor_proto, service.name


SECRET = "sk-secret-of-a-customer"


class BrokenStore:
    """A store with a defect: everything that is asked of it fails with an exception that holds a secret."""

    epoch = "0" * 16

    def on_committed(self, listener: Any) -> None:
        """Never calls it."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: object) -> Any:
            raise KeyError(SECRET)

        return fail


@pytest.fixture
async def broken(tmp_path: Path, clock: ManualClock) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server whose store is broken."""
    async with (
        serve_store(tmp_path, BrokenStore(), clock) as server,  # type: ignore[arg-type]
        grpc.aio.insecure_channel(server.address) as opened,
    ):
        yield opened


@pytest.mark.parametrize("method", [method for method in METHODS if method != "ExecuteCommands"])
async def test_a_defect_is_internal_and_tells_nothing(
    broken: grpc.aio.Channel, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    told = await failure(call_raw(broken, method, VALID[method]))
    assert (told.code, told.reason) == (CODE.INTERNAL, "INTERNAL")
    assert SECRET not in repr(told)
    written = capfd.readouterr()
    assert SECRET not in written.out + written.err
    assert "KeyError" in written.out + written.err, "the defect is logged, without its text"


async def test_a_defect_is_answered_in_each_commands_place(
    broken: grpc.aio.Channel, capfd: pytest.CaptureFixture[str]
) -> None:
    responses = [response async for response in call_raw(broken, "ExecuteCommands", VALID["ExecuteCommands"])]
    (result,) = [result for response in responses for result in response.results]
    told = failure_of_status(result.error)
    assert (told.code, told.reason) == (CODE.INTERNAL, "INTERNAL")
    written = capfd.readouterr()
    assert SECRET not in repr(told) + written.out + written.err


async def test_a_store_that_cannot_store_is_unavailable(
    server: QuotaServer, channel: grpc.aio.Channel, quota: Client
) -> None:
    await server.store.close()
    for method in METHODS:
        if method != "ExecuteCommands":
            told = await failure(call_raw(channel, method, VALID[method]))
            assert (told.code, told.reason) == (CODE.UNAVAILABLE, "QUOTA_UNAVAILABLE"), method
    responses = [response async for response in call_raw(channel, "ExecuteCommands", VALID["ExecuteCommands"])]
    (result,) = responses[0].results
    assert failure_of_status(result.error).reason == "QUOTA_UNAVAILABLE"


async def test_two_servers_side_by_side(tmp_path: Path, clock: ManualClock) -> None:
    async with (
        sqlite_store(tmp_path / "one.db", clock) as one,
        sqlite_store(tmp_path / "two.db", clock) as two,
        serve_store(tmp_path, one, clock) as first,
        serve_store(tmp_path, two, clock) as second,
    ):
        assert len({first.port, second.port, first.host.admin_port, second.host.admin_port}) == 4
        async with grpc.aio.insecure_channel(first.address) as channel:
            await Client(channel, clock).PutEntitlement(entitlement_request())
        assert await one.entitlement(ACCOUNT) is not None
        assert await two.entitlement(ACCOUNT) is None
