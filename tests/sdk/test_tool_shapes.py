"""What may be a tool: functions of any make whose arguments a model can give by name."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from flowstack import AsyncAgent, ToolDefinitionError, ToolReturned
from flowstack._runner import run
from flowstack._tools import ToolOutcome, define
from flowstack.testing import FakeFlowStack


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return wrapper


async def double(number: int) -> int:
    """Doubles.

    Args:
        number: what to double.
    """
    await asyncio.sleep(0)
    return number * 2


@functools.wraps(double)
def double_here(number: int) -> int:
    return asyncio.run(double(number))


def answers_what_is_not_there(number: int) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
    return number


class Thing:
    def method(self, number: int) -> int:
        return number * 2

    @classmethod
    def of_the_class(cls, number: int) -> int:
        return number * 2

    @staticmethod
    def of_nobody(number: int) -> int:
        return number * 2

    async def later(self, number: int) -> int:
        return number * 2

    def __call__(self, number: int) -> int:
        return number * 2


SHAPES: list[tuple[Callable[..., Any], str | None]] = [
    (double, None),
    (wrapped(double), None),
    (wrapped(wrapped(double)), None),
    (double_here, None),
    (answers_what_is_not_there, None),
    (Thing().method, None),
    (Thing.of_the_class, None),
    (Thing.of_nobody, None),
    (Thing().later, None),
    (Thing(), "thing"),
    (functools.partial(double), "partial"),
    (functools.partial(Thing.of_nobody), "partial"),
]


@pytest.mark.parametrize(("function", "name"), SHAPES)
async def test_a_tool_may_be(function: Callable[..., Any], name: str | None) -> None:
    tool = define(function, name)
    [(parameter, schema)] = json.loads(tool.schema_json)["properties"].items()
    assert (parameter, schema["type"]) == ("number", "integer")
    said = "7" if function is answers_what_is_not_there else "14"
    with FakeFlowStack() as fake:
        blocking = fake.agent()
        async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint) as awaited:
            for agent in (blocking, awaited):
                agent.tool(name=name)(function)
            for _ in range(2):
                fake.reply_with_tool_call(tool.name, {"number": 7})
                fake.reply("done")
            events = await asyncio.to_thread(lambda: list(blocking.stream("x")))
            events += [event async for event in awaited.stream("x")]
        blocking.close()
    assert [(one.content, one.is_error) for one in events if isinstance(one, ToolReturned)] == [(said, False)] * 2


def test_a_partials_docstring_is_its_functions() -> None:
    tool = define(functools.partial(double), "partial")
    assert tool.description == "Doubles."
    assert json.loads(tool.schema_json)["properties"]["number"]["description"] == "what to double."


def endless(number: float = float("inf")) -> float:
    return number


def plain_self(self: int) -> int:
    return self


NAMELESS = "A tool that is no function, but {}, has no name of its own: give it one with name=."


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (Thing.method, "Tool method: a method has no self before there is an object. Register the object's, as in "),
        (Thing.later, "Tool later: a method has no self before there is an object. Register the object's, as in "),
        (endless, "Tool endless: JSON cannot express the type or the default of the parameter number. "),
        (Thing(), NAMELESS.format("Thing")),
        (functools.partial(double), NAMELESS.format("partial")),
        (5, NAMELESS.format("int")),
    ],
)
def test_a_tool_may_not_be(function: Any, says: str) -> None:
    with pytest.raises(ToolDefinitionError) as caught:
        define(function)
    assert str(caught.value).startswith(says)


def test_a_parameter_may_be_called_self() -> None:
    assert run(define(plain_self), '{"self": 7}') == ToolOutcome("7", False)
