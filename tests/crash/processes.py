"""The service processes of one test, each of which can be started with a place at which it is to die."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.shared.failpoints import VARIABLE
from services.shared.server import SERVICES
from services.suite.ready import admin_addresses, wait_until_serving
from tests.support.suite import ROOT, settings_of, suite_environment

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
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = 0

    async def start(self, name: str, failpoint: str = "") -> None:
        """Starts a service; waits until it serves, unless it is to die, which it may do before that."""
        process = self._spawn(name, failpoint)
        if failpoint:
            return
        ready = asyncio.create_task(wait_until_serving({name: self._admin_address(name)}, READY_SECONDS))
        ended = asyncio.create_task(asyncio.to_thread(process.wait))
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        assert ready.done(), self.log(name)
        assert ready.result() == [], self.log(name)

    async def restart(self, name: str, failpoint: str) -> None:
        """Drains a service and starts it with a place at which it is to die."""
        process = self._running[name]
        process.terminate()
        assert await asyncio.to_thread(process.wait, READY_SECONDS) == 0, self.log(name)
        await self.start(name, failpoint)

    def _admin_address(self, name: str) -> str:
        return admin_addresses(self.settings, SERVICES)[name]

    def _spawn(self, name: str, failpoint: str) -> subprocess.Popen[bytes]:
        environment = self._environment | ({VARIABLE: failpoint} if failpoint else {})
        defect = self._defects.get(name)
        module = ["tests.crash.planted_service", defect, name] if defect else [f"services.{name}"]
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[name] = process
        return process

    async def died(self, name: str) -> None:
        """Waits until a service has been killed at its failpoint."""
        process = self._running[name]
        code = await asyncio.to_thread(process.wait, DEATH_SECONDS)
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
                process.terminate()
                await asyncio.to_thread(process.wait, 60)

    def kill_all(self) -> None:
        """Leaves nothing behind."""
        for process in self._running.values():
            process.kill()
            process.wait()


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
        running.kill_all()
