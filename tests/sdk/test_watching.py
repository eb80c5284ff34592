"""Usage and alerts as they happen, for both agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

import flowstack
from flowstack import Agent, AsyncAgent
from tests.sdk.conftest import Platform

STRANGER = "fs_" + "0" * 75


@pytest.fixture
def agent(platform: Platform) -> Iterator[Agent]:
    with platform.agent() as made:
        yield made


def test_usage_is_told_at_once_and_after_each_change(agent: Agent) -> None:
    with agent.watch_usage() as watch:
        first = next(watch)
        assert (first.sessions_used, first.sessions_limit, first.tier) == (0, 1000, "starter")
        agent.chat("Hello")
        told = next(usage for usage in watch if usage.sessions_used)
        assert (told.sessions_used, told.sessions_remaining) == (1, 999)


def test_alerts_are_told_as_they_fire_and_none_is_missed_between_two_watches(agent: Agent) -> None:
    with ThreadPoolExecutor(1) as pool, agent.alerts.watch() as watch:
        assert not watch.resume_token
        first = pool.submit(next, watch)
        while not wait([first], 0.2).done:  # from when on it watches, the service alone knows
            agent.alerts.send("First")
        assert first.result().message == "First"
    agent.alerts.send("Second", severity="critical")
    agent.alerts.send("Third")
    told = []
    with agent.alerts.watch(watch.resume_token) as again:
        for alert in again:
            told.append((alert.message, alert.severity, alert.kind))
            if alert.message == "Third":
                break
    assert told[-2:] == [("Second", "critical", "custom"), ("Third", "warning", "custom")]
    assert {message for message, _, _ in told[:-2]} <= {"First"}


def test_closing_ends_whoever_waits(agent: Agent) -> None:
    with ThreadPoolExecutor(1) as pool:
        watch = agent.watch_usage()
        next(watch)
        waiting = pool.submit(list, watch)
        watch.close()
        assert waiting.result(60) == []
        watch.close()
        assert list(watch) == []


def test_what_the_service_refuses_is_raised(platform: Platform) -> None:
    with Agent("stranger", STRANGER, endpoint=platform.endpoint) as agent:
        with pytest.raises(flowstack.AuthenticationError):
            next(agent.watch_usage())
        with pytest.raises(flowstack.AuthenticationError):
            next(agent.alerts.watch())


async def collected(watch: Any) -> list[Any]:
    return [told async for told in watch]


async def test_the_async_agent_watches_likewise(platform: Platform) -> None:
    async with AsyncAgent("a", platform.key("starter"), provider="echo", endpoint=platform.endpoint) as agent:
        async with agent.watch_usage() as watch:
            assert (await anext(watch)).sessions_used == 0
            await agent.chat("Hello")
            async for usage in watch:
                if usage.sessions_used:
                    break
            assert usage.sessions_used == 1
        async with agent.alerts.watch() as alerts:
            first = asyncio.ensure_future(anext(alerts))
            while not (await asyncio.wait([first], timeout=0.2))[0]:
                await agent.alerts.send("First")
            assert first.result().message == "First"
        await agent.alerts.send("Second")
        async with agent.alerts.watch(alerts.resume_token) as again:
            async for alert in again:
                if alert.message != "First":
                    break
            assert alert.message == "Second"


async def test_an_async_watch_ends_when_closed_and_lets_a_cancellation_through(platform: Platform) -> None:
    async with AsyncAgent("a", platform.key("starter"), endpoint=platform.endpoint) as agent:
        watch = agent.watch_usage()
        await anext(watch)
        waiting = asyncio.create_task(collected(watch))
        await watch.close()
        assert await waiting == []
        assert await collected(watch) == []
        other = agent.watch_usage()
        await anext(other)
        waiting = asyncio.create_task(collected(other))
        await asyncio.sleep(0)  # it waits now
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await other.close()


async def test_what_the_service_refuses_is_raised_by_the_async_watch(platform: Platform) -> None:
    async with AsyncAgent("stranger", STRANGER, endpoint=platform.endpoint) as agent:
        with pytest.raises(flowstack.AuthenticationError):
            await anext(agent.watch_usage())
