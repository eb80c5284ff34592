"""Runs tools, and the one background loop that async tools of blocking agents run in.

Whatever a tool raises is the model's to know, `sys.exit()` and a CancelledError of its own included. What is not the
tool's goes on its way: a cancellation of the caller's task, and Ctrl-C, which Python raises in the main thread.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from typing import Any, Final

from flowstack._tools import ToolDefinition, ToolOutcome, call, raised, returned

TOOL_SECONDS: Final = 55.0
"""Under the router's 60 s for results, so that the model hears of it instead of the session breaking off."""
STUCK_SECONDS: Final = 2.0
"""How much later than its limit a tool's end is waited for: a tool that blocks the loop keeps the limit from it."""

_lock = threading.Lock()
_loops: dict[int, tuple[asyncio.AbstractEventLoop, threading.Thread]] = {}


def run(tool: ToolDefinition, arguments_json: str) -> ToolOutcome:
    """Runs a sync tool here; where it wraps an async one, that in the background loop."""
    value = _called(tool, arguments_json)
    if inspect.isawaitable(value):
        return _start(_awaited(value))()
    return value if isinstance(value, ToolOutcome) else _told(value)


async def run_async(tool: ToolDefinition, arguments_json: str) -> ToolOutcome:
    """Runs a tool without blocking the loop: an async one in it, a sync one in a thread.

    A sync tool that takes too long is left to itself: a thread cannot be stopped.
    """

    async def value() -> Any:
        if tool.is_async:
            return await call(tool, arguments_json)
        found = await asyncio.to_thread(_called, tool, arguments_json)
        return await found if inspect.isawaitable(found) else found

    return await _awaited(value())


async def _awaited(value: Awaitable[Any]) -> ToolOutcome:
    # Not by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with the result.
    limit = asyncio.timeout(TOOL_SECONDS)
    try:
        async with limit:
            found = await value
            return found if isinstance(found, ToolOutcome) else returned(found)
    except BaseException as error:
        # Contained here: a SystemExit that leaves a task ends the loop, and with it everything else that runs there.
        if _is_ctrl_c(error) or isinstance(error, GeneratorExit) or _is_cancellation(error):
            raise
        return _late() if limit.expired() else raised(error)


def _called(tool: ToolDefinition, arguments_json: str) -> Any:
    """What a tool answers, or how it failed."""
    try:
        return call(tool, arguments_json)
    except BaseException as error:
        if _is_ctrl_c(error):
            raise
        return raised(error)


def _told(value: Any) -> ToolOutcome:
    try:
        return returned(value)
    except Exception as error:  # whatever a stranger's value raises while it is made JSON
        return raised(error)


def start(tool: ToolDefinition, arguments_json: str) -> Callable[[], ToolOutcome]:
    """Starts an async tool in the background loop; what is answered waits for it. Context variables go along."""
    return _start(run_async(tool, arguments_json))


def _start(running: Coroutine[Any, Any, ToolOutcome]) -> Callable[[], ToolOutcome]:
    loop = _loop()
    future: Future[ToolOutcome] = asyncio.run_coroutine_threadsafe(running, loop)
    until_s = time.monotonic() + TOOL_SECONDS + STUCK_SECONDS

    def finish() -> ToolOutcome:
        try:
            return future.result(max(0.0, until_s - time.monotonic()))
        except FutureCancelledError as error:  # nobody here did: the tool cancelled the task that it ran in
            return raised(error)
        except TimeoutError:
            future.cancel()
            _abandon(loop)
            return _late()
        except BaseException:
            future.cancel()
            raise

    return finish


def _late() -> ToolOutcome:
    return ToolOutcome(f"The tool did not finish within {TOOL_SECONDS:.0f} s.", True)


def _is_ctrl_c(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _is_cancellation(error: BaseException) -> bool:
    """True where the task itself is being cancelled, rather than something that the tool waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _loop() -> asyncio.AbstractEventLoop:
    """The loop of this process, a new one where its thread has ended; a child after a fork gets one of its own."""
    with _lock:
        loop, thread = _loops.get(os.getpid(), (None, None))
        if loop is None or thread is None or not thread.is_alive():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_serve, args=(loop,), name="flowstack-tools", daemon=True)
            _loops[os.getpid()] = loop, thread
            thread.start()
        return loop


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Leaves a loop to the tool that blocks it and to what waits behind it; later tools get another."""
    with _lock:
        if _loops.get(os.getpid(), (None, None))[0] is loop:
            del _loops[os.getpid()]


def _serve(loop: Any) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except BaseException:  # noqa: S112
            continue  # a task that a tool began and left may raise SystemExit through the loop; the others go on
