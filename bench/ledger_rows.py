"""Fills a ledger before its server starts, by the database itself."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import insert, text

from bench.ingest import ACCOUNTS_WITH_EVENTS, account_rows
from services.billing.adapters.migrations.steps import MIGRATIONS, OWNER
from services.billing.adapters.sql.tables import ACCOUNTS, LEDGER
from services.shared.database.connect import engine_for, name_of

ROWS_OF_ACCOUNT = 1_000
"""Sessions of one account, all in its present period: so many customers as there are thousands of rows."""

NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last - 1)",
    "postgresql": "WITH numbers (n) AS (SELECT generate_series(CAST(:first AS bigint), :last - 1))",
}
AT_ONCE = 1_000_000
TEXTS: dict[str, Any] = {
    "labels": '{"app":"bench","team":"billing"}',
    "detail": '{"candidates":[["openai","gpt-4o-mini",2]],"provider_latency_us":812345}',
}


async def prepare(address: str) -> None:
    """Makes the schema, and the accounts that the events of `bench.ingest` are of."""
    engine = engine_for(address, OWNER)
    async with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        await connection.run_sync(MIGRATIONS.migrate, name_of(engine))
        await connection.execute(insert(ACCOUNTS), account_rows(ACCOUNTS_WITH_EVENTS))
    await engine.dispose()


async def fill(address: str, account_id: str, rows: int) -> None:
    """Appends counted sessions: `ROWS_OF_ACCOUNT` of the account, and as many of each of others up to `rows`."""
    engine = engine_for(address, OWNER)
    now_us = time.time_ns() // 1000
    values: dict[str, Any] = {column.name: "''" if column.type.python_type is str else "0" for column in LEDGER.c}
    values |= {
        "account_id": f"CASE WHEN n < {ROWS_OF_ACCOUNT} THEN :account ELSE 'acct_' || (n / {ROWS_OF_ACCOUNT}) END",
        "session_id": "'ses_0199c0a4f0007abc8def' || n",
        "event": "1",
        "event_us": f"{now_us} + n % 1000",
        "state": "2",
        # Of the period that the account's subscription began at this moment.
        "period_start_us": "(SELECT anchor_us FROM subscriptions WHERE account_id = :account)",
        "reserve_us": f"{now_us} + n % 1000",
        "credential_mode": "1 + n % 2",
        "tokens_estimated": "false",
        "labels": ":labels",
        "detail": ":detail",
    }
    statement = text(
        f"INSERT INTO ledger ({', '.join(values)}) {NUMBERS[engine.dialect.name]} "
        f"SELECT {', '.join(values.values())} FROM numbers"
    )
    for first in range(0, rows, AT_ONCE):
        async with engine.begin() as connection:
            span = TEXTS | {"first": first, "last": min(rows, first + AT_ONCE), "account": account_id}
            if engine.dialect.name == "postgresql":
                await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            await connection.execute(statement, span)
    async with engine.connect() as connection:
        # As autovacuum and the planner's statistics would have it after a while.
        if engine.dialect.name == "postgresql":
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql("SET statement_timeout = 0")
            await connection.exec_driver_sql("VACUUM ANALYZE ledger")
    await engine.dispose()
