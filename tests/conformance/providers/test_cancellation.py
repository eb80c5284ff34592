"""A call of each provider is cancelled at every step of the loop: no connection and no task is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from services.router.domain.events import Finish
from services.router.providers.port import Provider, ProviderError
from tests.conformance.providers.calls import asked, ignored, prompt
from tests.support.fault_server import Behaviour, Exchange, FaultServer
from tests.support.figures import record

STEPS_MAX = 1_000


async def answers(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.text("some", "words")
    await exchange.calls(("call_1", "look", "{}"))


async def refuses(exchange: Exchange) -> None:
    await exchange.refuse(429, "Slower.", retry_after="1")


async def goes_on(exchange: Exchange) -> None:
    """Ends nothing by itself: a connection that its client forgets stays open for good."""
    await exchange.begin()
    await exchange.text("some", "words")
    await exchange.hold()


async def never_answers(exchange: Exchange) -> None:
    await exchange.hold()


async def call(
    provider: Provider, server: FaultServer, reads: int = STEPS_MAX, on_sent: Callable[[], None] = ignored
) -> None:
    """Calls and reads to the end, or so many times."""
    try:
        async with provider.open(asked(server.dialect), prompt("x", "look"), on_sent) as stream:
            while reads and not isinstance((await stream.read())[-1], Finish):
                reads -= 1
    except ProviderError:
        # A refusal is an end as good as any here.
        pass


@pytest.mark.parametrize("behaviour", [answers, refuses, goes_on], ids=lambda behaviour: behaviour.__name__)
async def test_cancelled_at_every_step(provider: Provider, server: FaultServer, behaviour: Behaviour) -> None:
    server.script(behaviour)
    reads = 1 if behaviour is goes_on else STEPS_MAX
    await call(provider, server, reads)  # whatever is made once is made
    before = asyncio.all_tasks()
    arrived, told = len(server.exchanges), 0
    step, over = 0, False

    def on_sent() -> None:
        nonlocal told
        told += 1

    while not over:
        task = asyncio.create_task(call(provider, server, reads, on_sent))
        for _ in range(step):
            # One turn of the loop, in which everything that is ready runs.
            await asyncio.sleep(0)
        over = task.done()
        task.cancel()
        await asyncio.wait((task,))
        assert over or task.cancelled(), "the cancellation was lost"
        step += 1
        assert step < STEPS_MAX
    record("cancellation", provider=server.dialect.name, behaviour=behaviour.__name__, steps=step, leaks=0)

    async with asyncio.timeout(20):
        # The server ends each connection only when its client has closed it, or it was answered.
        while server.connections or asyncio.all_tasks() - before:
            await asyncio.sleep(0)
    assert step > 5, "the call was over before it could be cancelled"
    assert 0 < told == len(server.exchanges) - arrived < step, "a request is told of where it went out, and only there"
    await call(provider, server, reads)


async def test_a_call_without_an_answer_is_cancelled(provider: Provider, server: FaultServer) -> None:
    server.script(never_answers)
    task = asyncio.create_task(call(provider, server))
    exchange = await server.arrived()
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    await asyncio.wait_for(exchange.client_closed.wait(), 20)
