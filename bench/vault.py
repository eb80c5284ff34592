"""The vault: a sorted and filtered query over many documents, with an index of what it sorts by and without.

Two collections hold the same documents. One gets an index as it would by itself; of the other nobody builds what its
queries wish for.
"""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text

from bench.processes import ROOT
from bench.report import PAIRS, Figure, Report, median_of_pairs
from services.shared.clock import SystemClock
from services.shared.database.connect import engine_for, name_of
from services.shared.paging import PageTokens
from services.shared.secret import Secret
from services.vault.adapters.migrations.steps import MIGRATIONS, OWNER
from services.vault.adapters.sql.database import Database, open_database
from services.vault.domain.sorting import sort_field
from services.vault.service.documents import DocumentService, NewDocument
from services.vault.service.indexing import Indexing, Wish
from services.vault.service.queries import Query, QueryService
from tests.support.postgres import Databases, running_server

FEW: Final = 10_000
MANY: Final = 100_000
MANY_IN_LONG_RUN: Final = 1_000_000
PAYS_FROM: Final = 20_000
"""From so many documents on an index has to pay in every query that it serves, the call's own round trips included:
each store pays for it too, and on SQLite a look through more than some 10,000 takes longer than its turn. A query by
an index reads the same few entries however many documents there are, and one without looks at all of them, so that
this says what the ratio may be at every size."""
READS: Final = 20
STORES: Final = 200
ACCOUNT: Final = "acct_bench"
INDEXED: Final = "usage_history"
PLAIN: Final = "usage_history_without"

NUMBERS: Final = {
    "sqlite": "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows - 1)",
    "postgresql": "WITH numbers (n) AS (SELECT generate_series(0, CAST(:rows AS bigint) - 1))",
}
# Keys are in another order than what is sorted by, as those of real documents.
KEY: Final = "'k' || substr(CAST(1000000000 + n * 7919 % :rows AS text), 2)"
STAMP: Final = "'2026-' || substr(CAST(1000000000 + n AS text), 2)"
KIND: Final = "CAST(n % 10 AS text)"
FILLER: Final = "x" * 120

SETUPS: Final = {
    "sqlite": "SQLite, WAL, synchronous=FULL",
    "postgresql": "PostgreSQL 18, synchronous_commit=on, over a socket",
}


async def fill(address: str, rows: int, *collections: str) -> None:
    """Makes the schema, and collections of so many documents, by the database itself."""
    engine = engine_for(address, OWNER)
    values: dict[str, str] = {
        "account_id": ":account",
        "collection": ":collection",
        "key": KEY,
        "version": "1",
        "create_us": "1000000 + n",
        "update_us": "1000000 + n",
        "expire_us": "0",
        "size_bytes": "200",
        "body": f"""'{{"kind":"2' || {KIND} || '","note":"2{FILLER}","stamp":"2' || {STAMP} || '"}}'""",
        "text": f"""'{{"stamp":"' || {STAMP} || '","kind":"' || {KIND} || '","note":"{FILLER}"}}'""",
    }
    dialect = engine.dialect.name
    selected = [
        f"CAST({value} AS jsonb)" if n == "body" and dialect == "postgresql" else value for n, value in values.items()
    ]
    insert = f"INSERT INTO documents ({', '.join(values)}) {NUMBERS[dialect]} SELECT {', '.join(selected)} FROM numbers"
    async with engine.begin() as connection:
        if dialect == "sqlite":
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        await connection.run_sync(MIGRATIONS.migrate, name_of(engine))
        await connection.execute(
            text("INSERT INTO accounts VALUES (:account, :bytes, 0)"), {"account": ACCOUNT, "bytes": rows}
        )
        for collection in collections:
            scope: dict[str, Any] = {"account": ACCOUNT, "collection": collection}
            await connection.execute(text(insert.replace(":rows", str(rows))), scope)
            await connection.execute(
                text("INSERT INTO collections VALUES (:account, :collection, :rows, :rows, 1)"), scope | {"rows": rows}
            )
    await engine.dispose()


async def analyse(database: Database) -> None:
    """Gives PostgreSQL's planner the statistics that autovacuum would have gathered by then."""
    if database.shared:
        async with database.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql("SET statement_timeout = 0")
            await connection.exec_driver_sql("VACUUM ANALYZE")


