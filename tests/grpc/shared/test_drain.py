"""Draining: streams that nobody ends do not hold a service that is to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as billing_pb
from flowstack_protos.billing.v1 import account_service_pb2_grpc as billing_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.shared.errors import Reason
from services.shared.status import error_from_rpc
from tests.support.quota import quota_server
from tests.support.suite import ROOT

KEY = (("authorization", "Bearer fs_anything"),)
HANG_SECONDS = 60.0
"""Far over the time that a drain takes, and far below the router's grace."""


class AnyKey(billing_grpc.AccountServiceServicer):
    async def AuthenticateApiKey(
        self, request: billing_pb.AuthenticateApiKeyRequest, context: Any
    ) -> billing_pb.AuthenticateApiKeyResponse:
        return billing_pb.AuthenticateApiKeyResponse(account_id="acct_1", api_key_id="key_1")


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    billing = grpc.aio.server()
    billing_grpc.add_AccountServiceServicer_to_server(AnyKey(), billing)
    billing_port = billing.add_insecure_port("127.0.0.1:0")
    await billing.start()
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLOWSTACK_")},
        "FLOWSTACK_DATA_DIR": str(tmp_path),
        "FLOWSTACK_ROUTER_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_QUOTA_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": f"127.0.0.1:{billing_port}",
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
    }
    await billing.stop(0)


@asynccontextmanager
async def running(
    name: str, environment: dict[str, str], umask: int = -1
) -> AsyncIterator[tuple[Process, grpc.aio.Channel]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{name}", cwd=ROOT, env=environment, stderr=PIPE, umask=umask
    )
    assert process.stderr is not None
    try:
        port = 0
        while not port:
            line = await process.stderr.readline()
            assert line, f"{name} ended"
            said = json.loads(line)
            port = said["port"] if said["event"] == "listening" else 0
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, channel
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def watch(channel: grpc.aio.Channel) -> Any:
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
    return call


async def reflect(channel: grpc.aio.Channel) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
    await call.read()
    return call


async def complete_without_a_message(channel: grpc.aio.Channel) -> Any:
    # Of another kind than the method, so that the call can be opened without its one message.
    call = channel.stream_stream("/flowstack.router.v1.RouterService/Complete")()
    await call.wait_for_connection()
    return call


async def chat_without_a_message(channel: grpc.aio.Channel) -> Any:
    call = channel.stream_stream("/flowstack.router.v1.RouterService/Chat")(metadata=KEY)
    await call.wait_for_connection()
    return call


@pytest.mark.parametrize("opened", [watch, reflect, complete_without_a_message, chat_without_a_message])
async def test_an_open_stream_does_not_hold_the_router(
    environment: dict[str, str], opened: Callable[[grpc.aio.Channel], Any]
) -> None:
    async with running("router", environment) as (process, channel):
        call = await opened(channel)
        # A call behind it on the same connection: the server knows the first one now.
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_SECONDS):
            assert await process.wait() == 0
        call.cancel()


@pytest.mark.parametrize("opened", [watch, reflect])
async def test_an_open_stream_does_not_hold_quota(
    environment: dict[str, str], opened: Callable[[grpc.aio.Channel], Any]
) -> None:
    environment["FLOWSTACK_DRAIN_GRACE_SECONDS"] = "300"
    async with running("quota", environment) as (process, channel):
        call = await opened(channel)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_SECONDS):
            assert await process.wait() == 0
        call.cancel()


async def test_a_watcher_learns_of_the_drain_and_is_sent_away(tmp_path: Path) -> None:
    async with quota_server(tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = await watch(channel)
        await server.host.announce_drain()
        assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        drain = asyncio.create_task(server.host.drain(300))
        with pytest.raises(grpc.aio.AioRpcError) as sent_away:
            await call.read()
        error = error_from_rpc(sent_away.value)
        assert error is not None
        assert error.reason is Reason.SHUTTING_DOWN
        await drain


async def test_a_drain_that_comes_at_once_is_told_before_the_end(tmp_path: Path) -> None:
    async with quota_server(tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = await watch(channel)
        await asyncio.gather(
            server.host.drain(300),
            _reads(call, [health_pb2.HealthCheckResponse.NOT_SERVING]),
        )


async def _reads(call: Any, statuses: list[int]) -> None:
    told = []
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            told.append(response.status)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert told == statuses


async def test_reflection_ends_well_at_a_drain(tmp_path: Path) -> None:
    async with quota_server(tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = await reflect(channel)
        await server.host.drain(300)
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
