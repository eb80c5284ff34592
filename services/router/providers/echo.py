"""The simulator: sends the last user message back, one word a delta. Needs no credentials and no network.

Labels of the request steer it:
    echo.words       how many words to send, going round the message again where it has fewer
    echo.delay_ms    milliseconds to wait before each delta
    echo.tool        a tool to call first, unless its result is in the conversation already
    echo.fail_after  fail like a provider after that many deltas; 0 before any
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from services.router.domain.events import Finish, ProviderEvent, TextDelta, ToolCall
from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.domain.request import Candidate, Message, Prompt, Role, TextPart
from services.router.providers.port import OnSent, ProviderError
from services.shared.errors import invalid_request

MODEL: Final = "echo-1"
WORDS_MAX: Final = 100_000
DELAY_MS_MAX: Final = 300_000


@dataclass(frozen=True, slots=True)
class _Script:
    """What the labels ask for."""

    words: int | None
    delay_s: float
    tool: str
    fail_after: int | None


class EchoProvider:
    """The simulator behind the provider port."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep

    def check(self, _candidate: Candidate, prompt: Prompt) -> None:
        """Refuses labels that are no numbers, and a tool that the request does not have."""
        script = _script(prompt)
        if script.tool and script.tool not in {tool.name for tool in prompt.tools}:
            raise invalid_request("labels", "echo.tool has to be the name of one of the request's tools")

    @asynccontextmanager
    async def open(self, _candidate: Candidate, prompt: Prompt, on_sent: OnSent) -> AsyncIterator[EchoStream]:
        """Begins to echo; see the port."""
        script = _script(prompt)
        on_sent()
        if script.fail_after == 0:
            raise ProviderError(AttemptFailure.PROVIDER_ERROR, "echo.fail_after asked for a failure.")
        yield EchoStream(script, prompt, self._sleep)

    async def aclose(self) -> None:
        """Holds nothing."""


class EchoStream:
    """One echo."""

    request_id = ""

    def __init__(self, script: _Script, prompt: Prompt, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._script = script
        self._sleep = sleep
        self._input_tokens = sum(len(_words(message)) for message in prompt.messages)
        self._sent = 0
        self._events = self._plan(prompt)

    async def read(self) -> Sequence[ProviderEvent]:
        """The next word; see the port."""
        event = next(self._events)
        if self._sent == self._script.fail_after:
            raise ProviderError(AttemptFailure.PROVIDER_ERROR, "echo.fail_after asked for a failure.")
        if not isinstance(event, Finish):
            if self._script.delay_s:
                await self._sleep(self._script.delay_s)
            self._sent += 1
        return (event,)

    def _plan(self, prompt: Prompt) -> Iterator[ProviderEvent]:
        """The events, in order; lazily, because echo.words may ask for many."""
        said = next((_words(m) for m in reversed(prompt.messages) if m.role is Role.USER), [])
        if self._script.tool and prompt.messages[-1].role is not Role.TOOL:
            rounds = sum(message.role is Role.TOOL for message in prompt.messages)
            arguments = msgspec.json.encode({"message": " ".join(said)}).decode()
            yield ToolCall(f"call_echo_{rounds + 1}", self._script.tool, arguments)
            yield self._finish(FinishReason.TOOL_CALLS)
            return
        count = (len(said) if self._script.words is None else self._script.words) if said else 0
        limit = prompt.max_output_tokens
        cut = limit is not None and limit < count
        for position, word in enumerate(itertools.islice(itertools.cycle(said), limit if cut else count)):
            yield TextDelta(word if position == 0 else f" {word}")
        yield self._finish(FinishReason.MAX_OUTPUT_TOKENS if cut else FinishReason.STOP)

    def _finish(self, reason: FinishReason) -> Finish:
        # One word is one token, so that figures in examples can be checked by eye.
        return Finish(reason, reason.value, Usage(self._input_tokens, self._sent))


def _words(message: Message) -> list[str]:
    return [word for part in message.parts if isinstance(part, TextPart) for word in part.text.split()]


def _script(prompt: Prompt) -> _Script:
    words = _number(prompt, "echo.words", WORDS_MAX)
    delay_ms = _number(prompt, "echo.delay_ms", DELAY_MS_MAX)
    fail_after = _number(prompt, "echo.fail_after", WORDS_MAX)
    return _Script(words, (delay_ms or 0) / 1000, prompt.labels.get("echo.tool", ""), fail_after)


def _number(prompt: Prompt, label: str, maximum: int) -> int | None:
    text = prompt.labels.get(label)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= maximum):
        raise invalid_request("labels", f"{label} has to be a whole number of at most {maximum}")
    return int(text)
