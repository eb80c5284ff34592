"""Notes of chats: out of the way of the chats that follow, and there for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstack import AsyncAgent
from flowstack.testing import FakeFlowStack

CHATS = 3


@pytest.fixture
def fake() -> Iterator[FakeFlowStack]:
    with FakeFlowStack() as made:
        yield made


def test_notes_are_there_when_they_are_asked_for(fake: FakeFlowStack) -> None:
    with fake.agent() as agent:
        sessions = {agent.chat("hello").session.session_id for _ in range(CHATS)}
        assert {note.key for note in agent.vault.query("provider_switches")} == sessions


async def test_so_they_are_for_an_async_agent(fake: FakeFlowStack) -> None:
    async with AsyncAgent("a", fake.api_key, endpoint=fake.endpoint, provider="echo") as agent:
        sessions = {(await agent.chat("hello")).session.session_id for _ in range(CHATS)}
        assert {note.key for note in await agent.vault.query("provider_switches")} == sessions
