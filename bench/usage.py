"""Usage: a month's sums from the rollups beside the same answer from the ledger, and many who watch."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.quota.v1.quota_service_pb2_grpc import QuotaServiceStub
from flowstack_protos.type.v1 import type_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.billing import MANY, MANY_IN_LONG_RUN, POSTGRESQL, SQLITE, Place
from bench.billing_load import new_account
from bench.ledger_rows import NUMBERS, TEXTS
from bench.load import reserve_request
from bench.processes import ROOT, BillingServer, Server, allow_many_files, billing_server, quota_server
from bench.report import PAIRS, Figure, Report, median_of_pairs
from services.billing.adapters.sql.connect import engine_for
from services.billing.adapters.sql.tables import LEDGER
from services.billing.adapters.sql.usage_tables import USAGE_HOURS
from tests.support.postgres import Databases, running_server

BAR_MS = 50.0
QUERIES = 20
WATCHERS = 1_000
CHANGES = 10
MONTH_US = 30 * 24 * 3_600 * 1_000_000
START_US = 1_788_220_800 * 1_000_000
"""1 September 2026."""
TIMEOUT_S = 60
SUMS = "COUNT(*), 0, 0, SUM(input_tokens), SUM(output_tokens), 0, 0, 0, 0, SUM(provider_cost_micro), 0"
HOUR = "reserve_us - reserve_us % 3600000000"
DAY = "reserve_us - reserve_us % 86400000000"
AT_ONCE = 1_000_000


async def run(report: Report) -> None:
    """Measures all."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder, running_server(fsync="on") as postgres:
        databases = Databases(postgres.address, postgres.address())
        for setup in (SQLITE, POSTGRESQL):
            await _queries(report, Place(setup, Path(folder), databases))
        await _watchers(report, Place(SQLITE, Path(folder), databases))


async def _queries(report: Report, place: Place) -> None:
    rows = MANY_IN_LONG_RUN if report.long else MANY
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-")))
        quota = await stack.enter_async_context(quota_server(data))
        address = await stack.enter_async_context(place.fresh())
        async with billing_server(data, address, quota.address) as billing:
            account_id = await new_account(billing)
        engine = engine_for(address)
        await _fill(engine, account_id, rows)
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


async def _fill(engine: AsyncEngine, account_id: str, rows: int) -> None:
    """Counted sessions of one account, even over a month, on four models; and their sums."""
    values: dict[str, Any] = {column.name: "''" if column.type.python_type is str else "0" for column in LEDGER.c}
    values |= {
        "account_id": ":account",
        "session_id": "'ses_0199c0a4f0007abc8def' || n",
        "event": "1",
        "state": "2",
        "period_start_us": str(START_US),
        "reserve_us": f"{START_US} + n * {MONTH_US // rows}",
        "credential_mode": "2",
        "served_credential_mode": "2",
        "served_provider": "'openai'",
        "served_model": "'model-' || (n % 4)",
        "input_tokens": "1000",
        "output_tokens": "200",
        "provider_cost_micro": "n % 1000",
        "tokens_estimated": "false",
        "labels": ":labels",
        "detail": ":detail",
    }
    statement = text(
        f"INSERT INTO ledger ({', '.join(values)}) {NUMBERS[engine.dialect.name]} "
        f"SELECT {', '.join(values.values())} FROM numbers"
    )
    key = f"account_id, {HOUR}, period_start_us, served_provider, served_model, served_credential_mode, credential_mode"
    columns = ", ".join(column.name for column in USAGE_HOURS.columns)
    for first in range(0, rows, AT_ONCE):
        async with engine.begin() as connection:
            await _without_timeout(engine, connection)
            span = TEXTS | {"first": first, "last": min(rows, first + AT_ONCE), "account": account_id}
            await connection.execute(statement, span)
    async with engine.begin() as connection:
        await _without_timeout(engine, connection)
        sums = f"INSERT INTO usage_hours ({columns}) SELECT {key}, {SUMS} FROM ledger GROUP BY {key}"
        await connection.execute(text(sums))
        await connection.exec_driver_sql("ANALYZE")


async def _without_timeout(engine: AsyncEngine, connection: Any) -> None:
    if engine.dialect.name == "postgresql":
        await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


async def _from_ledger_ms(engine: AsyncEngine, account_id: str) -> float:
    query = text(
        f"SELECT {DAY}, served_provider, served_model, {SUMS} FROM ledger WHERE account_id = :account "
        f"AND reserve_us >= {START_US} AND reserve_us < {START_US + MONTH_US} GROUP BY 1, 2, 3"
    )
    async with engine.begin() as connection:
        await _without_timeout(engine, connection)
        started_s = time.perf_counter()
        rows = (await connection.execute(query, {"account": account_id})).all()
        assert len(rows) == 120
        return (time.perf_counter() - started_s) * 1000


async def _query_ms(billing: BillingServer, account_id: str) -> float:
    stub = UsageServiceStub(billing.public.channel)
    request = pb.QueryUsageRequest(
        account_id=account_id,
        granularity=pb.USAGE_GRANULARITY_DAY,
        group_by=[pb.USAGE_DIMENSION_PROVIDER, pb.USAGE_DIMENSION_MODEL],
    )
    request.start_time.FromDatetime(datetime.fromtimestamp(START_US / 1e6, UTC))
    request.end_time.FromDatetime(datetime.fromtimestamp((START_US + MONTH_US) / 1e6, UTC))
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
