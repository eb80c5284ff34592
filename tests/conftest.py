"""Of the whole run: its order, where what takes long begins first and what waits for a build comes last; how it is
spread over workers; where its files lie; and that no property has to hold within a time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.go_programs import PROGRAMS
from tests.support.schedule import Groups, place_of

pytest_plugins = ("tests.support.postgres", "tests.support.database", "tests.support.vault")

# A loaded machine is not a defect of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 1024**3


def pytest_configure() -> None:
    """Puts the tests' folders into memory, where there is room.

    What services write has to survive the death of processes, which is all that tests kill; a disk would only be waited
    for, at every commit.
    """
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Starts what later tests need; once, not in each worker."""
    if not hasattr(session.config, "workerinput"):
        for program in PROGRAMS.values():
            program.start_building()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests."""
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups | None:
    """Keeps together what belongs together, where groups are asked for."""
    return Groups(config, log) if config.getvalue("dist") == "loadgroup" else None
