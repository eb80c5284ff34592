"""One seed is one history, whatever the process and its hash seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.run import simulate
from tests.support.simulation_loop import SimulatedLoop, StuckError
from tests.support.suite import ROOT


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_the_same_history_every_time(seed: int) -> None:
    first, second = simulate(seed), simulate(seed)
    assert first.notes == second.notes
    assert first.digest == second.digest


def test_seeds_are_different_histories() -> None:
    assert len({simulate(seed).digest for seed in range(5)}) == 5


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_command_replays_the_same_history_in_another_process(hash_seed: str) -> None:
    report = simulate(3)
    _, *arguments = report.replay.split()
    replayed = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"digest (\w+)", replayed.stdout)
    assert found is not None, replayed.stderr
    assert found.group(1) == report.digest


def test_waiting_for_nothing_is_an_error_and_no_hang() -> None:
    loop = SimulatedLoop(0, 1.0)
    with pytest.raises(StuckError):
        loop.run_until_complete(loop.create_future())
    loop.end()
