"""kill -9 at every named place of quota, router and billing, under load: nothing told is lost, nothing is double."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash.books import Findings, examine
from tests.crash.load import Load
from tests.crash.processes import NAMES, Processes, processes
from tests.support.figures import record, size_of_long_run

# The router's come first: what it leaves behind ends with its leases, while the others die.
PLACES = (
    ("router.after_reserve", 30),
    ("router.before_commit", 30),
    ("router.after_commit", 30),
    ("quota.before_write", 600),
    ("quota.before_commit", 600),
    ("quota.after_commit", 600),
    ("quota.before_answer", 600),
    ("billing.before_ledger_commit", 20),
    ("billing.after_ledger_commit", 20),
    ("billing.before_acknowledge", 20),
    ("billing.after_acknowledge", 20),
)
"""Each place, and at which of its first visits the process dies, at most."""

CUSTOMERS, CLIENTS = 8, 4
SETTINGS = {
    "FLOWSTACK_SESSION_TIME_LIMIT_SECONDS": "1",
    "FLOWSTACK_LEASE_SECONDS": "31",
    "FLOWSTACK_EXPIRY_HOLD_SECONDS": "1",
    "FLOWSTACK_LOG_LEVEL": "error",
}
LONG_KILLS = 1_000


async def kill(
    folder: Path, places: Sequence[tuple[str, int]], seed: int, *, database: str = "", **defects: str
) -> Findings:
    """Kills at one place after another, drains, and examines what is left.

    Args:
        folder: where the services' data goes.
        places: where they die, and at which visit at most.
        seed: of all draws.
        database: the address of billing's; a file in `folder` where it is empty.
        defects: by service, the planted defect that it is to have.
    """
    draw = random.Random(seed)
    settings = SETTINGS | ({"FLOWSTACK_BILLING_DATABASE": database} if database else {})
    async with processes(folder, settings, defects) as running:
        await asyncio.gather(*(running.start(name) for name in NAMES))
        load = Load(running.settings, seed)
        try:
            await load.start(CUSTOMERS, CLIENTS)
            await follow(places, running, load, draw)
            await load.stop()
            if not defects:
                await load.drained()
        finally:
            await load.close()
        await running.stop()
    findings = examine(folder / "quota.db", database or f"sqlite:///{folder}/billing.db", load.told)
    record(
        "kills",
        kills=running.kills,
        lost=len(findings.lost),
        double=len(findings.double),
        sessions=findings.sessions,
        told=len(load.told.states),
        expired=findings.states[4],
        planted=",".join(defects.values()),
        answers=str(dict(load.told.answers)),
    )
    assert running.kills >= len(places)
    assert load.told.answers["COMMITTED"] > len(places)
    return findings


async def follow(plan: Sequence[tuple[str, int]], running: Processes, load: Load, draw: random.Random) -> None:
    """Each victim comes back with the next place at which it is to die; at last with none."""
    for number, (place, visits) in enumerate(plan):
        name = place.partition(".")[0]
        is_first = number == 0 or plan[number - 1][0].partition(".")[0] != name
        if is_first:
            await running.restart(name, f"{place}:{draw.randrange(1, visits)}")
        await running.died(name)
        load.check()
        following = plan[number + 1] if number + 1 < len(plan) else None
        goes_on = following is not None and following[0].startswith(f"{name}.")
        failpoint = f"{following[0]}:{draw.randrange(1, following[1])}" if following is not None and goes_on else ""
        await running.start(name, failpoint)


@pytest.mark.timeout(300)
async def test_a_kill_at_every_place_loses_nothing(tmp_path: Path) -> None:
    findings = await kill(tmp_path, PLACES, seed=1)
    assert findings.lost == []
    assert findings.double == []


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_billing_killed_on_postgresql_loses_nothing(tmp_path: Path, billing_postgres: str) -> None:
    places = [place for place in PLACES if place[0].startswith("billing.")]
    findings = await kill(tmp_path, places, seed=4, database=billing_postgres)
    assert findings.lost == []
    assert findings.double == []


@pytest.mark.long
@pytest.mark.timeout(0)
async def test_a_thousand_kills_lose_nothing(tmp_path: Path) -> None:
    kills = size_of_long_run("FLOWSTACK_LONG_KILLS", LONG_KILLS)
    findings = await kill(tmp_path, [PLACES[number % len(PLACES)] for number in range(kills)], seed=2)
    assert findings.lost == []
    assert findings.double == []


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("quota", "stores_events_with_the_next_group"),
        ("billing", "moves_the_cursor_before_it_stores"),
    ],
)
async def test_a_planted_defect_is_found(name: str, defect: str, tmp_path: Path) -> None:
    places = [place for place in PLACES if place[0].startswith(f"{name}.")] * 3
    findings = await kill(tmp_path, places, 3, **{name: defect})
    assert findings.lost + findings.double != []
