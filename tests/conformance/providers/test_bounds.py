"""How much of an answer is taken, and how long it is waited for, whoever sends it."""

from __future__ import annotations

import asyncio

import pytest

from services.router.domain.events import TextDelta
from services.router.domain.outcome import AttemptFailure
from services.router.providers import event_stream, sse, stream
from services.router.providers.port import Provider
from services.router.providers.stream import CallStream
from tests.conformance.providers.calls import SSE, answer, ask, asked, failed, ignored, prompt, say
from tests.support.dialects import DIALECTS
from tests.support.fault_server import Exchange, FaultServer

READ_BYTES_MAX = 64 * 1024
TURNS = 500
"""Of the event loop, in which a server that can go on does."""


@pytest.mark.parametrize("shape", ["an event a chunk", "all in one chunk"])
async def test_a_burst_is_decoded_in_bounded_pieces(
    provider: Provider, server: FaultServer, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    words = 400
    dialect = server.dialect
    pieces = [dialect.begin(), *[dialect.text("x" * 1_000)] * words, *dialect.finish()]
    if shape == "all in one chunk":
        pieces = [b"".join(pieces)]

    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")

    taken: list[int] = []
    take = CallStream._take

    def noted(stream: CallStream, chunk: bytes, events: list[object]) -> bool:
        taken.append(len(chunk))
        return take(stream, chunk, events)  # type: ignore[arg-type]  # of what a provider says

    monkeypatch.setattr(CallStream, "_take", noted)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(dialect))

    assert len(said.text) == words * 1_000
    assert max(taken) <= READ_BYTES_MAX < sum(taken)


async def test_a_delta_of_a_megabyte(provider: Provider, server: FaultServer) -> None:
    said = await ask(provider, server, *answer(server.dialect, "x" * 1_000_000))

    assert said.error is None
    assert len(said.text) == 1_000_000


@pytest.mark.parametrize("limited", ["one event", "one answer"])
async def test_what_is_over_a_limit_is_refused(
    provider: Provider, server: FaultServer, monkeypatch: pytest.MonkeyPatch, limited: str
) -> None:
    # The limits themselves are megabytes; here they are small, so that the test is quick.
    if limited == "one event":
        monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 50_000)
        monkeypatch.setattr(event_stream, "FRAME_BYTES_MAX", 50_000)
        words = ["x" * 60_000]
    else:
        monkeypatch.setattr(stream, "OUTPUT_CHARACTERS_MAX", 5_000)
        words = ["x" * 1_000] * 6
    said = await ask(provider, server, *answer(server.dialect, *words))

    assert failed(said) is AttemptFailure.MALFORMED
    assert said.error is not None
    assert "over the limit" in said.error.message
    assert len(said.text) <= 5_000


@pytest.mark.parametrize("begun", [True, False], ids=["in the answer", "before the answer"])
async def test_silence_is_given_up_and_the_connection_closed(server: FaultServer, begun: bool) -> None:
    async def behave(exchange: Exchange) -> None:
        if begun:
            await exchange.begin()
            await exchange.text("a")
        await exchange.hold()

    provider = server.dialect.provider(server.root, stall_s=1.0)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))
    await asyncio.wait_for((await server.arrived()).client_closed.wait(), 20)
    await provider.aclose()

    assert failed(said) is AttemptFailure.STALLED
    assert said.text == ("a" if begun else "")


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in SSE], ids=SSE)
async def test_comments_are_no_events(server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        while not exchange.client_closed.is_set():
            await exchange.send(b": still here\n\n")
            await asyncio.sleep(0)

    provider = server.dialect.provider(server.root, stall_s=0.1)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))
    await provider.aclose()

    assert failed(said) is AttemptFailure.STALLED


@pytest.mark.parametrize("dialect", [DIALECTS["bedrock"]], ids=["bedrock"])
async def test_a_frame_that_never_becomes_whole_is_no_event(server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin()
        for byte in server.dialect.text("x" * 1_000_000):
            if exchange.client_closed.is_set():
                return
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0)

    provider = server.dialect.provider(server.root, stall_s=0.1)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))
    await provider.aclose()

    assert failed(said) is AttemptFailure.STALLED


async def test_an_endless_answer_is_read_no_faster_than_it_is_taken(provider: Provider, server: FaultServer) -> None:
    sent = 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin()
        while not exchange.client_closed.is_set():
            await exchange.text("x" * 10_000)
            sent += 1

    server.script(behave)
    async with provider.open(asked(server.dialect), prompt("x"), ignored) as running:
        first = await running.read()
        # Nobody reads: the server comes to a halt once what lies between is full.
        before = -1
        while before != sent:
            before = sent
            for _ in range(TURNS):
                await asyncio.sleep(0)
        held = sent
        assert isinstance(first[-1], TextDelta)
        while sent == held:
            await running.read()
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_a_call_that_is_given_up_closes_its_connection(provider: Provider, server: FaultServer, how: str) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("a")
        await exchange.hold()

    server.script(behave)
    first = asyncio.Event()

    async def call() -> None:
        async with provider.open(asked(server.dialect), prompt("x"), ignored) as running:
            assert await running.read() == [TextDelta("a")]
            first.set()
            if how == "cancelled":
                await running.read()

    task = asyncio.create_task(call())
    await first.wait()
    if how == "cancelled":
        task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled() is (how == "cancelled")
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)
