"""Usage: a month's sums from the rollups beside the same answer from the ledger, and many who watch."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1.quota_service_pb2_grpc import QuotaServiceStub
from flowstack_protos.type.v1 import type_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench import usage_labels
from bench.billing import MANY, MANY_IN_LONG_RUN, POSTGRESQL, SQLITE, Place
from bench.billing_load import new_account
from bench.load import reserve_request
from bench.processes import ROOT, BillingServer, Server, allow_many_files, billing_server, quota_server
from bench.report import PAIRS, Figure, Report, median_of_pairs
from bench.usage_rows import DAY, MONTH_US, START_US, SUMS, TIMEOUT_S, fill, month_query, without_timeout
from services.billing.adapters.migrations.steps import OWNER
from services.shared.database.connect import engine_for
from tests.support.postgres import Databases, running_server

BAR_MS = 50.0
QUERIES = 20
WATCHERS = 1_000
CHANGES = 10


async def run(report: Report) -> None:
    """Measures all."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder, running_server(fsync="on") as postgres:
        databases = Databases(postgres.address, postgres.address())
        for setup in (SQLITE, POSTGRESQL):
            place = Place(setup, Path(folder), databases)
            await _queries(report, place)
            await usage_labels.run(report, place)
        await _watchers(report, Place(SQLITE, Path(folder), databases))


async def _queries(report: Report, place: Place) -> None:
    rows = MANY_IN_LONG_RUN if report.long else MANY
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-")))
        quota = await stack.enter_async_context(quota_server(data))
        address = await stack.enter_async_context(place.fresh())
        async with billing_server(data, address, quota.address) as billing:
            account_id = await new_account(billing)
        engine = engine_for(address, OWNER)
        await fill(engine, account_id, rows)
        reference = [await _from_ledger_ms(engine, account_id) for _ in range(PAIRS)]
        await engine.dispose()
        billing = await stack.enter_async_context(billing_server(data, address, quota.address))
        await _query_ms(billing, account_id)
        pairs = [(await _query_ms(billing, account_id), one) for one in reference]
    value, reference_ms, ratio = median_of_pairs(pairs)
    report.add(
        Figure(
            f"QueryUsage of a month by day, provider and model, {rows:,} sessions of one account",
            f"1 caller, {place.setup}",
            value,
            "ms",
            "ms of the same sums by SQL from the ledger",
            reference_ms,
            ratio,
            f"<= {BAR_MS:.0f} ms",
            value <= BAR_MS,
        )
    )


async def _from_ledger_ms(engine: AsyncEngine, account_id: str) -> float:
    query = text(
        f"SELECT {DAY}, served_provider, served_model, {SUMS} FROM ledger WHERE account_id = :account "
        f"AND reserve_us >= {START_US} AND reserve_us < {START_US + MONTH_US} GROUP BY 1, 2, 3"
    )
    async with engine.begin() as connection:
        await without_timeout(engine, connection)
        started_s = time.perf_counter()
        rows = (await connection.execute(query, {"account": account_id})).all()
        assert len(rows) == 120
        return (time.perf_counter() - started_s) * 1000


async def _query_ms(billing: BillingServer, account_id: str) -> float:
    stub = UsageServiceStub(billing.public.channel)
    request = month_query(account_id, pb.USAGE_DIMENSION_PROVIDER, pb.USAGE_DIMENSION_MODEL)
    found = []
    for _ in range(QUERIES):
        started_s = time.perf_counter()
        response = await stub.QueryUsage(request, metadata=billing.public.metadata, timeout=TIMEOUT_S)
        found.append((time.perf_counter() - started_s) * 1000)
        assert len(response.rows) == 120
    return statistics.median(found)


async def _watchers(report: Report, place: Place) -> None:
    """From a commit's answer at quota until every one of many watchers of the account has it."""
    allow_many_files()
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-")))
        quota = await stack.enter_async_context(quota_server(data))
        address = await stack.enter_async_context(place.fresh())
        billing = await stack.enter_async_context(billing_server(data, address, quota.address))
        account_id = await new_account(billing)
        one = await _until_all_have_it_ms(billing, quota, account_id, 1)
        many = await _until_all_have_it_ms(billing, quota, account_id, WATCHERS)
    report.add(
        Figure(
            f"WatchUsage: from a commit to the last of {WATCHERS:,} watchers of one account",
            f"1 process of watchers, {place.setup}",
            many,
            "ms",
            "ms with 1 watcher",
            one,
            many / one,
        )
    )


async def _until_all_have_it_ms(billing: BillingServer, quota: Server, account_id: str, watchers: int) -> float:
    stub = UsageServiceStub(billing.public.channel)
    request = pb.WatchUsageRequest(account_id=account_id)
    calls = [stub.WatchUsage(request, metadata=billing.public.metadata) for _ in range(watchers)]
    first: list[Any] = await asyncio.gather(*(call.read() for call in calls))
    used = first[0].usage.sessions_used
    found = []
    for _ in range(CHANGES):
        used += 1
        session = await _reserve(quota, account_id)
        started_s = time.perf_counter()
        await _commit(quota, account_id, session)
        await asyncio.gather(*(_until_used(call, used) for call in calls))
        found.append((time.perf_counter() - started_s) * 1000)
    for call in calls:
        call.cancel()
    return statistics.median(found)


async def _until_used(call: Any, used: int) -> None:
    while (await call.read()).usage.sessions_used < used:
        pass


async def _reserve(quota: Server, account_id: str) -> str:
    request = reserve_request(account_id)
    await QuotaServiceStub(quota.channel.channel).ReserveSession(request, metadata=quota.channel.metadata)
    return request.session_id


async def _commit(quota: Server, account_id: str, session_id: str) -> None:
    outcome = type_pb2.SessionOutcome(finish_reason=type_pb2.FINISH_REASON_STOP)
    request = quota_pb.CommitSessionRequest(account_id=account_id, session_id=session_id, outcome=outcome)
    await QuotaServiceStub(quota.channel.channel).CommitSession(request, metadata=quota.channel.metadata)
