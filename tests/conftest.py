"""Of the whole run: its order, where what takes long begins first and what waits for a build comes last; and that no
property has to hold within a time.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.support.go_programs import PROGRAMS

pytest_plugins = ("tests.support.postgres", "tests.support.database", "tests.support.vault")

# A loaded machine is not a defect of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

EARLY = ("simulation/test_seeds.py", "crash/test_kill.py", "e2e/test_sessions.py")
LATE = ("e2e/test_grpcurl.py", "unit/billing/test_payments.py")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Starts what later tests need; once, not in each worker."""
    if not hasattr(session.config, "workerinput"):
        for program in PROGRAMS.values():
            program.start_building()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests, and keeps each file in one worker, but where a test says with whom it belongs."""
    items.sort(key=_place)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.as_posix()))


def _place(item: pytest.Item) -> int:
    path = item.path.as_posix()
    if path.endswith(EARLY):
        return 0
    return 2 if path.endswith(LATE) else 1
