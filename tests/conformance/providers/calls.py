"""Calls a provider through its port and collects what it says."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.router.domain.events import Finish, ProviderEvent, ReasoningDelta, TextDelta, ToolCall
from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import Candidate, Message, Prompt, Role, TextPart, Tool
from services.router.providers.port import Provider, ProviderError
from tests.support.dialects import Dialect
from tests.support.fault_server import Behaviour, Exchange, FaultServer
from tests.support.keys import candidate

SSE = ("openai", "anthropic")
"""Those that answer in server-sent events."""


@dataclass
class Said:
    """Everything that one call yielded, and how it failed, if it did."""

    events: list[ProviderEvent] = field(default_factory=list)
    error: ProviderError | None = None
    request_id: str = ""

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ReasoningDelta))

    @property
    def calls(self) -> list[ToolCall]:
        return [event for event in self.events if isinstance(event, ToolCall)]

    @property
    def finish(self) -> Finish:
        finish = self.events[-1]
        assert isinstance(finish, Finish)
        return finish


def asked(dialect: Dialect) -> Candidate:
    """A provider's model on the caller's own credentials."""
    return candidate(dialect.name, dialect.model)


def ignored() -> None:
    """For a call of which nobody asks whether its request went out."""


async def say(provider: Provider, prompt: Prompt, candidate: Candidate) -> Said:
    """Calls `provider` and reads to the end."""
    said = Said()
    try:
        async with provider.open(candidate, prompt, ignored) as stream:
            while not (said.events and isinstance(said.events[-1], Finish)):
                batch = await stream.read()
                assert batch, "a read brings at least one event"
                said.events += batch
            said.request_id = stream.request_id
    except ProviderError as error:
        said.error = error
    return said


def prompt(text: str, *tools: str) -> Prompt:
    messages = (Message(Role.USER, (TextPart(text),)),)
    return Prompt(messages=messages, tools=tuple(Tool(name) for name in tools))


def body(*pieces: bytes) -> Behaviour:
    """Sends `pieces`, each in a write of its own, and ends the body properly."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        for piece in pieces:
            await exchange.send(piece)
        await exchange.end()

    return behave


async def ask(provider: Provider, server: FaultServer, *pieces: bytes, tools: tuple[str, ...] = ()) -> Said:
    """What a provider says whose server sends `pieces`, each in a write of its own."""
    server.script(body(*pieces))
    return await say(provider, prompt("x", *tools), asked(server.dialect))


def failed(said: Said) -> AttemptFailure:
    """How a call failed that must not have ended well."""
    assert said.error is not None, f"it ended well: {said.events}"
    return said.error.failure


def answer(dialect: Dialect, *words: str) -> list[bytes]:
    """A whole answer."""
    return [dialect.begin(), *map(dialect.text, words), *dialect.finish(prompt_tokens=7, completion_tokens=2)]
