"""Which results of tools are owed."""

from __future__ import annotations

import pytest

from services.router.domain.events import ToolCall
from services.router.domain.request import ToolResultPart
from services.router.domain.tool_loop import ToolLoop, ToolLoopError


def call(id_: str) -> ToolCall:
    return ToolCall(id_, "look", "{}")


def test_results_are_owed_for_every_call_in_any_order() -> None:
    loop = ToolLoop(rounds_max=2)
    assert loop.ask([call("a"), call("b")]) == ("a", "b")
    loop.add([ToolResultPart("b", "2")])
    assert not loop.complete
    loop.add([ToolResultPart("a", "1")])
    assert loop.complete


def test_two_calls_of_one_id_are_never_one() -> None:
    with pytest.raises(ValueError, match="same id"):
        ToolLoop(rounds_max=1).ask([call("a"), call("b"), call("a")])


def test_an_id_may_come_again_in_a_later_round() -> None:
    loop = ToolLoop(rounds_max=2)
    loop.ask([call("a")])
    loop.add([ToolResultPart("a", "1")])

    assert loop.ask([call("a")]) == ("a",)
    assert not loop.complete


def test_no_more_rounds_than_allowed() -> None:
    loop = ToolLoop(rounds_max=1)
    assert loop.ask([call("a")])
    assert loop.ask([call("b")]) == ()


@pytest.mark.parametrize("ids", [["z"], ["a", "a"]])
def test_results_that_are_not_owed(ids: list[str]) -> None:
    loop = ToolLoop(rounds_max=1)
    loop.ask([call("a")])
    with pytest.raises(ToolLoopError):
        loop.add([ToolResultPart(id_, "x") for id_ in ids])
