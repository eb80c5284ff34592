"""Alerts and budgets: from a session's commit, answered by quota, to what follows from it.

To a webhook's request at its receiver: quota's event, billing's reader, the ledger's transaction, the delivery's lease,
the guarded request. Beside it a bare POST to the same receiver, each on a connection of its own, as deliveries are.
To the first refusal at quota: the same event and transaction, the account's entitlement, its way to quota. Beside it a
bare reserve.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import grpc
from aiohttp import web
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceStub
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1.quota_service_pb2_grpc import QuotaServiceStub
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from bench.billing import POSTGRESQL, SQLITE
from bench.billing_load import TIMEOUT_SECONDS, new_account
from bench.load import new_session_id
from bench.processes import ROOT, BillingServer, Server, billing_server, quota_server
from bench.report import Figure, Report
from services.shared.errors import Reason
from services.shared.status import error_from_rpc
from tests.support.database import migrated
from tests.support.postgres import Databases, running_server

ACCOUNTS = 15
THRESHOLDS = range(4, 81, 4)
"""Of a limit of 25: each session reaches one."""
ARRIVES_SECONDS = 30

BLOCKED_ACCOUNTS = 100
BLOCKS_BAR_MS = 1_000.0
"""From the session that crossed a budget to quota's refusal, at the 99th percentile."""
MODEL = "gpt-4o-mini"


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
        refused_ms, reserves_ms = [], []
        for _ in range(BLOCKED_ACCOUNTS):
            account_id = await new_account(billing)
            await _set_budget(billing, account_id, await _invoiced(billing, account_id))
            reserves_ms.append(await _reserve_ms(quota, account_id))
            refused_ms.append(await _refused_after_ms(quota, account_id))
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
        value, reference = _percentile(refused_ms, at), _percentile(reserves_ms, at)
        report.add(
            Figure(
                f"BLOCK from the crossing session's commit to quota's first refusal, {name}",
                f"{setup}; {BLOCKED_ACCOUNTS} accounts one after the other, 1 caller that tries again and again",
                value,
                "ms",
                "ms, a bare reserve",
                reference,
                value / reference,
                *((f"<= {BLOCKS_BAR_MS:.0f} ms", value <= BLOCKS_BAR_MS) if at == 99 else ()),
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


async def _invoiced(billing: BillingServer, account_id: str) -> Money:
    """What an account's first period has been charged."""
    stub = UsageServiceStub(billing.public.channel)
    request = usage_pb.GetUsageRequest(account_id=account_id)
    answer = await stub.GetUsage(request, metadata=billing.public.metadata, timeout=TIMEOUT_SECONDS)
    return answer.usage.current_charges


async def _release(quota: Server, account_id: str, session_id: str) -> None:
    """Ends a session uncounted, so that they are never too many at a time."""
    request = quota_pb.ReleaseSessionRequest(
        account_id=account_id, session_id=session_id, reason=type_pb2.RELEASE_REASON_CLIENT_CANCELLED
    )
    await QuotaServiceStub(quota.channel.channel).ReleaseSession(
        request, metadata=quota.channel.metadata, timeout=TIMEOUT_SECONDS
    )


async def _set_budget(billing: BillingServer, account_id: str, most: Money) -> None:
    """Any session with a cost is beyond it."""
    budget = budget_pb2.Budget(max_monthly_cost=most, action=budget_pb2.BUDGET_ACTION_BLOCK)
    request = pb.UpdateAlertSettingsRequest(
        account_id=account_id, alert_settings=pb.AlertSettings(budget=budget), update_mask=FieldMask(paths=["budget"])
    )
    stub = AlertServiceStub(billing.public.channel)
    answer = await stub.UpdateAlertSettings(request, metadata=billing.public.metadata, timeout=TIMEOUT_SECONDS)
    assert answer.entitlement_applied


async def _reserve_ms(quota: Server, account_id: str) -> float:
    begun_s = time.perf_counter()
    await _reserve(quota, account_id)
    return (time.perf_counter() - begun_s) * 1000


async def _refused_after_ms(quota: Server, account_id: str) -> float:
    """Runs the session that crosses a budget, then reserves until one is refused for it."""
    begun_s = await _session(quota, account_id)
    while True:
        try:
            await _release(quota, account_id, await _reserve(quota, account_id))
        except grpc.aio.AioRpcError as error:
            found = error_from_rpc(error)
            assert found is not None
            assert found.reason is Reason.BUDGET_EXCEEDED
            return (time.perf_counter() - begun_s) * 1000
        assert time.perf_counter() - begun_s < ARRIVES_SECONDS


async def _session(quota: Server, account_id: str) -> float:
    """Runs a session of a known cost; answers when its commit was answered."""
    session_id = await _reserve(quota, account_id)
    outcome = type_pb2.SessionOutcome(
        served_provider="openai",
        served_model=MODEL,
        served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK,
        input_tokens=1_000,
        output_tokens=1_000,
    )
    request = quota_pb.CommitSessionRequest(account_id=account_id, session_id=session_id, outcome=outcome)
    await QuotaServiceStub(quota.channel.channel).CommitSession(request, metadata=quota.channel.metadata)
    return time.perf_counter()


async def _reserve(quota: Server, account_id: str) -> str:
    """Reserves a session; answers its id."""
    candidate = type_pb2.Candidate(provider="openai", model=MODEL, credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
    request = quota_pb.ReserveSessionRequest(account_id=account_id, session_id=new_session_id(), candidates=[candidate])
    await QuotaServiceStub(quota.channel.channel).ReserveSession(
        request, metadata=quota.channel.metadata, timeout=TIMEOUT_SECONDS
    )
    return request.session_id


async def _post(url: str) -> float:
    """A bare POST; answers when it began."""
    begun_s = time.perf_counter()
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
        await response.read()
    return begun_s


def _percentile(values: list[float], at: int) -> float:
    return statistics.quantiles(values, n=100)[at - 1]
