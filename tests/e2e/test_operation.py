"""Starting, stopping and surviving: what an operator meets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.type.v1 import type_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.process import EXIT_STARTUP_FAILED
from services.shared.server import SERVICES
from services.suite.ready import admin_addresses, wait_until_serving
from tests.support.suite import ROOT, Suite, child_ids, info_of, reason_of, suite_environment


async def start(data: Path, *options: str, **overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m services` to its end in a folder of its own."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services", *options],
        cwd=ROOT,
        env=suite_environment(data, overrides),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


async def test_the_demonstration_streams_counts_and_exits(tmp_path: Path) -> None:
    result = await start(tmp_path, "--demo", "--once")
    assert result.returncode == 0, result.stderr
    assert "ended as COMMITTED" in result.stdout
    assert "Usage before 0 of 1000" in result.stdout
    assert "Usage after  1 of 1000" in result.stdout
    secret = re.search(r"fs_\w+", result.stdout)
    assert secret is not None
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and secret.group().encode() in path.read_bytes()]
    assert kept == []


async def test_a_taken_port_is_named_with_the_way_out(suite: Suite, tmp_path: Path) -> None:
    number = suite.settings.quota_address.rpartition(":")[2]
    result = await start(tmp_path, FLOWSTACK_QUOTA_ADDRESS=f"127.0.0.1:{number}")
    assert result.returncode == EXIT_STARTUP_FAILED
    assert f"port {number}" in result.stderr
    assert f"FLOWSTACK_QUOTA_ADDRESS=127.0.0.1:{int(number) + 100}" in result.stderr
    assert "Traceback" not in result.stderr


async def test_the_demonstration_names_a_taken_port_too(suite: Suite, tmp_path: Path) -> None:
    result = await start(tmp_path, "--demo", FLOWSTACK_ROUTER_ADDRESS=suite.settings.router_address)
    assert result.returncode == EXIT_STARTUP_FAILED
    assert "FLOWSTACK_ROUTER_ADDRESS" in result.stderr
    assert "Traceback" not in result.stderr


async def test_all_taken_ports_are_named_at_once(suite: Suite, tmp_path: Path) -> None:
    settings = suite.settings
    taken = {
        "FLOWSTACK_ROUTER_ADDRESS": settings.router_address,
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": settings.billing_internal_address,
        "FLOWSTACK_ADMIN_PORT_BASE": str(settings.admin_port_base),
    }
    result = await start(tmp_path / "data", **taken)
    assert result.returncode == EXIT_STARTUP_FAILED
    for setting, value in taken.items():
        host, _, number = value.rpartition(":")
        assert f"{host or '127.0.0.1'}:{number} ({setting}: port {number} is taken)" in result.stderr
        assert f"{setting}={host}{':' if host else ''}{int(number) + 100}" in result.stderr
    assert settings.quota_address not in result.stderr
    assert '"restarting"' not in result.stderr
    assert not (tmp_path / "data").exists(), "nothing is made before the ports are known to be free"


async def test_one_port_for_two_services_is_told(tmp_path: Path) -> None:
    result = await start(
        tmp_path, FLOWSTACK_ROUTER_ADDRESS="127.0.0.1:19791", FLOWSTACK_VAULT_ADDRESS="127.0.0.1:19791"
    )
    assert result.returncode == EXIT_STARTUP_FAILED
    assert "FLOWSTACK_VAULT_ADDRESS" in result.stderr


async def test_a_second_suite_cannot_take_the_same_data(suite: Suite, tmp_path: Path) -> None:
    result = await start(tmp_path, FLOWSTACK_DATA_DIR=str(suite.data))
    assert result.returncode == EXIT_STARTUP_FAILED
    assert "Another process" in result.stderr
    assert "Traceback" not in result.stderr


async def test_an_address_beyond_loopback_needs_tls(tmp_path: Path) -> None:
    result = await start(
        tmp_path,
        FLOWSTACK_ROUTER_ADDRESS="0.0.0.0:0",
        FLOWSTACK_ADMIN_TOKEN="a",
        FLOWSTACK_INTERNAL_TOKEN="b",
        FLOWSTACK_KEY_PEPPER="c" * 16,
    )
    assert result.returncode == EXIT_STARTUP_FAILED
    assert "FLOWSTACK_ALLOW_PLAINTEXT" in result.stderr


async def test_a_service_that_dies_is_restarted(suite: Suite) -> None:
    account_id, secret = await suite.open_account("starter")
    for name in SERVICES:
        killed = child_ids(suite.process.pid)[name]
        os.kill(killed, signal.SIGKILL)
        while child_ids(suite.process.pid).get(name) in (None, killed):
            await asyncio.sleep(0)
        assert await wait_until_serving(admin_addresses(suite.settings, SERVICES), 60) == []
    await ready_again(suite, secret)
    events = [event async for event in suite.complete(secret)]
    assert events[-1].session_finished.session_state == type_pb2.SESSION_STATE_COMMITTED
    assert (await suite.account_quota(account_id)).sessions_committed >= 1


async def ready_again(suite: Suite, secret: str) -> None:
    """Waits until a completion is not refused for a service that is still connecting."""
    while True:
        try:
            async for _ in suite.complete(secret):
                pass
        except grpc.aio.AioRpcError as error:
            # CANCELLED is what gRPC makes of a call that reaches a server between its last read and its end.
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error
        else:
            return


async def until_draining(suite: Suite, name: str) -> None:
    """Waits until a service says that it serves no more."""
    async with grpc.aio.insecure_channel(admin_addresses(suite.settings, SERVICES)[name]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its types leave Watch out
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        async for response in watch:
            if response.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                watch.cancel()
                return
    raise AssertionError(f"{name} goes on serving")


async def test_a_second_signal_releases_what_runs(suite: Suite) -> None:
    account_id, secret = await suite.open_account("starter")
    await ready_again(suite, secret)
    before = await suite.account_quota(account_id)
    router = child_ids(suite.process.pid)["router"]
    session_id, deltas = "", 0
    call = suite.complete(secret, labels={"echo.words": "100000", "echo.delay_ms": "10"})
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for event in call:
            session_id = event.session_started.session_id or session_id
            deltas += event.HasField("text_delta")
            if deltas == 1:
                os.kill(router, signal.SIGTERM)
                # Two signals that come before the first is looked at are one.
                await until_draining(suite, "router")
            elif deltas == 5:
                os.kill(router, signal.SIGTERM)
    assert (failed.value.code(), reason_of(failed.value)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert info_of(failed.value).metadata["counted"] == "false"
    assert (await suite.session(account_id, session_id)).state == type_pb2.SESSION_STATE_RELEASED
    after = await suite.account_quota(account_id)
    assert after.sessions_committed == before.sessions_committed
    await ready_again(suite, secret)
