"""What is left behind: by agents that nobody closes, by loops that end, by processes that fork or just end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from flowstack import Agent, AsyncAgent, ConfigurationError, _current
from flowstack._connection import _shared
from flowstack.billing import get_next_billing_cycle_date
from flowstack.testing import FakeFlowStack

ENDLESS = {"echo.words": "100000", "echo.delay_ms": "5"}


@pytest.fixture
def fake() -> Iterator[FakeFlowStack]:
    with FakeFlowStack() as made:
        yield made


def channels(fake: FakeFlowStack) -> list[tuple[str, int]]:
    return [(key[0], entry.users) for key, entry in _shared._channels.items() if key[2] == fake.endpoint]


def recorders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "flowstack-recorder"]


def end_recorders(before: list[threading.Thread]) -> None:
    for thread in set(recorders()) - set(before):
        thread.join()  # ends by the test's own time limit if it never does


def noted(fake: FakeFlowStack) -> list[str]:
    with fake.agent() as reader:
        return sorted(one["agent"] for one in reader.vault.query("provider_switches"))


def test_agents_that_nobody_closes_are_freed_with_their_threads_and_channels(fake: FakeFlowStack) -> None:
    before = recorders()
    left: list[weakref.ref[Any]] = []

    def leave(name: str) -> None:
        agent = Agent(name, fake.api_key, endpoint=fake.endpoint, provider="echo")
        agent.chat("Hello")
        agent.get_usage()
        left.extend([weakref.ref(agent), weakref.ref(agent._core)])

    for name in ("a", "b", "c"):
        leave(name)
    gc.collect()
    assert [one() for one in left] == [None] * 6
    end_recorders(before)
    assert channels(fake) == []
    assert noted(fake) == ["a", "b", "c"]


def test_a_channel_outlives_the_agents_that_are_left_while_one_uses_it(fake: FakeFlowStack) -> None:
    with fake.agent(record_providers=False) as kept:
        kept.get_usage()
        other = fake.agent(record_providers=False)
        other.get_usage()
        assert channels(fake) == [("sync", 2)]
        del other
        gc.collect()
        assert channels(fake) == [("sync", 1)]
        assert kept.get_usage().sessions_used == 0


def test_channels_of_loops_that_ended_are_let_go(fake: FakeFlowStack) -> None:
    agent = AsyncAgent("a", fake.api_key, endpoint=fake.endpoint, provider="echo", record_providers=False)
    for _ in range(3):
        asyncio.run(agent.get_usage())  # type: ignore[arg-type]
    assert channels(fake) == [("aio", 1)]
    del agent
    gc.collect()
    assert channels(fake) == []


PRELUDE = """
import os, sys
from flowstack import *
agent = Agent("{name}", os.environ["FLOWSTACK_API_KEY"], provider="echo")
"""


def run(fake: FakeFlowStack, name: str, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"FLOWSTACK_API_KEY": fake.api_key, "FLOWSTACK_ENDPOINT": fake.endpoint}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE.format(name=name) + program],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_that_just_ends_stores_its_notes(fake: FakeFlowStack) -> None:
    ended = run(fake, "hasty", 'for _ in range(3): agent.chat("Hello")')
    assert (ended.returncode, ended.stderr) == (0, "")
    assert noted(fake) == ["hasty"] * 3


def test_so_does_one_that_an_interrupt_ends_in_mid_stream(fake: FakeFlowStack) -> None:
    program = f"""
import signal
for event in agent.stream("Hello", labels={ENDLESS!r}):
    if isinstance(event, TextDelta):
        signal.raise_signal(signal.SIGINT)
"""
    assert "KeyboardInterrupt" in run(fake, "interrupted", program).stderr
    program = f"""
import signal, threading
from flowstack import _agent
feed = _agent.Conversation.feed
def interrupted(self, message):
    told = feed(self, message)
    if self.begun:
        signal.raise_signal(signal.SIGINT)
    return told
_agent.Conversation.feed = interrupted
agent.chat("Hello", labels={ENDLESS!r})
"""
    assert "KeyboardInterrupt" in run(fake, "interrupted", program).stderr
    assert noted(fake) == ["interrupted"] * 2


def test_a_child_after_a_fork_notes_for_itself(fake: FakeFlowStack) -> None:
    program = """
agent.chat("Hello")
child = os.fork()
agent.chat("Hello")
agent.flush()
if not child:
    os._exit(agent._core._recorder.dropped)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = run(fake, "forked", program, GRPC_ENABLE_FORK_SUPPORT="1")
    assert (ended.stdout, ended.returncode) == ("0\n", 0)
    assert noted(fake) == ["forked"] * 3


def test_helpers_speak_of_the_newest_agent_that_is_not_closed(fake: FakeFlowStack) -> None:
    with fake.agent() as first:
        other = Agent("other", fake.new_account("free"), endpoint=fake.endpoint)
        fake.advance(days=3)
        with fake.agent():
            pass
        assert _current.current() is other._core
        other.close()
        assert get_next_billing_cycle_date() == first.get_usage().period_end
        assert _current.current() is first._core


def test_without_any_that_is_not_closed_they_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_current, "_made", weakref.WeakValueDictionary())
    agent = Agent("a", "fs_" + "0" * 75)
    agent.close()
    with pytest.raises(ConfigurationError, match="Make an Agent first"):
        get_next_billing_cycle_date()
