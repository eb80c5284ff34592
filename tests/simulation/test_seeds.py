"""Every promise of quota, router and billing under many schedules, faults and crashes.

A seed that fails is printed with the command that replays it.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.run import Report, simulate
from tests.support.figures import record, size_of_long_run

SEEDS = 300
LONG_SEEDS = 10_000
PROCESSES = 2
CHUNK = 10

HAPPENINGS = ("admissions", "committed", "released", "expired", "tombstones", "pruned", "told again")
"""What has to have happened somewhere, or the worlds are too quiet to find anything."""


def in_brief(seed: int) -> Report:
    """Runs a seed; of its trace only the end is kept."""
    report = simulate(seed)
    report.notes = report.notes[-40:]
    return report


def run(seeds: Iterable[int]) -> tuple[list[Report], Counter[str]]:
    """The seeds that failed, and what happened in all of them."""
    failed, seen = [], Counter[str]()
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        for report in pool.map(in_brief, seeds, chunksize=CHUNK):
            seen += report.seen
            seen["virtual_s"] += round(report.virtual_s)
            if report.violations:
                failed.append(report)
    return failed, seen


def check(seeds: int) -> None:
    """Runs so many seeds and writes their figures."""
    begun_s = time.monotonic()
    failed, seen = run(range(seeds))
    took_s = round(time.monotonic() - begun_s)
    record("simulation", seeds=seeds, violations=len(failed), seconds=took_s, **seen)
    assert not failed, "\n".join(f"{report.replay}\n    {report.violations[0]}" for report in failed)
    assert [name for name in HAPPENINGS if not seen[name]] == []


@pytest.mark.timeout(600)
def test_every_seed_keeps_every_promise() -> None:
    check(SEEDS)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_many_seeds_keep_every_promise() -> None:
    check(size_of_long_run("FLOWSTACK_LONG_SEEDS", LONG_SEEDS))
