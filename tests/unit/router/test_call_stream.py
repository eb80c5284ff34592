"""What counts as a sign of life of a provider, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.router.domain.events import TextDelta
from services.router.providers.anthropic_stream import AnthropicWire
from services.router.providers.bedrock_stream import BedrockWire
from services.router.providers.openai_stream import OpenAiWire
from services.router.providers.stream import CallStream, Wire
from tests.support.dialects import DIALECTS

WIRES: dict[str, Callable[[], Wire]] = {
    "openai": OpenAiWire,
    "anthropic": lambda: AnthropicWire(keep_blocks=False),
    "bedrock": lambda: BedrockWire(keep_blocks=False),
}


class Body:
    """A body that comes a chunk a read."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def read(self) -> bytes:
        return self._chunks.pop(0)


class Guard:
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.signs = 0

    def progress(self) -> None:
        self.signs += 1

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


async def signs_before_text(name: str, *chunks: bytes) -> int:
    guard = Guard()
    body = Body(*chunks, DIALECTS[name].text("a"))
    stream = CallStream(body, WIRES[name](), guard, "", ())  # type: ignore[arg-type]
    assert await stream.read() == [TextDelta("a")]
    return guard.signs - 1  # the wait itself begins with one


@pytest.mark.parametrize("name", WIRES)
async def test_an_event_that_says_nothing_is_one(name: str) -> None:
    """Such as the pings that Anthropic sends while a model thinks; the session's time limit ends what never ends."""
    dialect = DIALECTS[name]
    events = [piece for piece in dialect.nothing() if not piece.startswith((b":", b"id:"))]
    assert await signs_before_text(name, dialect.begin(), *events) == 1 + len(events)


@pytest.mark.parametrize("name", WIRES)
async def test_bytes_that_complete_no_event_are_none(name: str) -> None:
    dialect = DIALECTS[name]
    whole = dialect.nothing()[-1]
    comment = [] if name == "bedrock" else [b": still here\n\n"]
    assert await signs_before_text(name, *comment, whole[:5], whole[5:9], whole[9:-3], whole[-3:]) == 1
