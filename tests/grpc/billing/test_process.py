"""The process: how it starts, what keeps it from starting, and how it stops."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.billing.adapters.catalogue_file import SHIPPED
from services.billing.config import BillingSettings
from services.shared.settings import StartupError
from tests.support.billing import BillingUnderTest, billing
from tests.support.clock import ManualClock

EX_CONFIG = 78


async def start(folder: Path, **variables: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWSTACK_")}
    environment |= {
        "FLOWSTACK_DATA_DIR": str(folder),
        "FLOWSTACK_BILLING_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_BILLING_INTERNAL_ADDRESS": "127.0.0.1:0",
        "FLOWSTACK_QUOTA_ADDRESS": "127.0.0.1:1",
        "FLOWSTACK_ADMIN_PORT_BASE": "0",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.billing", env=environment | variables, stderr=asyncio.subprocess.PIPE
    )


async def test_it_serves_without_quota_and_drains_on_sigterm(tmp_path: Path) -> None:
    process = await start(tmp_path)
    assert process.stderr is not None
    async for line in process.stderr:
        if b'"listening"' in line:
            break
    process.send_signal(signal.SIGTERM)
    await process.stderr.read()
    assert await process.wait() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"billing.db", "admin-token", "internal-token", "key-pepper"}


async def test_a_newer_database_is_answered_with_one_sentence(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "billing.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    process = await start(tmp_path)
    _, stderr = await process.communicate()
    assert process.returncode == EX_CONFIG
    assert stderr.decode().startswith("billing: ")
    assert "newer version of billing" in stderr.decode()
    assert stderr.count(b"\n") == 1


async def test_a_catalogue_that_lacks_a_sold_version_is_refused(
    settings: BillingSettings, clock: ManualClock, tmp_path: Path
) -> None:
    async with billing(settings, clock) as service:
        await service.open_account("hobbyist")
    other = tmp_path / "other.toml"
    other.write_text(SHIPPED.read_text().replace("hobbyist", "tinkerer"))
    changed = settings.model_copy(update={"billing_catalogue_file": other})
    with pytest.raises(StartupError, match="hobbyist version 1"):
        async with billing(changed, clock):
            pass


async def test_health_is_told_for_each_service(service: BillingUnderTest) -> None:
    health = health_pb2_grpc.HealthStub(service.public)
    for name in ("", "flowstack.billing.v1.AccountService", "flowstack.billing.v1.AuditService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def serving() -> set[int]:
    """The servers of this process that have not been stopped."""
    return {id(one) for one in gc.get_objects() if issubclass(type(one), grpc.aio.Server) and one._server.is_running()}


async def test_a_test_that_fails_leaves_no_server_to_the_next_one(
    settings: BillingSettings, clock: ManualClock
) -> None:
    before = serving()
    with pytest.raises(ZeroDivisionError):
        async with billing(settings, clock):
            assert len(serving()) > len(before)
            raise ZeroDivisionError
    assert serving() == before
