"""What the router adds to the time to the first token, beside what the LiteLLM proxy adds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.processes import FOLDER, ROOT
from bench.report import PAIRS, Figure, Report
from bench.router import MODEL, Ways, ways
from bench.router_stack import STORE, UPSTREAM
from bench.streams import Caller

ROUNDS = {1: (PAIRS, 20, 1 / 3), 16: (PAIRS, 2, 0.05), 128: (2, 1, None)}
"""By the number of callers: interleaved rounds, streams that each caller makes in one, and the most that the router may
add at the median, as a share of what LiteLLM adds. LiteLLM needs a quarter of a minute for a round of 128."""


async def run(report: Report) -> None:
    """Measures with every number of callers."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=FOLDER) as folder:
        async with ways(Path(folder)) as found:
            for callers in ROUNDS:
                await _added(report, found, callers)


async def _added(report: Report, found: Ways, callers: int) -> None:
    rounds, streams, bar = ROUNDS[callers]
    three: tuple[Caller, Caller, Caller] = (found.direct, found.router, found.litellm)
    for caller in three:
        await caller.run(MODEL, min(callers, 16), 1)  # warm
    measured: tuple[list[float], ...] = ([], [], [])
    for _ in range(rounds):
        for caller, kept in zip(three, measured, strict=True):
            kept.extend((await caller.run(MODEL, callers, streams)).first_tokens_s)
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        direct_s, router_s, litellm_s = (_quantile(kept, share) for kept in measured)
        added_s, others_s = router_s - direct_s, litellm_s - direct_s
        ratio = added_s / others_s
        bars = bar if name == "p50" else None
        report.add(
            Figure(
                f"time added to the first token, {name}, {callers} {'caller' if callers == 1 else 'callers'}",
                f"{rounds} interleaved rounds of {callers} x {streams} streams of 100 chunks from 1 process, "
                f"1 router worker, {STORE}; {UPSTREAM}",
                added_s * 1000,
                "ms",
                "ms by the LiteLLM proxy, 1 worker",
                others_s * 1000,
                ratio,
                "" if bars is None else f"<= {bars:.2f} x",
                None if bars is None else ratio <= bars,
            )
        )


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
