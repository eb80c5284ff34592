"""How tests are spread over the workers of pytest-xdist: what shares a start of something stays in one of them.

xdist's own groups come to nothing since pytest 9.2, which does not read the names any more that xdist 3.8 gives to the
tests of a group: each test was handed out by itself, and each worker started every server and every suite.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

FIRST: Final = (
    "tests/crash/test_kill.py",
    "tests/e2e/test_operation.py",
    "tests/simulation/test_seeds.py",
    "tests/contract on the services",
    "tests/grpc/router/test_workers.py",
    "tests/sdk on the services",
    "tests/unit/vault/test_isolation.py",
    "tests/e2e/test_orphans.py",
    "tests/e2e/test_sessions.py",
    "tests/e2e/test_examples.py",
    "tests/grpc/shared/test_startup.py",
    "tests/simulation/test_planted.py",
    "tests/conformance/quota/test_state_machine.py",
)
"""What takes longest begins first, so that no worker is left alone with it at the end."""

LAST: Final = ("tests/e2e/test_grpcurl.py", "tests/unit/billing/test_payments.py")
"""What waits for a build."""

_ON_SERVICES: Final = re.compile(r"[\[-]services[\]-]")
"""The parameter of tests that run on the services as well as on the fake."""
_WHOLLY_ON_SERVICES: Final = ("tests/sdk/test_alerts.py", "tests/sdk/test_page.py", "tests/sdk/test_sessions.py")
"""Files with tests that take the services without a parameter that says so."""


def group_of(nodeid: str) -> str:
    """With whom a test shares its worker: with its file, or with all of its folder that need the running services."""
    file, _, test = nodeid.partition("::")
    folder = str(PurePosixPath(file).parent)
    if folder in ("tests/contract", "tests/sdk") and (_ON_SERVICES.search(test) or file in _WHOLLY_ON_SERVICES):
        return f"{folder} on the services"
    return file


def place_of(nodeid: str) -> int:
    """Where a test stands in the order of the run."""
    group = group_of(nodeid)
    if group in FIRST:
        return FIRST.index(group)
    return len(FIRST) + (group in LAST)


class Groups(LoadScopeScheduling):
    """Hands out groups in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        # It would begin with the groups of most tests, which are not those that take longest.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
