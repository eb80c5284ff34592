"""Runs the services as child processes: starts them, restarts one that dies, and drains all in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from services.shared.log import get_logger
from services.shared.process import EXIT_STARTUP_FAILED, PARENT_PIPE_VARIABLE, PEERS_PIPE_VARIABLE
from services.shared.server import SERVICES

DRAIN_ORDER: Final = ("router", "vault", "billing", "quota")
"""The router first, because its sessions are resolved at quota; quota last, because everybody needs it."""

NEEDED: Final = ("billing", "quota")
"""The services that others call: they end after everybody who is before them in that order."""

RESTART_SECONDS_FIRST: Final = 0.2
RESTART_SECONDS_MAX: Final = 10.0
STABLE_SECONDS: Final = 60.0
"""A child that lived this long is restarted without the delay that its earlier deaths had earned."""


class ChildFailedError(Exception):
    """A service cannot start at all; it has said why on its standard error."""


class _Pipe:
    """A pipe whose reading end tells when every process that holds the writing end has ended."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class Supervisor:
    """The four services as children of this process.

    A supervisor that is killed leaves no orphans behind, and they end in the same order as at `stop`. Each child reads
    a pipe whose writing end this process holds, and drains when it closes. Billing and quota read another one,
    whose writing end is also held by each child that drains before them: the operating system closes it with the
    last of those.
    """

    def __init__(self, environment: Mapping[str, str], log_folder: Path | None = None) -> None:
        """Prepares to run.

        Args:
            environment: what the children get.
            log_folder: where each child's output goes, `<name>.log`; to this process's standard error where None.
        """
        self._environment = dict(environment)
        self._log_folder = log_folder
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._log = get_logger()
        self._own_pipe = _Pipe()
        self._peers_pipes = {name: _Pipe() for name in NEEDED}

    async def start(self) -> None:
        """Starts every service; each is restarted when it dies, until `stop`."""
        for name in SERVICES:
            self._keepers[name] = asyncio.create_task(self._keep(name))

    def process_id(self, name: str) -> int | None:
        """The process of a service; None while it is down."""
        child = self._children.get(name)
        return child.pid if child is not None and child.returncode is None else None

    async def failed(self) -> str:
        """Waits until a service turns out to be unable to start; answers its name."""
        return await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Drains the services in order and waits for their ends."""
        for name in DRAIN_ORDER:
            keeper = self._keepers.pop(name, None)
            if keeper is None:
                continue
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            await self._end(name)
        for pipe in (self._own_pipe, *self._peers_pipes.values()):
            pipe.close()

    def hurry(self) -> None:
        """Ends the grace of every service that drains: sends the signal once more."""
        for child in self._children.values():
            _signal(child)

    async def _end(self, name: str) -> None:
        child = self._children.get(name)
        if child is not None and child.returncode is None:
            _signal(child)
            await child.wait()

    async def _keep(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        delay_s = RESTART_SECONDS_FIRST
        while True:
            started_s = loop.time()
            child = await self._spawn(name)
            code = await child.wait()
            if code == EXIT_STARTUP_FAILED:
                if not self._failed.done():
                    self._failed.set_result(name)
                return
            if loop.time() - started_s > STABLE_SECONDS:
                delay_s = RESTART_SECONDS_FIRST
            self._log.warning("restarting", detail=name, exit_code=code, delay_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_SECONDS_MAX)

    async def _spawn(self, name: str) -> asyncio.subprocess.Process:
        environment = self._environment | {PARENT_PIPE_VARIABLE: str(self._own_pipe.read)}
        inherited = [self._own_pipe.read]
        for needed, pipe in self._peers_pipes.items():
            if name == needed:
                environment[PEERS_PIPE_VARIABLE] = str(pipe.read)
                inherited.append(pipe.read)
            elif DRAIN_ORDER.index(name) < DRAIN_ORDER.index(needed):
                inherited.append(pipe.write)
        with _output(self._log_folder, name) as output:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{name}",
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=output,
                pass_fds=inherited,
                # Out of the terminal's process group: Ctrl-C reaches the supervisor alone, which drains in order.
                start_new_session=True,
            )
        self._children[name] = child
        return child


@contextlib.contextmanager
def _output(folder: Path | None, name: str) -> Iterator[IO[bytes] | None]:
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("ab") as file:
        yield file


def _signal(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
