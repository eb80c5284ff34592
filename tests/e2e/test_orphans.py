"""A supervisor that is killed: the services end by themselves, in the order in which they need one another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc
import pytest
from flowstack_protos.type.v1 import type_pb2

from tests.support.suite import Suite, child_ids, info_of, running_suite

END_SECONDS = 60.0
"""Far over the time in which the services end, and far below the router's grace."""


@asynccontextmanager
async def orphaned(data: Path) -> AsyncIterator[Suite]:
    """All services, under a supervisor that does not live to the block's end."""
    data.mkdir()
    with pytest.raises(AssertionError):
        # The exit code of a killed supervisor is not the one that is wanted.
        async with running_suite(data) as suite:
            yield suite


async def ended(descriptor: int) -> None:
    """Waits until the process behind a pidfd has ended, whoever its parent is by then."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@pytest.mark.parametrize("sessions", [0, 1, 5])
async def test_sessions_are_resolved_though_the_supervisor_was_killed(tmp_path: Path, sessions: int) -> None:
    async with orphaned(tmp_path / "data") as suite:
        _, secret = await suite.open_account("starter")
        children = child_ids(suite.process.pid)
        assert len(children) == 4
        ends = [asyncio.create_task(ended(os.pidfd_open(pid))) for pid in children.values()]
        streaming = [asyncio.Event() for _ in range(sessions)]

        async def stream(streams: asyncio.Event) -> grpc.aio.AioRpcError:
            call = suite.complete(secret, labels={"echo.words": "100000", "echo.delay_ms": "20"})
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                async for event in call:
                    if event.HasField("text_delta"):
                        streams.set()
            return failed.value

        calls = [asyncio.create_task(stream(streams)) for streams in streaming]
        for streams in streaming:
            await streams.wait()
        os.kill(suite.process.pid, signal.SIGKILL)
        async with asyncio.timeout(END_SECONDS):
            told = await asyncio.gather(*calls)
            await asyncio.gather(*ends)

    # Not the order of the ends: a process that has let go of its pipe may be overtaken on its last steps.
    log = [json.loads(line) for line in (tmp_path / "data" / "suite.log").read_text().splitlines() if line[0] == "{"]
    order = [line["service"] for line in log if line["event"] == "draining"]
    assert order.index("router") < order.index("billing") < order.index("quota")
    assert [info_of(error).reason for error in told] == ["SHUTTING_DOWN"] * sessions
    with closing(sqlite3.connect(tmp_path / "data" / "quota.db")) as database:
        states = database.execute("SELECT state FROM sessions").fetchall()
    assert states == [(type_pb2.SESSION_STATE_RELEASED,)] * sessions
