"""The billing service: session events into the ledger, API keys, usage; each on SQLite and on PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.billing_load import Authentications, UsageReads, new_account, new_key
from bench.ingest import bare_per_second, conversions_per_second, ingest_per_second
from bench.ledger_rows import ROWS_OF_ACCOUNT, fill, prepare
from bench.load import UnaryReserve, per_second
from bench.processes import ROOT, billing_server, echo_server, quota_server
from bench.report import PAIRS, Figure, Report, median_of_pairs
from tests.support.postgres import Databases, running_server

CALLERS = 32
CALLS = 6_400
READS = 300
FEW = 10_000
MANY = 1_000_000
MANY_IN_LONG_RUN = 10_000_000

SQLITE = "SQLite, WAL, synchronous=FULL"
POSTGRESQL = "PostgreSQL 18, synchronous_commit=on, over a socket"


class Place:
    """Where databases of one kind are made."""

    def __init__(self, setup: str, folder: Path, databases: Databases) -> None:
        self.setup = setup
        self._folder = folder
        self._databases = databases

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """The address of a new database with the current schema."""
        if self.setup == POSTGRESQL:
            with self._databases.fresh() as address:
                await prepare(address)
                yield address
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            address = f"sqlite:///{folder}/billing.db"
            await prepare(address)
            yield address


async def run(report: Report) -> None:
    """Measures all."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder, running_server(fsync="on") as postgres:
        databases = Databases(postgres.address, postgres.address())
        for setup in (SQLITE, POSTGRESQL):
            place = Place(setup, Path(folder), databases)
            await _ingest(report, place)
            await _authentications(report, place)
            await _usage(report, place)
    value = conversions_per_second()
    report.add(Figure("session events converted from their messages", "1 process, before they are stored", value, "/s"))


async def _ingest(report: Report, place: Place) -> None:
    pairs = []
    for _ in range(PAIRS):
        async with place.fresh() as address:
            reference = bare_per_second(address)
        async with place.fresh() as address:
            pairs.append((await ingest_per_second(address), reference))
    value, reference, ratio = median_of_pairs(pairs)
    report.add(
        Figure(
            "session events into the ledger, with cursors",
            f"the reader in 1 process, {place.setup}",
            value,
            "events/s",
            "rows/s of the driver's bare executemany",
            reference,
            ratio,
            ">= 0.5 x",
            ratio >= 0.5,
        )
    )


async def _authentications(report: Report, place: Place) -> None:
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        data = Path(folder)
        async with (
            place.fresh() as address,
            billing_server(data, address, "127.0.0.1:1") as billing,
            echo_server(data / "none") as echo,
        ):
            keys = [await new_key(billing, await new_account(billing)) for _ in range(20)]
            work, bare = Authentications(billing, keys), UnaryReserve(echo, 1)
            for warm in (work, bare):
                await per_second(warm, CALLERS, CALLS // 10)
            pairs = []
            for _ in range(PAIRS):
                reference = await per_second(bare, CALLERS, CALLS)
                pairs.append((await per_second(work, CALLERS, CALLS), reference))
    value, reference, ratio = median_of_pairs(pairs)
    report.add(
        Figure(
            "AuthenticateApiKey, unary",
            f"{CALLERS} callers in 1 process, 1 server process, {place.setup}",
            value,
            "calls/s",
            "calls/s of bare unary echo",
            reference,
            ratio,
        )
    )


async def _usage(report: Report, place: Place) -> None:
    many = MANY_IN_LONG_RUN if report.long else MANY
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        data = Path(folder)
        # One quota for both, so that what differs is the ledger alone.
        async with quota_server(data) as quota, place.fresh() as small, place.fresh() as large:
            accounts = []
            for address, rows in ((small, FEW), (large, many)):
                async with billing_server(data, address, quota.address) as billing:
                    accounts.append(await new_account(billing))
                await fill(address, accounts[-1], rows)
            async with (
                billing_server(data, small, quota.address) as few,
                billing_server(data, large, quota.address) as much,
            ):
                reads = [UsageReads(few, accounts[0]), UsageReads(much, accounts[1])]
                pairs = []
                for number in range(PAIRS + 1):
                    reference, value = [await one.median_ms(READS // PAIRS) for one in reads]
                    if number:  # the first is the warming
                        pairs.append((value, reference))
    value, reference, ratio = median_of_pairs(pairs)
    report.add(
        Figure(
            f"GetUsage at {many:,} ledger rows",
            f"1 caller, {ROWS_OF_ACCOUNT:,} rows of the account's present period, {place.setup}",
            value,
            "ms",
            f"ms at {FEW:,} rows",
            reference,
            ratio,
            "<= 1.5 x",
            ratio <= 1.5,
        )
    )
