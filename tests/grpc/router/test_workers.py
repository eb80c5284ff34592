"""Several router processes on one port: started, killed, replaced, drained."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc
from flowstack_protos.type.v1 import type_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.errors import Reason
from tests.grpc.router.harness import METADATA, drained, echo_request, finished, read_into
from tests.grpc.router.process import start, talking
from tests.support.fake_quota import FakeQuota
from tests.support.suite import free_ports

CONNECTIONS_MAX = 200


class Pool:
    """A running supervisor, what it and its workers log, and connections of their own to its port."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._channels: list[grpc.aio.Channel] = []

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Reads the log until a line is as wanted, from where it was read before."""
        assert self.process.stderr is not None
        while True:
            line = await self.process.stderr.readline()
            assert line, f"the log ended: {self.lines}"
            if line.startswith(b"{"):
                said = json.loads(line)
                self.lines.append(said)
                if wanted(said):
                    return said

    async def serving(self, count: int) -> None:
        """Waits until so many workers more listen."""
        for _ in range(count):
            await self.until(lambda line: line["event"] == "listening")

    @property
    def port(self) -> int:
        return int(next(line["port"] for line in self.lines if line["event"] == "listening"))

    def worker_pids(self) -> dict[str, int]:
        """The last process of each worker."""
        return {line["detail"]: line["pid"] for line in self.lines if line["event"] == "worker"}

    def stub(self) -> Any:
        """A stub on a connection of its own."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options))
        return pb_grpc.RouterServiceStub(self._channels[-1])

    async def stubs_of_both(self) -> dict[str, Any]:
        """A stub for each of two workers. The kernel spreads connections, so that a few tries find both."""
        found: dict[str, Any] = {}
        for _ in range(CONNECTIONS_MAX):
            stub = self.stub()
            await read_into([], stub.Complete(echo_request("hi"), metadata=METADATA))
            line = await self.until(lambda line: line["event"] == "session")
            found[line["service"]] = stub
            if len(found) == 2:
                return found
        raise AssertionError(f"{CONNECTIONS_MAX} connections all went to {list(found)}")

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@asynccontextmanager
async def two_workers(settings: dict[str, str], **changes: str) -> AsyncIterator[Pool]:
    pool = Pool(await start({**settings, "FLOWSTACK_ROUTER_WORKERS": "2", **changes}))
    try:
        await pool.serving(2)
        yield pool
    finally:
        await pool.close()


async def test_both_serve_and_both_finish_what_they_have(settings: dict[str, str], quota: FakeQuota) -> None:
    async with two_workers(settings, FLOWSTACK_DRAIN_GRACE_SECONDS="30") as pool:
        stubs = await pool.stubs_of_both()
        calls = {
            name: stub.Complete(echo_request("a b", **{"echo.words": "8", "echo.delay_ms": "60"}), metadata=METADATA)
            for name, stub in stubs.items()
        }
        for call in calls.values():
            await call.read()
        pool.process.send_signal(signal.SIGTERM)
        ends = [finished(await read_into([], call)) for call in calls.values()]
        assert await pool.process.wait() == 0

    assert set(calls) == {"router-0", "router-1"}
    assert [end.session_state for end in ends] == [type_pb2.SESSION_STATE_COMMITTED] * 2
    assert set(quota.states()) == {"COMMITTED"}


async def test_each_has_an_admin_port_and_hears_of_a_new_file(settings: dict[str, str]) -> None:
    base = free_ports(8)[0]
    async with two_workers(settings, FLOWSTACK_ADMIN_PORT_BASE=str(base)) as pool:
        for port in (base, base + 4):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        pool.process.send_signal(signal.SIGHUP)
        taken = {(await pool.until(lambda line: line["event"] == "providers file taken"))["service"] for _ in "ab"}

    assert taken == {"router-0", "router-1"}


async def test_each_releases_what_outlasts_the_grace(settings: dict[str, str], quota: FakeQuota) -> None:
    async with two_workers(settings) as pool:
        calls = [await talking(stub) for stub in (await pool.stubs_of_both()).values()]
        pool.process.send_signal(signal.SIGTERM)
        errors = [(await drained(call))[1] for call in calls]
        assert await pool.process.wait() == 0

    assert [error.reason for error in errors] == [Reason.SHUTTING_DOWN] * 2
    assert quota.states()[-2:] == ["RELEASED"] * 2


async def test_a_dead_worker_is_replaced_and_the_others_go_on(settings: dict[str, str], quota: FakeQuota) -> None:
    async with two_workers(settings) as pool:
        stubs = await pool.stubs_of_both()
        calls = {name: await talking(stub) for name, stub in stubs.items()}
        before = pool.worker_pids()
        os.kill(before["router-1"], signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError):
            await read_into([], calls["router-1"])
        await pool.until(lambda line: line["event"] == "replacing a worker")
        await pool.serving(1)
        after = pool.worker_pids()
        assert (await calls["router-0"].read()).text_delta
        calls["router-0"].cancel()
        assert set(await pool.stubs_of_both()) == {"router-0", "router-1"}

    assert after["router-0"] == before["router-0"]
    assert after["router-1"] != before["router-1"]


async def test_workers_whose_supervisor_is_killed_end_and_leave_no_session(
    settings: dict[str, str], quota: FakeQuota
) -> None:
    async with two_workers(settings, FLOWSTACK_DRAIN_GRACE_SECONDS="3600") as pool:
        call = await talking(pool.stub())
        pool.process.kill()
        _, error = await drained(call)
        # The log's pipe ends with the last process that holds it.
        assert pool.process.stderr is not None
        await pool.process.stderr.read()

    assert error.reason is Reason.SHUTTING_DOWN
    assert quota.states() == ["RELEASED"]


async def test_what_keeps_all_from_starting_is_told_once(settings: dict[str, str]) -> None:
    process = await start(
        {**settings, "FLOWSTACK_ROUTER_WORKERS": "3", "FLOWSTACK_PROVIDERS_FILE": "/nowhere/providers.toml"}
    )
    _, stderr = await process.communicate()

    assert process.returncode == 78
    assert stderr.count(b"/nowhere/providers.toml") == 1
    assert b"Traceback" not in stderr


async def test_a_taken_port_is_refused_also_where_it_could_be_shared(settings: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await start({**settings, "FLOWSTACK_ROUTER_WORKERS": "2", "FLOWSTACK_ROUTER_ADDRESS": address})
        _, stderr = await process.communicate()

    assert process.returncode == 78
    assert re.search(rb"port \d+ is taken", stderr)
    assert stderr.count(b"FLOWSTACK_ROUTER_ADDRESS") == 1


async def test_a_path_is_no_address_for_several(settings: dict[str, str], tmp_path: Any) -> None:
    address = f"unix:{tmp_path}/router.sock"
    process = await start({**settings, "FLOWSTACK_ROUTER_WORKERS": "2", "FLOWSTACK_ROUTER_ADDRESS": address})
    _, stderr = await process.communicate()

    assert process.returncode == 78
    assert b"one worker" in stderr
