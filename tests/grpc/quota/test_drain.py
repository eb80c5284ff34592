"""Draining: health says so first, what runs ends well, what would never end is told to go elsewhere."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.grpc.quota.conftest import Client
from tests.grpc.quota.wire import failure_of, reserve_request
from tests.support.quota import ACCOUNT, QuotaServer

CODE = grpc.StatusCode


async def test_a_running_stream_is_let_finish(server: QuotaServer, channel: grpc.aio.Channel, quota: Client) -> None:
    call = quota.ExecuteCommands()
    first, second = quota.new_id(), quota.new_id()
    await call.write(
        pb.ExecuteCommandsRequest(commands=[pb.SessionCommand(sequence=1, reserve=reserve_request(first))])
    )
    await call.read()
    watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING

    drain = asyncio.ensure_future(server.host.drain(30))
    assert (await watched.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watched.cancel()
    await call.write(
        pb.ExecuteCommandsRequest(commands=[pb.SessionCommand(sequence=2, reserve=reserve_request(second))])
    )
    response = await call.read()
    assert response.results[0].reserve.session.session_id == second
    assert not drain.done(), "the stream still runs"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is CODE.OK
    await drain


async def test_a_drained_server_takes_no_calls(server: QuotaServer, quota: Client) -> None:
    await server.host.drain(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))
    assert caught.value.code() is CODE.UNAVAILABLE


async def test_streams_without_an_end_are_ended(server: QuotaServer, quota: Client) -> None:
    positions = [pb.PartitionPosition(partition=partition) for partition in range(64)]
    endless = [
        quota.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT)),
        quota.ReadSessionEvents(pb.ReadSessionEventsRequest(positions=positions, follow=True)),
    ]
    for call in endless:
        await call.read()
    commands = quota.ExecuteCommands()
    session_id = quota.new_id()
    await commands.write(
        pb.ExecuteCommandsRequest(commands=[pb.SessionCommand(sequence=1, reserve=reserve_request(session_id))])
    )
    assert (await commands.read()).results[0].WhichOneof("result") == "reserve"
    await server.service.drain()
    for call in (*endless, commands):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        told = failure_of(caught.value)
        assert (told.code, told.reason) == (CODE.UNAVAILABLE, "SHUTTING_DOWN")
    await server.host.drain(30)
    assert await server.store.session(ACCOUNT, session_id) is not None
