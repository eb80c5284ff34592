"""A connection that died without a word, as one does behind a router that was switched off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstack import Agent, AsyncAgent, ConnectionFailedError, _connection
from flowstack.testing import FakeFlowStack
from flowstack.testing import _server as fake_server
from services.shared import channel, server
from tests.support.relay import Relay

SERVERS_LEAST = "grpc.http2.min_ping_interval_without_data_ms"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFlowStack]:
    """One that takes the questions of impatient clients."""
    monkeypatch.setattr(_connection, "KEEPALIVE_SECONDS", 0.2)
    monkeypatch.setattr(_connection, "KEEPALIVE_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(fake_server, "OPTIONS", (*fake_server.OPTIONS, (SERVERS_LEAST, 0)))
    with FakeFlowStack() as made:
        yield made


def test_a_watch_on_a_dead_connection_ends(fake: FakeFlowStack) -> None:
    with Relay(fake.endpoint) as relay, Agent("a", fake.api_key, endpoint=relay.address) as agent:
        usages, alerts = agent.watch_usage(), agent.alerts.watch()
        next(usages)
        relay.fall_silent()
        with pytest.raises(ConnectionFailedError, match=r"broke off in the middle of its answer\."):
            next(usages)
        with pytest.raises(ConnectionFailedError, match="broke off"):
            next(alerts)


async def test_so_does_one_of_the_async_agent(fake: FakeFlowStack) -> None:
    with Relay(fake.endpoint) as relay:
        async with AsyncAgent("a", fake.api_key, endpoint=relay.address) as agent:
            watch = agent.watch_usage()
            await anext(watch)
            relay.fall_silent()
            with pytest.raises(ConnectionFailedError, match=r"broke off in the middle of its answer\."):
                await anext(watch)


def test_a_call_on_a_connection_that_died_meanwhile_fails(fake: FakeFlowStack) -> None:
    with Relay(fake.endpoint) as relay, Agent("a", fake.api_key, endpoint=relay.address) as agent:
        agent.get_usage()
        relay.fall_silent()
        with pytest.raises(ConnectionFailedError, match="broke off before it answered"):
            next(agent.watch_usage())


@pytest.mark.parametrize("serving", [server.OPTIONS, server.SHARED_OPTIONS, fake_server.OPTIONS])
def test_no_client_of_ours_asks_more_often_than_servers_allow(serving: tuple[tuple[str, int], ...]) -> None:
    """Who does is sent away by gRPC, with GOAWAY and ENHANCE_YOUR_CALM."""
    allowed_ms = dict(serving)[SERVERS_LEAST]
    for options in (_connection._options(), channel.OPTIONS):
        asks_ms = dict(options)["grpc.keepalive_time_ms"]
        # Twice as seldom: what a busy network held up arrives closer together.
        assert asks_ms >= 2 * allowed_ms
