"""The chat completions format of OpenAI (platform.openai.com/docs/api-reference/chat): requests out, chunks in.

Only the fields that are used are decoded.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.domain.request import (
    ImagePart,
    Message,
    Prompt,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)


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
        input_tokens=_count(wire.prompt_tokens),
        output_tokens=_count(wire.completion_tokens),
        cached_input_tokens=_count(prompt.cached_tokens) if prompt else None,
        reasoning_tokens=_count(completion.reasoning_tokens) if completion else None,
    )


def _count(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens < 2**31 else None


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


def encode_request(model: str, prompt: Prompt, *, max_tokens_field: str, include_usage: bool) -> bytes:
    """The body of a streamed chat completion."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [wire for message in prompt.messages for wire in _messages(message)],
        "stream": True,
    }
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    if prompt.tools:
        body["tools"] = [_tool(tool) for tool in prompt.tools]
        body |= _tool_choice(prompt.tool_choice)
    if prompt.response_schema_json is not None:
        schema = msgspec.Raw(prompt.response_schema_json.encode())
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": schema, "strict": True},
        }
    if prompt.reasoning_effort is not None:
        body["reasoning_effort"] = prompt.reasoning_effort.value
    optional = {
        max_tokens_field: prompt.max_output_tokens,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "stop": list(prompt.stop_sequences) or None,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    return msgspec.json.encode(body)


def _messages(message: Message) -> Iterator[dict[str, Any]]:
    """A message in OpenAI's form; each result of a tool is a message of its own there."""
    match message.role:
        case Role.TOOL:
            for part in message.parts:
                if isinstance(part, ToolResultPart):
                    yield {"role": "tool", "tool_call_id": part.tool_call_id, "content": _result_text(part)}
        case Role.ASSISTANT:
            yield _assistant(message)
        case Role.SYSTEM:
            yield {"role": "system", "content": _text(message)}
        case Role.USER:
            yield {"role": "user", "content": _user_content(message)}


def _result_text(part: ToolResultPart) -> str:
    # The format has no flag for a failed tool; the text has to say it.
    return f"Error: {part.content}" if part.is_error else part.content


def _assistant(message: Message) -> dict[str, Any]:
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments_json},
        }
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    wire: dict[str, Any] = {"role": "assistant", "content": _text(message) or None}
    if calls:
        wire["tool_calls"] = calls
    return wire


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


def _user_content(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextPart) for part in message.parts) and len(message.parts) == 1:
        return _text(message)
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            data = base64.b64encode(part.data).decode()
            content.append({"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{data}"}})
    return content


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.input_schema_json:
        function["parameters"] = msgspec.Raw(tool.input_schema_json.encode())
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    match choice.mode:
        case ToolChoiceMode.NONE | ToolChoiceMode.REQUIRED:
            wire["tool_choice"] = choice.mode.value
        case ToolChoiceMode.TOOL:
            wire["tool_choice"] = {"type": "function", "function": {"name": choice.tool_name}}
        case ToolChoiceMode.AUTO:
            # The format's own default.
            pass
    if choice.parallel is not None:
        wire["parallel_tool_calls"] = choice.parallel
    return wire
