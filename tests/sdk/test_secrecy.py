"""Error reporters send the local variables of every frame: of the SDK's frames, none holds a key."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flowstack
from flowstack import Agent, FlowStackError
from flowstack.testing import FakeFlowStack
from tests.support.suite import free_ports

OWN = "sk-PLANTED-0123456789"
HERE = Path(flowstack.__file__).parent


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeFlowStack]:
    with FakeFlowStack("free") as made:
        yield made


def frames_of(call: Callable[[], Any]) -> str:
    """What a reporter sees of the SDK's own frames."""
    with pytest.raises((FlowStackError, TypeError)) as caught:
        call()
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    own = [frame for frame in report.stack if Path(frame.filename).is_relative_to(HERE)]
    assert own
    return "\n".join(f"{frame.name}: {frame.locals}" for frame in own) + str(report)


def closed(agent: Agent) -> Agent:
    agent.close()
    return agent


MISTAKES: list[Callable[[FakeFlowStack], Any]] = [
    lambda fake: Agent("a", OWN),
    lambda fake: Agent("a", fake.api_key + "!"),
    lambda fake: Agent("a", fake.api_key, endpoint="nowhere"),
    lambda fake: Agent("", fake.api_key),
    lambda fake: Agent("a", fake.api_key, temprature=1),  # type: ignore[call-arg]
    lambda fake: Agent("a", fake.api_key, byok=OWN),
    lambda fake: Agent("a", fake.api_key, provider="openai", byok={"key": OWN}),
    lambda fake: Agent("a", fake.api_key, provider="openai", byok={"api_key": OWN + "\n"}),
    lambda fake: Agent("a", fake.api_key, provider="openai", byok=[OWN]),  # type: ignore[arg-type]
    lambda fake: fake.agent(provider="openai", byok=OWN).set_provider("bedrock", byok={"api_key": OWN}),
    lambda fake: fake.agent(provider="openai", byok=OWN).chat(None),  # type: ignore[arg-type]
    lambda fake: fake.agent(provider="openai", byok=OWN).chat("x", temperature="hot"),  # type: ignore[arg-type]
    lambda fake: fake.agent(provider="openai", byok=OWN).chat("x" * 17_000_000),
    lambda fake: fake.agent(provider="openai", byok=OWN, model="nope").chat("x"),
    lambda fake: fake.agent(provider="openai", byok=OWN).vault.store("", {}),
    lambda fake: closed(fake.agent(provider="openai", byok=OWN)).chat("x"),
    lambda fake: closed(fake.agent(provider="openai", byok=OWN)).get_usage(),
    lambda fake: Agent("a", fake.api_key, provider="openai", byok=OWN, endpoint=f"127.0.0.1:{free_ports(1)[0]}").chat(
        "x"
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_no_frame_of_the_sdk_shows_a_key(
    fake: FakeFlowStack, mistake: Callable[[FakeFlowStack], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTACK_API_KEY", fake.api_key)
    seen = frames_of(lambda: mistake(fake))
    assert "PLANTED" not in seen
    assert fake.api_key not in seen


def test_a_key_from_the_environment_is_not_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTACK_API_KEY", OWN)
    assert "PLANTED" not in frames_of(lambda: Agent("a"))


def test_an_agent_that_was_not_made_can_be_shown() -> None:
    assert repr(Agent.__new__(Agent)) == "<Agent that was not made>"
