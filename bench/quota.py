"""The quota service: exact and durable, beside a bare echo of the same messages."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.load import StreamedSessions, UnaryReserve, per_second
from bench.population import add_accounts, add_sessions
from bench.processes import ROOT, Server, echo_server, quota_server
from bench.report import PAIRS, Figure, Report, median_of_pairs
from services.router.adapters.quota_client import QuotaClient

UNARY_CALLERS = 32
UNARY_CALLS = 6_400
STREAM_CALLERS = 1_000
STREAM_SESSIONS = 20_000
LONE_CALLS = 1_000
ACCOUNTS = 1_000
MANY = 1_000_000
SCALE_CALLS = 1_500

DURABLE = "SQLite, WAL, synchronous=FULL"


async def run(report: Report) -> None:
    """Measures all."""
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=ROOT) as folder:
        data = Path(folder)
        add_accounts(data / "quota.db", ACCOUNTS)
        async with quota_server(data) as quota, echo_server(data / "none") as echo:
            await _throughput(report, quota, echo)
            await _lone(report, quota, echo)
    await _many_accounts(report)
    await _many_sessions(report)


async def _throughput(report: Report, quota: Server, echo: Server) -> None:
    unary, bare = UnaryReserve(quota, ACCOUNTS), UnaryReserve(echo, ACCOUNTS)
    client = QuotaClient(quota.channel, answer_s=30.0)
    await client.start()
    sessions = StreamedSessions(client, ACCOUNTS)
    for work, count in ((unary, 640), (bare, 640), (sessions, 2_000)):
        await per_second(work, UNARY_CALLERS, count)  # warm
    unary_pairs, stream_pairs = [], []
    for _ in range(PAIRS):
        reference = await per_second(bare, UNARY_CALLERS, UNARY_CALLS)
        unary_pairs.append((await per_second(unary, UNARY_CALLERS, UNARY_CALLS), reference))
        reference = await per_second(bare, UNARY_CALLERS, UNARY_CALLS)
        stream_pairs.append((await per_second(sessions, STREAM_CALLERS, STREAM_SESSIONS), reference))
    await client.close()
    value, reference, ratio = median_of_pairs(unary_pairs)
    report.add(
        Figure(
            "ReserveSession, unary",
            f"{UNARY_CALLERS} callers in 1 process, 1 server process, {DURABLE}",
            value,
            "calls/s",
            "calls/s of bare unary echo",
            reference,
            ratio,
            ">= 0.8 x",
            ratio >= 0.8,
        )
    )
    value, reference, ratio = median_of_pairs(stream_pairs)
    report.add(
        Figure(
            "reserve + commit through ExecuteCommands",
            f"{STREAM_CALLERS} callers in 1 process, 1 server process, {DURABLE}",
            value,
            "sessions/s",
            "calls/s of bare unary echo",
            reference,
            ratio,
            ">= 3 x",
            ratio >= 3,
        )
    )


async def _lone(report: Report, quota: Server, echo: Server) -> None:
    bare = await UnaryReserve(echo, ACCOUNTS).latencies_s(LONE_CALLS)
    lone = await UnaryReserve(quota, ACCOUNTS).latencies_s(LONE_CALLS)
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        place = int(LONE_CALLS * share)
        report.add(
            Figure(
                f"lone unary reserve, {name}",
                f"1 caller, {DURABLE}",
                lone[place] * 1000,
                "ms",
                "ms of bare unary echo",
                bare[place] * 1000,
                lone[place] / bare[place],
            )
        )


async def _many_accounts(report: Report) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bench-data-", dir=ROOT) as few_folder,
        tempfile.TemporaryDirectory(prefix="bench-data-", dir=ROOT) as many_folder,
    ):
        few, many = Path(few_folder), Path(many_folder)
        add_accounts(few / "quota.db", ACCOUNTS)
        add_accounts(many / "quota.db", MANY)
        async with quota_server(few) as small, quota_server(many) as large:
            value, reference, ratio = await _times(UnaryReserve(large, MANY), UnaryReserve(small, ACCOUNTS))
    report.add(
        Figure(
            "time of a reserve with 1,000,000 accounts",
            f"1 caller, unary, random accounts, {DURABLE}",
            value,
            "ms",
            "ms with 1,000 accounts",
            reference,
            ratio,
            "<= 1.2 x",
            ratio <= 1.2,
        )
    )


async def _many_sessions(report: Report) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bench-data-", dir=ROOT) as few_folder,
        tempfile.TemporaryDirectory(prefix="bench-data-", dir=ROOT) as many_folder,
    ):
        few, many = Path(few_folder), Path(many_folder)
        for data, count in ((few, 1_000), (many, MANY)):
            add_accounts(data / "quota.db", 1)
            add_sessions(data / "quota.db", count)
        disk_bytes = (many / "quota.db").stat().st_size - (few / "quota.db").stat().st_size
        async with quota_server(few) as small, quota_server(many) as large:
            value, reference, ratio = await _times(UnaryReserve(large, 1), UnaryReserve(small, 1))
            memory_bytes = large.resident_bytes() - small.resident_bytes()
    report.add(
        Figure(
            "time of a reserve with 1,000,000 sessions in the account's period",
            f"1 caller, unary, 1 account, {DURABLE}",
            value,
            "ms",
            "ms with 1,000 sessions",
            reference,
            ratio,
            "<= 1.2 x",
            ratio <= 1.2,
        )
    )
    setup = "sessions resolved and not pruned yet"
    report.add(Figure("disk of a million sessions", setup, disk_bytes / 2**20, "MiB"))
    report.add(Figure("memory of a million sessions", setup, memory_bytes / 2**20, "MiB"))


async def _times(large: UnaryReserve, small: UnaryReserve) -> tuple[float, float, float]:
    """The median times of lone calls in ms, of interleaved runs, and the median of their ratios."""
    await large.latencies_s(200)
    await small.latencies_s(200)
    pairs = []
    for _ in range(PAIRS):
        reference = statistics.median(await small.latencies_s(SCALE_CALLS // PAIRS))
        pairs.append((statistics.median(await large.latencies_s(SCALE_CALLS // PAIRS)) * 1000, reference * 1000))
    return median_of_pairs(pairs)
