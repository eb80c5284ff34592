"""Answers in the chat completions format of OpenAI (platform.openai.com/docs/api-reference/chat/streaming).

Only the fields that are used are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from services.router.domain.events import ProviderEvent, ReasoningDelta, TextDelta
from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.providers.finish import count, finish_with
from services.router.providers.port import ProviderError
from services.router.providers.sse import SseParser
from services.router.providers.tool_calls import ToolCallAssembly
from services.shared.secret import Secret


class FunctionDelta(msgspec.Struct, gc=False):
    """A piece of a function call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds. Compatible servers name reasoning in one of two ways."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(msgspec.Struct, gc=False):
    """One answer in a chunk; only the first is asked for."""

    index: int = 0
    delta: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, gc=False):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """Of the completion's tokens."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    """Token counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of the stream."""

    choices: list[ChunkChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None


decode_chunk: Final = msgspec.json.Decoder(Chunk).decode

FINISH_REASONS: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.MAX_OUTPUT_TOKENS,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""A word that is not in here is a natural end: the provider's own stands beside it."""

_RATE_LIMIT_CODES: Final = frozenset({"rate_limit_exceeded", "rate_limit_error", "insufficient_quota", "429"})
_CREDENTIAL_CODES: Final = frozenset({"invalid_api_key", "authentication_error", "permission_error", "401", "403"})
_REQUEST_CODES: Final = frozenset(
    {"invalid_request_error", "context_length_exceeded", "content_policy_violation", "400", "404", "413", "422"}
)


def usage_of(wire: WireUsage | None) -> Usage:
    """The token counts; None where the server did not say."""
    if wire is None:
        return Usage()
    prompt, completion = wire.prompt_tokens_details, wire.completion_tokens_details
    return Usage(
        input_tokens=count(wire.prompt_tokens),
        output_tokens=count(wire.completion_tokens),
        cached_input_tokens=count(prompt.cached_tokens) if prompt else None,
        reasoning_tokens=count(completion.reasoning_tokens) if completion else None,
    )


def error_of(error: object) -> tuple[AttemptFailure, str]:
    """The failure that an error object means, and its message, unfiltered."""
    if not isinstance(error, dict):
        return AttemptFailure.PROVIDER_ERROR, error if isinstance(error, str) else ""
    words = {str(error.get("code")), str(error.get("type"))}
    message = error.get("message")
    text = message if isinstance(message, str) else ""
    if words & _RATE_LIMIT_CODES:
        return AttemptFailure.RATE_LIMITED, text
    if words & _CREDENTIAL_CODES:
        return AttemptFailure.CREDENTIALS_REFUSED, text
    if words & _REQUEST_CODES:
        return AttemptFailure.REQUEST_REJECTED, text
    return AttemptFailure.PROVIDER_ERROR, text


class OpenAiWire:
    """One streamed chat completion; see Wire."""

    def __init__(self) -> None:
        self.ended = False
        self._parser = SseParser()
        self._calls = ToolCallAssembly()
        self._finish_reason: str | None = None
        self._usage: WireUsage | None = None

    @property
    def finished(self) -> bool:
        """True once the finish reason was read."""
        return self._finish_reason is not None

    def take(self, chunk: bytes, events: list[ProviderEvent]) -> bool:
        """Takes the next bytes in; see Wire."""
        found = self._parser.feed(chunk)
        for data in found:
            if data == b"[DONE]":
                self.ended = True
            else:
                self._event(decode_chunk(data), events)
        return bool(found)

    def _event(self, chunk: Chunk, events: list[ProviderEvent]) -> None:
        if chunk.error is not None:
            failure, message = error_of(chunk.error)
            raise ProviderError(failure, message)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choice(choice, events)

    def _choice(self, choice: ChunkChoice, events: list[ProviderEvent]) -> None:
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason
        delta = choice.delta
        if delta is None:
            return
        if reasoning := delta.reasoning_content or delta.reasoning:
            events.append(ReasoningDelta(reasoning))
        # A refusal is the model's answer in another field.
        if text := delta.content or delta.refusal:
            events.append(TextDelta(text))
        for call in delta.tool_calls or ():
            function = call.function
            self._calls.add(
                call.index, call.id, function.name if function else None, function.arguments if function else None
            )

    def finish(self, secrets: Sequence[Secret]) -> Sequence[ProviderEvent]:
        """The tool calls and the end; see Wire."""
        word = self._finish_reason or ""
        reason = FINISH_REASONS.get(word, FinishReason.STOP)
        calls = self._calls.finished(cut=reason is FinishReason.MAX_OUTPUT_TOKENS)
        return (*calls, finish_with(reason, word, usage_of(self._usage), calls=calls, secrets=secrets))
