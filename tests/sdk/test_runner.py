"""How tools run: a cancellation gets through whenever it comes, and whatever a tool raises is the model's to know."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from flowstack import Agent, AsyncAgent, ToolReturned, _runner
from flowstack._tools import ToolOutcome, define
from flowstack.testing import FakeFlowStack


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


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot say")


RAISED = [
    (SystemExit(3), "SystemExit: 3"),
    (asyncio.CancelledError(), "CancelledError: "),
    (KeyboardInterrupt(), "KeyboardInterrupt: "),
    (ValueError("half a \ud83d pair"), "ValueError: half a ? pair"),
    (SpeechlessError(), "SpeechlessError: "),
]


def two_rounds(fake: FakeFlowStack, *names: str) -> None:
    """Has the model call the tools in one round, then a harmless one, then answer."""
    fake.reply_with_tool_calls([(name, {}) for name in names])
    fake.reply_with_tool_call("fine")
    fake.reply("done")


def give_tools(agent: Agent | AsyncAgent, error: BaseException) -> None:
    @agent.tool
    def breaks() -> None:
        raise error

    @agent.tool
    async def breaks_too() -> None:
        raise error

    @agent.tool
    async def fine() -> int:
        return 1


def told(events: list[Any]) -> list[tuple[str, bool]]:
    return [(event.content, event.is_error) for event in events if isinstance(event, ToolReturned)]


@pytest.mark.parametrize(("error", "says"), RAISED, ids=lambda one: type(one).__name__)
def test_whatever_a_tool_raises_is_the_models_to_know(error: BaseException, says: str) -> None:
    with FakeFlowStack() as fake, fake.agent() as agent:
        give_tools(agent, error)
        two_rounds(fake, "breaks", "breaks_too")
        events: list[Any] = []
        # Not the main thread, where a KeyboardInterrupt is Ctrl-C.
        worker = threading.Thread(target=lambda: events.extend(agent.stream("x")))
        worker.start()
        worker.join()
        assert told(events) == [(says, True), (says, True), ("1", False)]
        assert agent.get_usage().sessions_used == 1


# Without KeyboardInterrupt, which in the main thread is Ctrl-C.
NOT_CTRL_C = [one for one in RAISED if not isinstance(one[0], KeyboardInterrupt)]


@pytest.mark.parametrize(("error", "says"), NOT_CTRL_C, ids=lambda one: type(one).__name__)
async def test_whatever_an_async_agents_tool_raises_likewise(error: BaseException, says: str) -> None:
    with FakeFlowStack() as fake:
        async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint) as agent:
            give_tools(agent, error)
            two_rounds(fake, "breaks", "breaks_too")
            events = [event async for event in agent.stream("x")]
            assert told(events) == [(says, True), (says, True), ("1", False)]


def test_ctrl_c_in_a_tool_reaches_the_main_thread() -> None:
    def tool() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _runner.run(define(tool), "{}")


def cancels_itself() -> Any:
    async def tool() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    return tool


def test_a_tool_that_cancels_its_own_task_has_failed() -> None:
    assert _runner.start(define(cancels_itself(), "tool"), "{}")() == ToolOutcome("CancelledError: ", True)


async def test_and_so_it_has_beside_an_async_agent() -> None:
    with FakeFlowStack() as fake:
        async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint) as agent:
            agent.tool(name="breaks")(cancels_itself())
            fake.reply_with_tool_call("breaks")
            fake.reply("done")
            assert told([event async for event in agent.stream("x")]) == [("CancelledError: ", True)]


def test_an_exit_in_a_task_that_a_tool_began_leaves_the_loop_to_the_others() -> None:
    async def leave() -> None:
        raise SystemExit

    async def tool() -> str:
        begun = asyncio.create_task(leave())
        await asyncio.wait([begun])
        return type(begun.exception()).__name__

    async def fine() -> int:
        return 1

    assert _runner.start(define(tool), "{}")() == ToolOutcome("SystemExit", False)
    assert _runner.start(define(fine), "{}")() == ToolOutcome("1", False)


def test_a_tool_that_blocks_the_loop_is_not_waited_for_and_the_next_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def blocks() -> None:
        begun.set()
        may_end.wait()

    async def fine() -> int:
        return 1

    with monkeypatch.context() as patched:
        patched.setattr(_runner, "TOOL_SECONDS", 0.0)
        patched.setattr(_runner, "STUCK_SECONDS", 0.0)
        finish = _runner.start(define(blocks), "{}")
        begun.wait()
        assert finish() == ToolOutcome("The tool did not finish within 0 s.", True)
    assert _runner.start(define(fine), "{}")() == ToolOutcome("1", False)
    may_end.set()
