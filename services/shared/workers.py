"""Several processes of one service on one port: spawned, supervised, replaced where they die, drained together.

The kernel spreads connections over the sockets that share a port (SO_REUSEPORT), so one connection stays with one
worker. This process holds no gRPC object: each worker is spawned by itself and makes its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Final

from services.shared.addresses import listening_problem, parse
from services.shared.background import waited
from services.shared.listening import cannot_listen
from services.shared.log import get_logger
from services.shared.process import (
    EXIT_STARTUP_FAILED,
    PARENT_PIPE_VARIABLE,
    READY_PIPE_VARIABLE,
    WORKER_VARIABLE,
    watch_supervisor,
)
from services.shared.settings import StartupError

RESTART_SECONDS_FIRST: Final = 0.2
RESTART_SECONDS_MAX: Final = 10.0
STABLE_SECONDS: Final = 60.0
"""A worker that lived this long is replaced without the delay that earlier deaths had earned."""

TAKEN_SECONDS: Final = 5.0
"""How long a taken port is waited for: workers whose supervisor was killed need a moment to leave it."""
LOOK_SECONDS: Final = 0.1


@dataclass(slots=True)
class _Worker:
    """One place among the workers, and the process that fills it now."""

    number: int
    process: asyncio.subprocess.Process | None = None
    served: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a process in this place has served."""


class Workers:
    """The processes of one service.

    Args:
        name: The service; `python -m services.<name>` is a worker.
        count: How many.
        address: Where they listen, as host:port. Port 0 stands for one free port for all of them.
        setting: The variable that sets the address.
    """

    def __init__(self, name: str, count: int, address: str, setting: str) -> None:
        self._name = name
        self._address = address
        self._setting = setting
        self._workers = [_Worker(number) for number in range(count)]
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._pipe = os.pipe()
        self._log = get_logger()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then lets every worker drain; a second signal ends their grace at once.

        SIGHUP is passed on. The first worker starts alone, so that what keeps all of them from starting is told once.

        Raises:
            StartupError: the port cannot be had.
            SystemExit: a worker cannot start; it has said why on its standard error.
        """
        held = await self._hold_port()
        keepers: list[asyncio.Task[None]] = []
        try:
            self._handle_signals()
            for worker in self._workers:
                keepers.append(asyncio.create_task(self._keep(worker)))
                await self._first(worker.served, self._failed, self._stopping)
            await self._first(self._failed, self._stopping)
        finally:
            if not self._stopping.is_set():
                # A second signal would end the grace that the first one began.
                self._stop()
            if keepers:
                await asyncio.wait(keepers)
            for one in held:
                one.close()
        if self._failed.is_set():
            raise SystemExit(EXIT_STARTUP_FAILED)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._signal, signal.SIGHUP)
        watch_supervisor(loop, self._orphaned)

    def _stop(self) -> None:
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def _orphaned(self) -> None:
        """The workers see their pipe close, and drain without a grace: nobody is left who could end it."""
        os.close(self._pipe[1])
        self._stopping.set()

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(number)

    async def _keep(self, worker: _Worker) -> None:
        """Has one process in this place, until the end."""
        loop = asyncio.get_running_loop()
        delay_s = RESTART_SECONDS_FIRST
        while not self._stopping.is_set():
            started_s = loop.time()
            code = await self._run_once(worker)
            if self._stopping.is_set():
                return
            if code == EXIT_STARTUP_FAILED and not worker.served.is_set():
                self._failed.set()
                return
            if loop.time() - started_s > STABLE_SECONDS:
                delay_s = RESTART_SECONDS_FIRST
            self._log.warning(
                "replacing a worker", detail=f"{self._name}-{worker.number}", exit_code=code, delay_s=delay_s
            )
            await waited(self._stopping, delay_s)
            delay_s = min(delay_s * 2, RESTART_SECONDS_MAX)

    async def _run_once(self, worker: _Worker) -> int | None:
        """Has one process in this place until it ends; answers its exit code, None where it could not be spawned."""
        try:
            process = worker.process = await self._spawn(worker)
        except OSError as error:
            # The system is out of memory or processes for now.
            self._log.error("a worker cannot be spawned", detail=os.strerror(error.errno or 0))
            return None
        if self._stopping.is_set():
            process.terminate()
        return await process.wait()

    async def _spawn(self, worker: _Worker) -> asyncio.subprocess.Process:
        ready, writing = os.pipe()
        _when_readable(ready, worker.served)
        environment = {
            self._setting: self._address,
            WORKER_VARIABLE: str(worker.number),
            READY_PIPE_VARIABLE: str(writing),
            PARENT_PIPE_VARIABLE: str(self._pipe[0]),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{self._name}",
                env=os.environ | environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(writing, self._pipe[0]),
                # Out of the terminal's process group: Ctrl-C reaches this process alone.
                start_new_session=True,
            )
        finally:
            os.close(writing)
        self._log.info("worker", pid=process.pid, detail=f"{self._name}-{worker.number}")
        return process

    async def _hold_port(self) -> list[socket.socket]:
        """Binds the port for as long as this process lives: it stays ours while a worker is replaced."""
        if parse(self._address).path:
            raise StartupError(
                f"{self._setting} is {self._address}, which only one process can listen on. "
                "Set it to a host and a port, or use one worker."
            )
        loop = asyncio.get_running_loop()
        until_s = loop.time() + TAKEN_SECONDS
        while (problem := _problem(self._address)) is not None:
            if loop.time() >= until_s:
                raise StartupError(cannot_listen(self._address, self._setting, problem))
            await asyncio.sleep(LOOK_SECONDS)
        held = _bound(self._address)
        self._address = f"{self._address.rpartition(':')[0]}:{held[0].getsockname()[1]}"
        return held

    async def _first(self, *events: asyncio.Event) -> None:
        """Waits until one of `events` is set."""
        tasks = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


def _problem(address: str) -> str | None:
    """Why nobody can listen there now. Asked without SO_REUSEPORT, which a server of somebody else's may have set."""
    held: list[socket.socket] = []
    problem = listening_problem(address, held)
    for one in held:
        one.close()
    return problem


def _bound(text: str) -> list[socket.socket]:
    """Sockets that are bound to the address and do not listen: connections go to the workers' sockets only."""
    address = parse(text)
    held: list[socket.socket] = []
    for family, kind, protocol, _, target in socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        one = socket.socket(family, kind, protocol)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = held[0].getsockname()[1] if held else address.port
        try:
            one.bind((target[0], port, *target[2:]))
        except OSError:
            # A name can stand for several addresses, and this machine need not have them all.
            one.close()
        else:
            held.append(one)
    return held


def _when_readable(pipe: int, event: asyncio.Event) -> None:
    """Sets `event` once something is written to the pipe; closes it after that, or when its writer ends."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        loop.remove_reader(pipe)
        if os.read(pipe, 1):
            event.set()
        os.close(pipe)

    loop.add_reader(pipe, look)
