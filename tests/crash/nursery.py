"""Starts a service over and over without importing it anew each time: `python -m tests.crash.nursery <service>`.

Importing takes a second of CPU, which is most of what a kill costs. This process imports the service, makes no gRPC
object, and forks a child for each start, which is then a process like any other: it can be killed, and is a service's
only one. Requests come as lines of JSON on stdin; what became of the children goes out as lines of JSON on stdout.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from services.shared import failpoints
from services.shared.process import run
from tests.support.planted import planted
from tests.support.suite import ROOT

DEFECT: Final = "FLOWSTACK_TEST_PLANTED_DEFECT"
"""Names the planted defect that a child is to have."""


class Child:
    """A service process that a nursery started."""

    def __init__(self, process_id: int) -> None:
        self.process_id = process_id
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if not self.ended.done():
            os.kill(self.process_id, number)

    async def wait(self, timeout_s: float) -> int:
        """How it ended: its exit code, or the negative number of the signal."""
        return await asyncio.wait_for(asyncio.shield(self.ended), timeout_s)


class Nursery:
    """The test's side: one nursery for each service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._process: asyncio.subprocess.Process | None = None
        self._born: asyncio.Queue[Child] = asyncio.Queue()
        self._children: dict[int, Child] = {}
        self._reader: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, environment: Mapping[str, str], log: Path) -> Child:
        """Starts the service with this environment; what it writes goes to the end of `log`."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.crash.nursery",
                self._service,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._reader = asyncio.create_task(self._read(self._process))
        assert self._process.stdin is not None
        request = json.dumps({"environment": dict(environment), "log": str(log)})
        self._process.stdin.write(request.encode() + b"\n")
        return await self._born.get()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said = json.loads(line)
            if "code" in said:
                self._children.pop(said["id"]).ended.set_result(said["code"])
            else:
                child = self._children[said["id"]] = Child(said["id"])
                if self._closing:
                    child.signal(signal.SIGKILL)
                self._born.put_nowait(child)

    async def close(self) -> None:
        """Kills what still runs or is being started, and ends."""
        self._closing = True
        for child in list(self._children.values()):
            child.signal(signal.SIGKILL)
        if self._process is not None and self._reader is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
            await self._reader


def _tell(**said: int) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def _become(service: Any, name: str, request: dict[str, Any]) -> None:
    """The child's life: as if `python -m services.<name>` had been started with this environment."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    defect = os.environ.pop(DEFECT, "")
    with planted(defect) if defect else nullcontext():
        run(name, service.main)


def _serve(name: str) -> None:
    service = importlib.import_module(f"services.{name}.__main__")
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    waiting.register(woken, selectors.EVENT_READ)
    children = 0
    stdin, is_open, rest = 0, True, b""
    while is_open or children:
        for key, _ in waiting.select():
            if key.fd == woken:
                os.read(woken, 4096)
                continue
            data = os.read(stdin, 65536)
            if not data:
                is_open = False
                waiting.unregister(stdin)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                process_id = os.fork()
                if process_id == 0:
                    _become(service, name, json.loads(line))
                    sys.exit(0)
                children += 1
                _tell(id=process_id)
        while children:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if not process_id:
                break
            children -= 1
            _tell(id=process_id, code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _serve(sys.argv[1])
