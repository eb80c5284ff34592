"""A service's process: how it is run, what its supervisor tells it by pipes, and how signals end it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from services.shared import log
from services.shared.server import ServiceHost
from services.shared.settings import StartupError

EXIT_STARTUP_FAILED: Final = 78
"""EX_CONFIG of sysexits.h: a supervisor must not try again."""

PARENT_PIPE_VARIABLE: Final = "FLOWSTACK_PARENT_PIPE"
"""Names a pipe's descriptor that a supervisor holds open; the service drains when it closes."""

PEERS_PIPE_VARIABLE: Final = "FLOWSTACK_PEERS_PIPE"
"""Names a pipe's descriptor that the supervisor and the services that need this one hold open. Where it is set, the
service outlives its supervisor until those have ended too."""

WORKER_VARIABLE: Final = "FLOWSTACK_WORKER"
"""The number of this process among the workers that share a port, from 0; not set for a process that is alone."""

READY_PIPE_VARIABLE: Final = "FLOWSTACK_READY_PIPE"
"""Names a pipe's descriptor to which a worker writes a byte once it serves."""

ORPHAN_SECONDS: Final = 30.0
"""How long a service whose supervisor is gone waits for those that need it."""

DRAIN_GRACE_SECONDS: Final = 10.0
"""How long calls may run on after SIGTERM, where FLOWSTACK_DRAIN_GRACE_SECONDS and the service say nothing else."""

FLUSH_SECONDS: Final = 3.0
"""How long calls may run on once a service's own work has ended: enough to send what is left of them. A call that
never does anything must not hold a server for longer."""

GC_YOUNG_OBJECTS: Final = 20_000
SWITCH_SECONDS: Final = 0.001


def worker_number() -> int | None:
    """Which of several workers this process is; None where it is alone."""
    number = os.environ.get(WORKER_VARIABLE)
    return None if number is None else int(number)


async def serve_until_signal(
    host: ServiceHost, grace_s: float, before_drain: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the grace at once.

    Args:
        host: what to serve.
        grace_s: how long running calls may go on, in seconds; where there is a `before_drain`, that is what waits.
        before_drain: lets the service's own work end, after health says NOT_SERVING and before the servers stop;
            cancelled by a second signal.
    """
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    def on_orphaned() -> None:
        stop.set()
        if before_drain is not None:
            # Nobody is left who could say that it takes too long.
            hurry.set()

    watch_supervisor(loop, on_orphaned)
    await host.start()
    settle()
    if ready := os.environ.get(READY_PIPE_VARIABLE):
        os.write(int(ready), b"1")
        os.close(int(ready))
    await stop.wait()
    log.get_logger().info("draining", delay_s=grace_s)
    await host.announce_drain()
    if before_drain is not None:
        await _unless(hurry, before_drain())
        await host.drain(FLUSH_SECONDS)
    elif not await _unless(hurry, host.drain(grace_s)):
        await host.drain(0)


async def _unless(hurry: asyncio.Event, work: Awaitable[None]) -> bool:
    """Does the work, or cancels it once there is hurry and waits for its end; whether it was done."""
    doing = asyncio.ensure_future(work)
    # It takes its first step in any case: what it does about its cancellation begins there.
    await asyncio.sleep(0)
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait((doing, hurried), return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    await asyncio.wait((doing,))
    return False


def watch_supervisor(loop: asyncio.AbstractEventLoop, on_orphaned: Callable[[], None]) -> None:
    """Calls `on_orphaned` when the supervisor has ended, and those who need this service as well, or are given up."""
    parent, peers = (os.environ.get(name) for name in (PARENT_PIPE_VARIABLE, PEERS_PIPE_VARIABLE))
    if peers:
        _on_closed(loop, int(peers), on_orphaned)
    if parent:
        wait_s = ORPHAN_SECONDS if peers else 0.0
        _on_closed(loop, int(parent), lambda: loop.call_later(wait_s, on_orphaned))


def _on_closed(loop: asyncio.AbstractEventLoop, pipe: int, callback: Callable[[], object]) -> None:
    def closed() -> None:
        loop.remove_reader(pipe)
        callback()

    loop.add_reader(pipe, closed)


def settle() -> None:
    """Tells the interpreter that start-up is over: what was made so far stays, and what comes is mostly short-lived.

    The garbage collector would otherwise look through a service's whole code at every large collection, and begin a
    small one at every 700 new objects, which a batch makes in a few milliseconds. A thread that comes back from the
    disk waits up to the switch interval for the interpreter.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)


def run(name: str, main: Callable[[], Awaitable[None]]) -> None:
    """Runs a service's main coroutine on uvloop and turns a StartupError into one sentence and exit code 78.

    What the service writes is for its own user alone.
    """
    os.umask(0o077)
    try:
        uvloop.run(_as_coroutine(main))
    except StartupError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201  # for the operator at the terminal, not a log
        raise SystemExit(EXIT_STARTUP_FAILED) from None


async def _as_coroutine(main: Callable[[], Awaitable[None]]) -> None:
    await main()
