"""The simulation finds defects: each planted one, within a bounded number of seeds."""

from __future__ import annotations

import pytest

from tests.simulation.run import simulate
from tests.support.figures import record
from tests.support.planted import names, planted

SEEDS_MAX = 60


@pytest.mark.parametrize("name", names())
def test_a_planted_defect_is_found(name: str) -> None:
    with planted(name):
        for seed in range(SEEDS_MAX):
            report = simulate(seed)
            if report.violations:
                record("planted", mutant=name, seed=seed, found=report.violations[0].strip().splitlines()[-1][:200])
                return
    raise AssertionError(f"{name} was not found in {SEEDS_MAX} seeds")
