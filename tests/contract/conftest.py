"""Every test of this folder runs twice: against the fake of `flowstack.testing` and against the services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.target import TARGETS, Customer, Target


# The services take seconds to start: one worker runs all the tests that have this parameter; see support/schedule.py.
@pytest.fixture(scope="session", params=["fake", "services"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The public services."""
    with TARGETS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def free(target: Target) -> Customer:
    """An account on the free plan: 25 sessions."""
    return target.open_account("free")


@pytest.fixture
def hobbyist(target: Target) -> Customer:
    """An account on the plan hobbyist: 200 sessions, 50 at once."""
    return target.open_account("hobbyist")


@pytest.fixture
def professional(target: Target) -> Customer:
    """An account on the plan professional: 5,000 sessions, advanced analytics."""
    return target.open_account("professional")
