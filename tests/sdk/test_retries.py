"""A retry carries the same request_id, happens only before output, and never costs twice."""

from __future__ import annotations

import pytest

import flowstack
from flowstack import AsyncAgent
from flowstack.testing import FakeFlowStack


def request_ids(fake: FakeFlowStack) -> list[str]:
    """Of every try that has come."""
    return [request.request_id for request in fake.requests]


@pytest.mark.parametrize("times", [1, 3])
def test_what_is_unavailable_is_tried_again(times: int) -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        fake.be_unavailable(times)
        assert agent.chat("Hello") == "Hello"
        assert len(request_ids(fake)) == times + 1
        assert len(set(request_ids(fake))) == 1
        assert agent.get_usage().sessions_used == 1


def test_tries_come_to_an_end() -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        fake.be_unavailable(100)
        with pytest.raises(flowstack.UnavailableError):
            agent.chat("Hello")
        assert len(request_ids(fake)) == 4
        assert agent.get_usage().sessions_used == 0


def test_a_session_that_broke_before_output_is_repeated_and_counted_once() -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        fake.be_unavailable(1, after_start=True)
        assert agent.chat("Hello") == "Hello"
        assert len(request_ids(fake)) == 2
        assert agent.get_usage().sessions_used == 1


def test_nothing_is_repeated_after_output() -> None:
    with FakeFlowStack() as fake, fake.agent(provider="echo") as agent:
        with pytest.raises(flowstack.ProviderUnavailableError):
            agent.chat("Hello there", labels={"echo.fail_after": "1"})
        assert len(request_ids(fake)) == 1


async def test_the_async_agent_tries_again_likewise() -> None:
    with FakeFlowStack() as fake:
        fake.be_unavailable(2)
        async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint, provider="echo") as agent:
            assert await agent.chat("Hello") == "Hello"
            assert (await agent.get_usage()).sessions_used == 1
        assert len(set(request_ids(fake))) == 1
