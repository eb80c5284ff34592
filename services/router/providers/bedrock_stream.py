"""Answers of Bedrock's ConverseStream: docs.aws.amazon.com/bedrock, API reference, ConverseStream.

Only the fields that are used are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from botocore.eventstream import EventStreamMessage

from services.router.domain.events import ProviderEvent, ReasoningDelta, TextDelta
from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.providers.bedrock_wire import FORMAT, native_block
from services.router.providers.event_stream import EventStreamParser
from services.router.providers.finish import count, finish_with, total_input
from services.router.providers.port import ProviderError
from services.router.providers.thinking import AnswerBlocks, Kind
from services.router.providers.tool_calls import ToolCallAssembly
from services.shared.secret import Secret


class ToolUse(msgspec.Struct, gc=False, rename="camel"):
    """A tool call's head, or a piece of its arguments."""

    tool_use_id: str | None = None
    name: str | None = None
    input: str | None = None


class ReasoningContent(msgspec.Struct, gc=False, rename="camel"):
    """A piece of reasoning."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Delta(msgspec.Struct, gc=False, rename="camel"):
    """What contentBlockDelta and contentBlockStart say."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: ReasoningContent | None = None


class BlockEvent(msgspec.Struct, gc=False, rename="camel"):
    """contentBlockStart or contentBlockDelta."""

    content_block_index: int = 0
    start: Delta | None = None
    delta: Delta | None = None


class MessageStop(msgspec.Struct, gc=False, rename="camel"):
    """messageStop."""

    stop_reason: str


class WireUsage(msgspec.Struct, gc=False, rename="camel"):
    """Token counts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class Metadata(msgspec.Struct, gc=False):
    """The last event."""

    usage: WireUsage | None = None


class ErrorBody(msgspec.Struct, gc=False):
    """The body of a refusal, and of an exception within a stream."""

    message: str | None = None
    type: str | None = msgspec.field(default=None, name="__type")
    """The exception, where no header names it."""


decode_block: Final = msgspec.json.Decoder(BlockEvent).decode
decode_stop: Final = msgspec.json.Decoder(MessageStop).decode
decode_metadata: Final = msgspec.json.Decoder(Metadata).decode

FINISH_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.MAX_OUTPUT_TOKENS,
    "model_context_window_exceeded": FinishReason.MAX_OUTPUT_TOKENS,
    "tool_use": FinishReason.TOOL_CALLS,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
}
"""A word that is not in here is a natural end: the provider's own stands beside it."""

_MALFORMED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Ends with which Bedrock says that the model's answer is broken."""

_FAILURES: Final = {
    "throttlingexception": AttemptFailure.RATE_LIMITED,
    "servicequotaexceededexception": AttemptFailure.RATE_LIMITED,
    "accessdeniedexception": AttemptFailure.CREDENTIALS_REFUSED,
    "unrecognizedclientexception": AttemptFailure.CREDENTIALS_REFUSED,
    "invalidsignatureexception": AttemptFailure.CREDENTIALS_REFUSED,
    "incompletesignatureexception": AttemptFailure.CREDENTIALS_REFUSED,
    "missingauthenticationtokenexception": AttemptFailure.CREDENTIALS_REFUSED,
    "expiredtokenexception": AttemptFailure.CREDENTIALS_REFUSED,
    "optinrequired": AttemptFailure.CREDENTIALS_REFUSED,
    "validationexception": AttemptFailure.REQUEST_REJECTED,
    "resourcenotfoundexception": AttemptFailure.REQUEST_REJECTED,
    "modelnotreadyexception": AttemptFailure.PROVIDER_ERROR,
    "modelerrorexception": AttemptFailure.PROVIDER_ERROR,
    "modelstreamerrorexception": AttemptFailure.PROVIDER_ERROR,
    "modeltimeoutexception": AttemptFailure.PROVIDER_ERROR,
    "internalserverexception": AttemptFailure.PROVIDER_ERROR,
    "serviceunavailableexception": AttemptFailure.PROVIDER_ERROR,
}
"""By the errors of ConverseStream and the common errors of AWS, in small letters: a stream begins them with one."""


def failure_of_exception(name: str) -> AttemptFailure | None:
    """The failure that an exception's name means; None where the name is not known.

    AWS may put the exception's namespace and a `#` before the name, and a `:` and an address behind it.
    """
    return _FAILURES.get(name.rpartition("#")[2].partition(":")[0].lower())


