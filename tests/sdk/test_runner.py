"""How tools run beside a loop: a cancellation gets through whenever it comes, and a limit is told from a tool's own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flowstack import _runner
from flowstack._tools import ToolOutcome, define


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancellation_that_comes_together_with_the_result_is_not_lost(turns: int) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def tool() -> str:
        begun.set()
        await may_end.wait()
        return "done"

    task = asyncio.create_task(_runner.run_async(define(tool), "{}"))
    await begun.wait()
    may_end.set()
    for _ in range(turns):
        await asyncio.sleep(0)  # a turn of the loop
    was_running = task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is was_running


@pytest.mark.parametrize("turns", range(6))
async def test_neither_is_one_that_comes_while_a_thread_answers(turns: int) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def tool() -> str:
        begun.set()
        may_end.wait()
        return "done"

    task = asyncio.create_task(_runner.run_async(define(tool), "{}"))
    await asyncio.to_thread(begun.wait)
    may_end.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_running = task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is was_running


async def test_a_tool_that_takes_too_long_is_stopped_and_the_model_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = asyncio.Event()

    async def tool() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    monkeypatch.setattr(_runner, "TOOL_SECONDS", 0.0)
    assert await _runner.run_async(define(tool), "{}") == ToolOutcome("The tool did not finish within 0 s.", True)
    assert stopped.is_set()


async def test_a_tools_own_timeout_is_its_own() -> None:
    async def tool() -> str:
        raise TimeoutError("the database does not answer")

    outcome = await _runner.run_async(define(tool), "{}")
    assert outcome == ToolOutcome("TimeoutError: the database does not answer", True)
