"""What the blocking agent offers, the one for asyncio offers too, by the same names and with the same arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from flowstack import Agent, AsyncAgent, AsyncStream, AsyncWatch, Stream, Watch
from flowstack._alerts import Alerts, AsyncAlerts, AsyncBudget, Budget
from flowstack._vault import AsyncVault, Vault

PAIRS = [
    (Agent, AsyncAgent),
    (Alerts, AsyncAlerts),
    (Budget, AsyncBudget),
    (Vault, AsyncVault),
    (Stream, AsyncStream),
    (Watch, AsyncWatch),
]
BECOMES = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__", "__next__": "__anext__"}


def surface(of: type) -> dict[str, Any]:
    """What of a class is public: parameters with their kinds, defaults and hints, and what is no function as itself."""
    found: dict[str, Any] = {"__init__": parameters(of.__init__)}
    for name, value in inspect.getmembers(of):
        if not name.startswith("_"):
            found[name] = parameters(value) if inspect.isroutine(value) else type(value).__name__
        elif name in BECOMES or name in BECOMES.values():
            found[BECOMES.get(name, name)] = parameters(value)
    attributes = [name for base in of.__mro__ for name in inspect.get_annotations(base) if not name.startswith("_")]
    return found | {f"{name}:": "attribute" for name in attributes}


def parameters(function: Any) -> list[tuple[str, Any, Any, str]]:
    return [
        (one.name, one.kind, one.default, str(one.annotation).replace("Async", ""))
        for one in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda of: of.__name__)
def test_both_have_the_same_names_and_parameters(blocking: type, awaited: type) -> None:
    assert surface(blocking) == surface(awaited)


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda of: of.__name__)
def test_both_answer_the_same(blocking: type, awaited: type) -> None:
    def answers(of: type) -> dict[str, str]:
        functions = inspect.getmembers(of, inspect.isfunction)
        hints = {name: str(inspect.signature(function).return_annotation) for name, function in functions}
        return {name: hint.replace("Async", "") for name, hint in hints.items() if not name.startswith("_")}

    assert answers(blocking) == answers(awaited)


def test_what_an_agent_has_is_known_by_its_class() -> None:
    """An agent has nothing public besides, which the comparison of the classes would miss."""
    with Agent("a", "fs_" + "0" * 75) as agent:
        public = {name for name in vars(agent) if not name.startswith("_")}
        assert public == {name for name in inspect.get_annotations(Agent) if not name.startswith("_")}