class BedrockWire:
    """One ConverseStream; see Wire.

    Args:
        keep_blocks: Whether the answer may call tools, so that its reasoning would have to be handed back.
    """

    def __init__(self, *, keep_blocks: bool) -> None:
        self.ended = False
        self._parser = EventStreamParser()
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
        progressed = False
        for message in self._parser.feed(chunk):
            progressed = True
            headers = message.headers
            # Four in five frames are deltas of text.
            if headers.get(":event-type") == "contentBlockDelta":
                event = decode_block(message.payload)
                if event.delta is not None:
                    self._delta(event.content_block_index, event.delta, events)
            else:
                self._rare(headers, message)
        return progressed

    def _delta(self, index: int, delta: Delta, events: list[ProviderEvent]) -> None:
        if delta.text:
            events.append(TextDelta(delta.text))
            if self._blocks is not None:
                self._blocks.block(index, Kind.TEXT).pieces.append(delta.text)
        elif delta.tool_use is not None:
            self._calls.add(index, None, None, delta.tool_use.input)
        elif delta.reasoning_content is not None:
            self._reasoning(index, delta.reasoning_content, events)

    def _reasoning(self, index: int, said: ReasoningContent, events: list[ProviderEvent]) -> None:
        if said.text:
            events.append(ReasoningDelta(said.text))
        if self._blocks is None:
            return
        if said.redacted_content:
            self._blocks.take(said.redacted_content)
            self._blocks.block(index, Kind.REDACTED).signed = [said.redacted_content]
        if said.text:
            self._blocks.block(index, Kind.THINKING).pieces.append(said.text)
        if said.signature:
            self._blocks.sign(index, said.signature)

    def _rare(self, headers: dict[str, Any], message: EventStreamMessage) -> None:
        """Every frame but a delta. Starts of messages, ends of blocks and types that are new say nothing of use."""
        if headers.get(":message-type") in ("exception", "error"):
            raise _exception(headers, message.payload)
        match headers.get(":event-type"):
            case "contentBlockStart":
                event = decode_block(message.payload)
                call = event.start.tool_use if event.start else None
                if call is not None:
                    self._start(event.content_block_index, call)
            case "messageStop":
                self._stop_reason = decode_stop(message.payload).stop_reason
                if self._stop_reason in _MALFORMED:
                    raise ProviderError(AttemptFailure.MALFORMED, "The model's answer was malformed.")
            case "metadata":
                self._usage = decode_metadata(message.payload).usage or self._usage
                # It comes last; before the stop reason it ends nothing.
                self.ended = self.finished

    def _start(self, index: int, call: ToolUse) -> None:
        self._calls.add(index, call.tool_use_id, call.name, None)
        if self._blocks is not None:
            block = self._blocks.block(index, Kind.TOOL)
            block.tool_call_id = call.tool_use_id or ""
            block.pieces = [call.name or ""]

    def finish(self, secrets: Sequence[Secret]) -> Sequence[ProviderEvent]:
        """The tool calls and the end; see Wire."""
        word = self._stop_reason or ""
        reason = FINISH_REASONS.get(word, FinishReason.STOP)
        calls = self._calls.finished(cut=reason is FinishReason.MAX_OUTPUT_TOKENS)
        native = None if self._blocks is None else self._blocks.native(FORMAT, calls, native_block)
        return (*calls, finish_with(reason, word, self._totals(), calls=calls, secrets=secrets, native=native))

    def _totals(self) -> Usage:
        usage = self._usage
        read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
        return Usage(
            input_tokens=total_input(usage.input_tokens, read, written),
            output_tokens=count(usage.output_tokens),
            cached_input_tokens=count(read),
            cache_write_tokens=count(written),
        )


def _exception(headers: dict[str, Any], payload: bytes) -> ProviderError:
    """What an exception within a stream means; its message is not filtered yet."""
    name = str(headers.get(":exception-type") or headers.get(":error-code") or "")
    message = str(headers.get(":error-message") or "") or error_of(payload).message or ""
    return ProviderError(failure_of_exception(name) or AttemptFailure.PROVIDER_ERROR, message)


def error_of(body: bytes) -> ErrorBody:
    """What an error's body says, unfiltered; nothing where it is in another form."""
    try:
        return msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ErrorBody()
