"""What an open stream on which nothing happens costs the router in memory."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.processes import FOLDER, ROOT, allow_many_files
from bench.report import Figure, Report
from bench.router_stack import STORE, UPSTREAM, Stack, channel_of_its_own, stack, upstream
from bench.streams import RouterCaller

FEW = 100
MANY = 5_000
CONNECTIONS = 10
OPENING = 250
"""How many are opened at a time."""
MODEL = "held"


async def run(report: Report) -> None:
    """Opens the streams, and looks at the router's memory before and after."""
    allow_many_files()
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=FOLDER) as folder:
        async with AsyncExitStack() as opened:
            target = await opened.enter_async_context(upstream())
            services = await opened.enter_async_context(stack(target, Path(folder) / "data"))
            await _measure(report, services, opened)


async def _measure(report: Report, services: Stack, opened: AsyncExitStack) -> None:
    callers = [
        RouterCaller(await opened.enter_async_context(channel_of_its_own(services.address)), services.metadata)
        for _ in range(CONNECTIONS)
    ]
    calls: list[Any] = []
    await _open(callers, calls, FEW)
    few_bytes = services.router.resident_bytes()
    await _open(callers, calls, MANY)
    slope = (services.router.resident_bytes() - few_bytes) / (MANY - FEW)
    for call in calls:
        call.cancel()
    report.add(
        Figure(
            "router memory of an open idle stream",
            f"slope from {FEW} to {MANY:,} streams on {CONNECTIONS} connections of 1 process, each after its first "
            f"delta, 1 router worker, {STORE}; {UPSTREAM}",
            slope / 1024,
            "KiB",
            bar="<= 80 KiB",
            met=slope / 1024 <= 80,
        )
    )


async def _open(callers: list[RouterCaller], calls: list[Any], count: int) -> None:
    """Opens streams until there are `count`, each up to its first delta."""
    while len(calls) < count:
        batch = [callers[n % CONNECTIONS].call(MODEL) for n in range(len(calls), min(count, len(calls) + OPENING))]
        await asyncio.gather(*(_first_delta(call) for call in batch))
        calls += batch


async def _first_delta(call: Any) -> None:
    while not (await call.read()).text_delta:
        pass
