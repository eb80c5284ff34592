"""Answers in Anthropic's messages format (platform.claude.com/docs/en/build-with-claude/streaming).

Only the fields that are used are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from services.router.domain.events import ProviderEvent, ReasoningDelta, TextDelta
from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.providers.anthropic_wire import FORMAT, native_block
from services.router.providers.finish import count, finish_with, total_input
from services.router.providers.port import ProviderError
from services.router.providers.sse import SseParser
from services.router.providers.thinking import AnswerBlocks, Kind
from services.router.providers.tool_calls import ToolCallAssembly
from services.shared.secret import Secret


class OutputDetails(msgspec.Struct, gc=False):
    """Of the output's tokens."""

    thinking_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    """Token counts; what an event leaves out stays as an earlier one said it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class MessageHead(msgspec.Struct, gc=False):
    """What message_start says."""

    usage: WireUsage | None = None


class ContentBlock(msgspec.Struct, gc=False):
    """What content_block_start says."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class Delta(msgspec.Struct, gc=False):
    """What content_block_delta and message_delta say."""

    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None


class WireError(msgspec.Struct, gc=False):
    """An error object."""

    type: str | None = None
    message: str | None = None


class Event(msgspec.Struct, gc=False):
    """One event of the stream."""

    type: str = ""
    index: int = 0
    delta: Delta | None = None
    content_block: ContentBlock | None = None
    message: MessageHead | None = None
    usage: WireUsage | None = None
    error: WireError | None = None


class ErrorBody(msgspec.Struct, gc=False):
    """The body of a refusal."""

    error: WireError | None = None


decode_event: Final = msgspec.json.Decoder(Event).decode

FINISH_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.MAX_OUTPUT_TOKENS,
    "model_context_window_exceeded": FinishReason.MAX_OUTPUT_TOKENS,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
"""A word that is not in here is a natural end: the provider's own stands beside it."""

_FAILURES: Final = {
    "rate_limit_error": AttemptFailure.RATE_LIMITED,
    "authentication_error": AttemptFailure.CREDENTIALS_REFUSED,
    "permission_error": AttemptFailure.CREDENTIALS_REFUSED,
    "billing_error": AttemptFailure.CREDENTIALS_REFUSED,
    "invalid_request_error": AttemptFailure.REQUEST_REJECTED,
    "not_found_error": AttemptFailure.REQUEST_REJECTED,
    "request_too_large": AttemptFailure.REQUEST_REJECTED,
}
"""By the error types of platform.claude.com/docs/en/api/errors; the others are the provider's own trouble."""


def error_of(error: WireError) -> tuple[AttemptFailure, str]:
    """The failure that an error object means, and its message, unfiltered."""
    message = error.message or ""
    if "credit balance is too low" in message:
        # Told as a bad request, and yet it is about the key's owner: on a managed key not the caller's affair.
        return AttemptFailure.CREDENTIALS_REFUSED, message
    return _FAILURES.get(error.type or "", AttemptFailure.PROVIDER_ERROR), message


class AnthropicWire:
    """One streamed message; see Wire.

    Args:
        keep_blocks: Whether the answer may call tools, so that its reasoning would have to be handed back.
    """

    def __init__(self, *, keep_blocks: bool) -> None:
        self.ended = False
        self._parser = SseParser()
        self._calls = ToolCallAssembly()
        self._blocks = AnswerBlocks() if keep_blocks else None
        self._stop_reason: str | None = None
        self._usage = WireUsage()

    @property
    def finished(self) -> bool:
        """True once the stop reason was read."""
        return self._stop_reason is not None

    def take(self, chunk: bytes, events: list[ProviderEvent]) -> bool:
        """Takes the next bytes in; see Wire."""
        found = self._parser.feed(chunk)
        for data in found:
            event = decode_event(data)
            # Four in five events are deltas of text.
            if event.type == "content_block_delta":
                self._delta(event.index, event.delta, events)
            else:
                self._rare(event, events)
        return bool(found)

    def _delta(self, index: int, delta: Delta | None, events: list[ProviderEvent]) -> None:
        if delta is None:
            return
        blocks = self._blocks
        if delta.text:
            events.append(TextDelta(delta.text))
            if blocks is not None:
                blocks.block(index, Kind.TEXT).pieces.append(delta.text)
        elif delta.partial_json:
            self._calls.add(index, None, None, delta.partial_json)
        elif delta.thinking:
            events.append(ReasoningDelta(delta.thinking))
            if blocks is not None:
                blocks.block(index, Kind.THINKING).pieces.append(delta.thinking)
        elif delta.signature and blocks is not None:
            blocks.sign(index, delta.signature)

    def _rare(self, event: Event, events: list[ProviderEvent]) -> None:
        """Every event but a delta. Pings, block ends and types that are new say nothing that is used."""
        match event.type:
            case "content_block_start" if event.content_block is not None:
                self._start(event.index, event.content_block, events)
            case "message_start" if event.message is not None:
                self._count(event.message.usage)
            case "message_delta":
                self._count(event.usage)
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._stop_reason = event.delta.stop_reason
            case "message_stop":
                self.ended = True
            case "error":
                failure, message = error_of(event.error or WireError())
                raise ProviderError(failure, message)

    def _start(self, index: int, block: ContentBlock, events: list[ProviderEvent]) -> None:
        if block.type == "tool_use":
            self._calls.add(index, block.id, block.name, None)
            if self._blocks is not None:
                call = self._blocks.block(index, Kind.TOOL)
                call.tool_call_id = block.id or ""
                call.pieces = [block.name or ""]
            return
        if self._blocks is not None and block.type == "redacted_thinking":
            self._blocks.take(block.data or "")
            self._blocks.block(index, Kind.REDACTED).signed = [block.data or ""]
        elif self._blocks is not None and block.type == "thinking":
            # It may have nothing but a signature, where the model keeps what it thinks to itself.
            self._blocks.block(index, Kind.THINKING)
        # A block may begin with what a delta would say.
        self._delta(index, Delta(text=block.text), events)
        self._delta(index, Delta(thinking=block.thinking), events)
        self._delta(index, Delta(signature=block.signature), events)

    def _count(self, said: WireUsage | None) -> None:
        """Takes counts in: each is a total, and the last word on it holds."""
        if said is None:
            return
        for name in WireUsage.__struct_fields__:
            value = getattr(said, name)
            if value is not None:
                setattr(self._usage, name, value)

    def finish(self, secrets: Sequence[Secret]) -> Sequence[ProviderEvent]:
        """The tool calls and the end; see Wire."""
        word = self._stop_reason or ""
        reason = FINISH_REASONS.get(word, FinishReason.STOP)
        calls = self._calls.finished(cut=reason is FinishReason.MAX_OUTPUT_TOKENS)
        native = None if self._blocks is None else self._blocks.native(FORMAT, calls, native_block)
        return (*calls, finish_with(reason, word, self._totals(), calls=calls, secrets=secrets, native=native))

    def _totals(self) -> Usage:
        usage = self._usage
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        details = usage.output_tokens_details
        return Usage(
            input_tokens=total_input(usage.input_tokens, read, written),
            output_tokens=count(usage.output_tokens),
            cached_input_tokens=count(read),
            cache_write_tokens=count(written),
            reasoning_tokens=count(details.thinking_tokens) if details else None,
        )
