"""Runs tools, and the one background loop that async tools of blocking agents run in."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from flowstack._tools import ToolDefinition, ToolOutcome, call, call_async, raised, returned

TOOL_SECONDS: Final = 55.0
"""Under the router's 60 s for results, so that the model hears of it instead of the session breaking off."""

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def run(tool: ToolDefinition, arguments_json: str) -> ToolOutcome:
    """Runs a sync tool here."""
    try:
        return returned(call(tool, arguments_json))
    except Exception as error:  # noqa: BLE001, RUF100  # whatever a tool raises is the model's to know
        return raised(error)


async def run_async(tool: ToolDefinition, arguments_json: str) -> ToolOutcome:
    """Runs a tool without blocking the loop: an async one in it, a sync one in a thread.

    A sync tool that takes too long is left to itself: a thread cannot be stopped.
    """
    # Not by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with the result.
    limit = asyncio.timeout(TOOL_SECONDS)
    try:
        async with limit:
            if tool.is_async:
                value = await call_async(tool, arguments_json)
            else:
                value = await asyncio.to_thread(call, tool, arguments_json)
        return returned(value)
    except Exception as error:  # noqa: BLE001, RUF100  # as above
        if limit.expired():
            return ToolOutcome(f"The tool did not finish within {TOOL_SECONDS:.0f} s.", True)
        return raised(error)


def start(tool: ToolDefinition, arguments_json: str) -> Callable[[], ToolOutcome]:
    """Starts an async tool in the background loop; what is answered waits for it. Context variables go along."""
    future: Future[ToolOutcome] = asyncio.run_coroutine_threadsafe(run_async(tool, arguments_json), _loop())

    def finish() -> ToolOutcome:
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    return finish


def _loop() -> asyncio.AbstractEventLoop:
    """The loop of this process; a child after a fork gets one of its own."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="flowstack-tools", daemon=True).start()
        return loop


def _serve(loop: Any) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
