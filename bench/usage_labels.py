"""Usage by a label: a page from the rollups beside the ledger's answer, of few values and of one in each session."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.billing import Place
from bench.billing_load import new_account
from bench.processes import ROOT, BillingServer, billing_server, quota_server
from bench.report import PAIRS, Figure, Report, median_of_pairs
from bench.usage_rows import DAY, MONTH_US, START_US, SUMS, TIMEOUT_S, fill, month_query
from services.billing.adapters.migrations.steps import OWNER
from services.billing.adapters.sql.usage_tables import USAGE_LABELS
from services.shared.database.connect import engine_for

ROWS = 100_000
PAGES = 10
PAGE_SIZE = 500
LABELS = {"team": "20 values", "user": "a value in each session"}
LABELS_OF_N = """'{"team":"t' || (n % 20) || '","user":"u' || n || '"}'"""
VALUE = {"sqlite": "labels ->> '{key}'", "postgresql": "CAST(labels AS jsonb) ->> '{key}'"}


async def run(report: Report, place: Place) -> None:
    """Measures both kinds of label on one store."""
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-")))
        quota = await stack.enter_async_context(quota_server(data))
        address = await stack.enter_async_context(place.fresh())
        async with billing_server(data, address, quota.address) as billing:
            account_id = await new_account(billing)
        engine = engine_for(address, OWNER)
        await fill(engine, account_id, ROWS, labels=LABELS_OF_N)
        references = {}
        for key in LABELS:
            await _sum_up(engine, key)
            references[key] = [await _from_ledger_ms(engine, account_id, key) for _ in range(PAIRS)]
        await engine.dispose()
        billing = await stack.enter_async_context(billing_server(data, address, quota.address))
        for key, kind in LABELS.items():
            await _page_ms(billing, account_id, key)
            pairs = [(await _page_ms(billing, account_id, key), one) for one in references[key]]
            value, reference, ratio = median_of_pairs(pairs)
            report.add(
                Figure(
                    f"QueryUsage of a month by day and a label of {kind}, {ROWS:,} sessions of one account",
                    f"1 caller, a page of {PAGE_SIZE} rows, {place.setup}",
                    value,
                    "ms",
                    "ms of the first such page by SQL from the ledger",
                    reference,
                    ratio,
                )
            )


async def _sum_up(engine: AsyncEngine, key: str) -> None:
    value = VALUE[engine.dialect.name].format(key=key)
    served = "period_start_us, served_provider, served_model, served_credential_mode, credential_mode"
    group = f"account_id, reserve_us - reserve_us % 3600000000, {value}, {served}"
    columns = ", ".join(column.name for column in USAGE_LABELS.columns)
    chosen = group.replace("account_id,", f"account_id, '{key}',")
    async with engine.begin() as connection:
        await connection.execute(
            text(f"INSERT INTO usage_labels ({columns}) SELECT {chosen}, {SUMS} FROM ledger GROUP BY {group}")
        )
        await connection.exec_driver_sql("ANALYZE")


async def _from_ledger_ms(engine: AsyncEngine, account_id: str, key: str) -> float:
    query = text(
        f"SELECT {DAY}, {VALUE[engine.dialect.name].format(key=key)}, {SUMS} FROM ledger WHERE account_id = :account "
        f"AND reserve_us >= {START_US} AND reserve_us < {START_US + MONTH_US} GROUP BY 1, 2 ORDER BY 1, 2 "
        f"LIMIT {PAGE_SIZE}"
    )
    async with engine.begin() as connection:
        started_s = time.perf_counter()
        rows = (await connection.execute(query, {"account": account_id})).all()
        assert len(rows) == PAGE_SIZE
        return (time.perf_counter() - started_s) * 1000


async def _page_ms(billing: BillingServer, account_id: str, key: str) -> float:
    """The median of the first pages, one after the other; from the beginning again after the last."""
    stub = UsageServiceStub(billing.public.channel)
    request = month_query(account_id, pb.USAGE_DIMENSION_LABEL)
    request.label_key, request.page_size = key, PAGE_SIZE
    found = []
    for _ in range(PAGES):
        started_s = time.perf_counter()
        page = await stub.QueryUsage(request, metadata=billing.public.metadata, timeout=TIMEOUT_S)
        found.append((time.perf_counter() - started_s) * 1000)
        assert page.rows
        request.page_token = page.next_page_token
    return statistics.median(found)
