"""Alerts: from a session's commit, answered by quota, to the webhook's request at its receiver.

Everything lies between: quota's event, billing's reader, the ledger's transaction, the delivery's lease, the guarded
request. Beside it a bare POST to the same receiver, each on a connection of its own, as deliveries are.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceStub
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1.quota_service_pb2_grpc import QuotaServiceStub
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from bench.billing import POSTGRESQL, SQLITE
from bench.processes import ROOT, BillingServer, Server, billing_server, quota_server
from bench.report import Figure, Report
from tests.support.database import migrated
from tests.support.postgres import Databases, running_server

ACCOUNTS = 15
THRESHOLDS = range(4, 81, 4)
"""Of a limit of 25: each session reaches one."""
ARRIVES_SECONDS = 30


class Receiver:
    """Takes webhooks, and notes when."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[float] = asyncio.Queue()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listens on any free port of loopback."""
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"

    async def stop(self) -> None:
        """Is gone."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def arrival_s(self) -> float:
        """When the next request came."""
        return await asyncio.wait_for(self._arrived.get(), ARRIVES_SECONDS)

    async def _take(self, request: web.Request) -> web.Response:
        self._arrived.put_nowait(time.perf_counter())
        await request.read()
        return web.Response(text="ok")


async def run(report: Report) -> None:
    """Measures on each store."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder, running_server(fsync="on") as postgres:
        databases = Databases(postgres.address, postgres.address())
        await _measure(report, SQLITE, Path(folder) / "sqlite", f"sqlite:///{folder}/billing.db")
        with databases.fresh() as address:
            await _measure(report, POSTGRESQL, Path(folder) / "postgresql", migrated(address))


async def _measure(report: Report, setup: str, data: Path, database: str) -> None:
    await asyncio.to_thread(data.mkdir)
    receiver = Receiver()
    await receiver.start()
    settings = {"FLOWSTACK_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1/32", "FLOWSTACK_WEBHOOK_ALLOW_HTTP": "1"}
    async with (
        quota_server(data) as quota,
        billing_server(data, database, quota.address, **settings) as billing,
    ):
        found_ms, bare_ms = [], []
        for _ in range(ACCOUNTS):
            account_id = await _account(billing, receiver.url)
            for _ in THRESHOLDS:
                found_ms.append(await _lag_ms(receiver, lambda account=account_id: _session(quota, account)))  # type: ignore[misc]
                bare_ms.append(await _lag_ms(receiver, lambda: _post(receiver.url)))
    await receiver.stop()
    for name, at in (("p50", 50), ("p99", 99)):
        value, reference = _percentile(found_ms, at), _percentile(bare_ms, at)
        report.add(
            Figure(
                f"alert from commit to webhook, {name}",
                f"{setup}; {len(found_ms)} alerts one after the other",
                value,
                "ms",
                "ms, a bare POST",
                reference,
                value / reference,
            )
        )


async def _lag_ms(receiver: Receiver, act: Callable[[], Awaitable[float]]) -> float:
    """From the moment that `act` answers to the request at the receiver."""
    begun_s = await act()
    return (await receiver.arrival_s() - begun_s) * 1000


async def _account(billing: BillingServer, url: str) -> str:
    """An account that is told of each session."""
    metadata = billing.public.metadata
    accounts, alerts = AccountServiceStub(billing.public.channel), AlertServiceStub(billing.public.channel)
    created = await accounts.CreateAccount(
        account_pb.CreateAccountRequest(display_name="Bench", email="bench@example.org"), metadata=metadata
    )
    account_id: str = created.account.account_id
    hook = await alerts.CreateWebhook(pb.CreateWebhookRequest(account_id=account_id, url=url), metadata=metadata)
    settings = pb.AlertSettings(thresholds=THRESHOLDS, sinks=[pb.AlertSink(webhook_id=hook.webhook.webhook_id)])
    request = pb.UpdateAlertSettingsRequest(
        account_id=account_id, alert_settings=settings, update_mask=FieldMask(paths=["thresholds", "sinks"])
    )
    await alerts.UpdateAlertSettings(request, metadata=metadata)
    return account_id


async def _session(quota: Server, account_id: str) -> float:
    """Runs a session; answers when its commit was answered."""
    stub, metadata = QuotaServiceStub(quota.channel.channel), quota.channel.metadata
    session_id = f"ses_{_uuid7()}"
    candidate = type_pb2.Candidate(provider="openai", model="m", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
    names: dict[str, Any] = {"account_id": account_id, "session_id": session_id}
    await stub.ReserveSession(quota_pb.ReserveSessionRequest(**names, candidates=[candidate]), metadata=metadata)
    outcome = type_pb2.SessionOutcome(served_provider="openai", served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
    await stub.CommitSession(quota_pb.CommitSessionRequest(**names, outcome=outcome), metadata=metadata)
    return time.perf_counter()


async def _post(url: str) -> float:
    """A bare POST; answers when it began."""
    begun_s = time.perf_counter()
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
        await response.read()
    return begun_s


def _uuid7() -> str:
    random = uuid.uuid4().hex
    return f"{time.time_ns() // 1_000_000:012x}7{random[13:16]}{random[16:]}"


def _percentile(values: list[float], at: int) -> float:
    return statistics.quantiles(values, n=100)[at - 1]
