"""Work that goes on beside the calls: it outlives what fails in it, and waits between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.shared.errors import FlowStackError
from services.shared.log import frames_of, get_logger


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waiting times that double from attempt to attempt, with jitter so that replicas do not go in step."""

    initial_s: float
    max_s: float
    jitter: Callable[[], float]
    """Gives numbers from 0 to 1."""

    def delay_s(self, attempts: int) -> float:
        """How long to wait after that many attempts in vain: half to all of the doubled time."""
        doubled: float = min(self.max_s, self.initial_s * 2.0 ** min(attempts, 32))
        return doubled * (0.5 + 0.5 * self.jitter())


async def stop(task: asyncio.Task[None]) -> None:
    """Ends such work, and waits for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def waited(event: asyncio.Event, timeout_s: float) -> bool:
    """Waits for an event, or for so long; True where the event came.

    Not by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with the event: the
    work would run on, and whoever stops it would wait for ever.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def keep_running(name: str, work: Callable[[], Awaitable[bool]], backoff: Backoff) -> None:
    """Runs `work` again and again until cancelled; waits after a failure, longer after each one in a row.

    Args:
        name: the work's name in the log.
        work: answers whether it got anywhere, which ends a row of failures.
        backoff: how long to wait.
    """
    log = get_logger()
    attempts = 0
    while True:
        try:
            advanced = await work()
            attempts = 0 if advanced else attempts + 1
        except FlowStackError as error:
            attempts += 1
            log.warning("background_failed", detail=name, reason=error.reason.value, attempt=attempts)
        except Exception as error:  # a defect must not end the work for good
            attempts += 1
            log.error("defect", detail=name, error_type=type(error).__name__, traceback=frames_of(error))
        if attempts:
            await asyncio.sleep(backoff.delay_s(attempts - 1))
