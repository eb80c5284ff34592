"""Fills a month of one account with sessions and their sums, and asks for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.ledger_rows import NUMBERS, TEXTS
from services.billing.adapters.sql.tables import LEDGER
from services.billing.adapters.sql.usage_tables import USAGE_HOURS

MONTH_US = 30 * 24 * 3_600 * 1_000_000
START_US = 1_788_220_800 * 1_000_000
"""1 September 2026."""
TIMEOUT_S = 60
SUMS = "COUNT(*), 0, 0, SUM(input_tokens), SUM(output_tokens), 0, 0, 0, 0, SUM(provider_cost_micro), 0"
HOUR = "reserve_us - reserve_us % 3600000000"
DAY = "reserve_us - reserve_us % 86400000000"
AT_ONCE = 1_000_000


async def fill(engine: AsyncEngine, account_id: str, rows: int, labels: str = ":labels") -> None:
    """Counted sessions of one account, even over a month, on four models; and their sums by hour.

    `labels` is the SQL of a session's labels, of its number `n`.
    """
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
        "labels": labels,
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
            await without_timeout(engine, connection)
            span = TEXTS | {"first": first, "last": min(rows, first + AT_ONCE), "account": account_id}
            await connection.execute(statement, span)
    async with engine.begin() as connection:
        await without_timeout(engine, connection)
        sums = f"INSERT INTO usage_hours ({columns}) SELECT {key}, {SUMS} FROM ledger GROUP BY {key}"
        await connection.execute(text(sums))
        await connection.exec_driver_sql("ANALYZE")


async def without_timeout(engine: AsyncEngine, connection: Any) -> None:
    """Lets PostgreSQL take as long as it takes."""
    if engine.dialect.name == "postgresql":
        await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def month_query(account_id: str, *group_by: pb.UsageDimension.ValueType) -> pb.QueryUsageRequest:
    """The month by day and groups."""
    request = pb.QueryUsageRequest(account_id=account_id, granularity=pb.USAGE_GRANULARITY_DAY, group_by=group_by)
    request.start_time.FromDatetime(datetime.fromtimestamp(START_US / 1e6, UTC))
    request.end_time.FromDatetime(datetime.fromtimestamp((START_US + MONTH_US) / 1e6, UTC))
    return request
