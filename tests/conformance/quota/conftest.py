"""One lab for each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.quota.lab import MEDIA, Lab
from tests.support.clock import ManualClock
from tests.support.quota import entitlement


@pytest.fixture(params=list(MEDIA))
async def bare_lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """A store in which nothing is yet."""
    medium, clock = MEDIA[request.param](tmp_path), ManualClock()
    lab = Lab(medium, await medium.open(clock), clock)
    yield lab
    await lab.close()


@pytest.fixture
async def lab(bare_lab: Lab) -> Lab:
    """A store with ACCOUNT entitled to 10 sessions a month, that has served for longer than the hold."""
    await bare_lab.entitle(entitlement())
    await bare_lab.served_for_the_hold()
    return bare_lab
