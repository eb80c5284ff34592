"""Notes of chats: out of the way of the chats that follow, and there for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstack import AsyncAgent, _recorder
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


@pytest.fixture
def never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while one chat follows another without a pause."""
    for name in ("QUIET_SECONDS", "WAIT_SECONDS_MAX"):
        monkeypatch.setattr(_recorder, name, 3600.0)


@pytest.mark.usefixtures("never_quiet")
def test_a_note_waits_for_a_pause_between_chats(fake: FakeFlowStack) -> None:
    with fake.agent() as agent, fake.agent(record_providers=False) as reader:
        agent.chat("hello")
        assert reader.vault.query("provider_switches") == []
        agent.flush()
        assert len(reader.vault.query("provider_switches")) == 1


@pytest.mark.usefixtures("never_quiet")
def test_many_notes_do_not_wait(fake: FakeFlowStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recorder, "TOGETHER_MAX", CHATS)
    with fake.agent() as agent, fake.agent(record_providers=False) as reader:
        for _ in range(CHATS):
            agent.chat("hello")
        recorder = agent._core._recorder
        assert recorder is not None
        work = recorder._work
        with work._changed:
            work._changed.wait_for(lambda: not work._unfinished)  # ends by the test's own time limit if it never does
        assert len(reader.vault.query("provider_switches")) == CHATS
