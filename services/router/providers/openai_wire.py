"""Requests in the chat completions format of OpenAI (platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

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


def encode_request(
    model: str, prompt: Prompt, *, output_limit: int | None, max_tokens_field: str, include_usage: bool
) -> bytes:
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
        max_tokens_field: output_limit,
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
