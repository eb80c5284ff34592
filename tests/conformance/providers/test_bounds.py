"""How much of an answer is taken in one turn of the event loop, whoever sent it."""

from __future__ import annotations

import pytest

from services.router.providers.port import Provider
from services.router.providers.stream import CallStream
from tests.conformance.providers.calls import asked, prompt, say
from tests.support.fault_server import Exchange, FaultServer

READ_BYTES_MAX = 64 * 1024


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
