"""The service processes of one test, each of which can be started with a place at which it is to die."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.shared.failpoints import VARIABLE
from services.shared.server import SERVICES
from services.suite.ready import admin_addresses, wait_until_serving
from tests.crash.nursery import DEFECT, Child, Nursery
from tests.support.suite import settings_of, suite_environment

NAMES: Final = ("quota", "billing", "router")
READY_SECONDS: Final = 60.0
DEATH_SECONDS: Final = 90.0
"""How long a service may take to come to the place at which it is to die."""


class Processes:
    """Starts, awaits and restarts the services; one of them with a planted defect, where one is named."""

    def __init__(self, folder: Path, overrides: Mapping[str, str], defects: Mapping[str, str]) -> None:
        self._environment = suite_environment(folder, overrides)
        self.settings = settings_of(self._environment)
        self._logs = folder
        self._defects = defects
        self._nurseries = {name: Nursery(name) for name in NAMES}
        self._running: dict[str, Child] = {}
        self.kills = 0

    async def start(self, name: str, failpoint: str = "") -> None:
        """Starts a service; waits until it serves, unless it is to die, which it may do before that."""
        process = await self._start(name, failpoint)
        if failpoint:
            return
        ready = asyncio.create_task(wait_until_serving({name: self._admin_address(name)}, READY_SECONDS))
        await asyncio.wait((ready, process.ended), return_when=asyncio.FIRST_COMPLETED)
        assert ready.done(), self.log(name)
        assert ready.result() == [], self.log(name)

    async def restart(self, name: str, failpoint: str) -> None:
        """Drains a service and starts it with a place at which it is to die."""
        process = self._running[name]
        process.signal(signal.SIGTERM)
        assert await process.wait(READY_SECONDS) == 0, self.log(name)
        await self.start(name, failpoint)

    def _admin_address(self, name: str) -> str:
        return admin_addresses(self.settings, SERVICES)[name]

    async def _start(self, name: str, failpoint: str) -> Child:
        environment = self._environment | ({VARIABLE: failpoint} if failpoint else {})
        defect = self._defects.get(name)
        if defect:
            environment |= {DEFECT: defect}
        child = await self._nurseries[name].start(environment, self._logs / f"{name}.log")
        self._running[name] = child
        return child

    async def died(self, name: str) -> None:
        """Waits until a service has been killed at its failpoint."""
        process = self._running[name]
        code = await process.wait(DEATH_SECONDS)
        assert code == -signal.SIGKILL, self.log(name)
        self.kills += 1

    def log(self, name: str) -> str:
        """The end of a service's log."""
        return (self._logs / f"{name}.log").read_text()[-4000:]

    async def stop(self) -> None:
        """Ends every service in good order, the ones that others need last."""
        for name in reversed(NAMES):
            process = self._running.get(name)
            if process is not None:
                process.signal(signal.SIGTERM)
                await process.wait(60)

    async def close(self) -> None:
        """Leaves nothing behind."""
        await asyncio.gather(*(nursery.close() for nursery in self._nurseries.values()))


@asynccontextmanager
async def processes(folder: Path, overrides: Mapping[str, str], defects: Mapping[str, str]) -> AsyncIterator[Processes]:
    """The services, ended with the block.

    Args:
        folder: their data.
        overrides: their settings.
        defects: by service, the planted defect that it is to have.
    """
    running = Processes(folder, overrides, defects)
    try:
        yield running
    finally:
        await running.close()