@dataclass
class Vault:
    """The use cases on one collection."""

    database: Database
    collection: str
    rows: int

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.indexing = Indexing(self.database, clock)
        tokens: PageTokens[Any] = PageTokens(Secret("bench"))
        self.queries = QueryService(self.database, clock, tokens, self.indexing, 1 << 40)
        self.documents = DocumentService(self.database, clock, secrets.token_bytes, 1 << 40)

    async def build_index(self) -> float:
        """Makes the index; answers how many documents were entered in a second."""
        started_s = time.perf_counter()
        self.indexing.wish(Wish(ACCOUNT, self.collection, ("stamp",)))
        while await self.indexing.run_once():
            pass
        elapsed_s = time.perf_counter() - started_s
        await analyse(self.database)
        return self.rows / elapsed_s

    async def query_ms(self, reads: int) -> float:
        """The median duration of a query: the newest 30 documents of a kind, of the last half."""
        middle = f"2026-{self.rows // 2:09}"
        query = Query(
            ACCOUNT,
            self.collection,
            f'{{"stamp":{{"$gte":"{middle}"}},"kind":"3"}}',
            (sort_field("stamp", descending=True),),
            30,
            "",
        )
        found = []
        for _ in range(reads):
            started_s = time.perf_counter()
            page = await self.queries.query(query)
            found.append(time.perf_counter() - started_s)
            assert len(page.documents) == 30
        return statistics.median(found) * 1000

    async def store_ms(self) -> float:
        """The median duration of a store."""
        found = []
        for number in range(STORES // PAIRS):
            content = f'{{"stamp":"2027-{number:09}","kind":"0","note":"{FILLER}"}}'
            started_s = time.perf_counter()
            await self.documents.store(ACCOUNT, NewDocument(self.collection, None, content, None, None))
            found.append(time.perf_counter() - started_s)
        return statistics.median(found) * 1000


async def run(report: Report) -> None:
    """Measures all, on each store."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder, running_server(fsync="on") as postgres:
        databases = Databases(postgres.address, postgres.address())
        await _measure(report, "sqlite", f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/many.db")
        with databases.fresh() as few, databases.fresh() as many:
            await _measure(report, "postgresql", few, many)


async def _measure(report: Report, dialect: str, few_address: str, many_address: str) -> None:
    rows = MANY_IN_LONG_RUN if report.long else MANY
    await fill(few_address, FEW, INDEXED)
    await fill(many_address, rows, INDEXED, PLAIN)
    few_database, database = await open_database(few_address), await open_database(many_address)
    few, many, plain = Vault(few_database, INDEXED, FEW), Vault(database, INDEXED, rows), Vault(database, PLAIN, rows)
    try:
        rate = await many.build_index()
        await few.build_index()
        for warm, reads in ((few, READS), (many, READS), (plain, 1)):
            await warm.query_ms(reads)
        pairs = [(await many.query_ms(READS), await plain.query_ms(1)) for _ in range(PAIRS)]
        growth = [(await many.query_ms(READS), await few.query_ms(READS)) for _ in range(PAIRS)]
        stores = [(await many.store_ms(), await plain.store_ms()) for _ in range(PAIRS)]
    finally:
        await few_database.close()
        await database.close()
    setup, bar = f"1 caller, in 1 process, {SETUPS[dialect]}", PAYS_FROM / rows
    value, reference, ratio = median_of_pairs(pairs)
    report.add(
        Figure(
            f"sorted query over {rows:,} documents, with an index", setup, value, "ms", "ms without", reference, ratio,
            f"<= {bar} x", ratio <= bar,
        )
    )  # fmt: skip
    value, reference, ratio = median_of_pairs(growth)
    report.add(
        Figure(
            f"the same with an index, {rows:,} documents", setup, value, "ms", f"ms over {FEW:,}", reference, ratio,
            "<= 1.5 x", ratio <= 1.5,
        )
    )  # fmt: skip
    value, reference, ratio = median_of_pairs(stores)
    report.add(Figure("store of a document, with an index", setup, value, "ms", "ms without", reference, ratio))
    report.add(Figure("documents entered into a new index", setup, rate, "/s"))
