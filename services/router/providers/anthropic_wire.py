"""Requests in Anthropic's messages format (platform.claude.com/docs/en/api/messages)."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from services.router.domain.request import (
    ImagePart,
    NativeContent,
    Part,
    Prompt,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from services.router.providers import thinking
from services.router.providers.traits import ModelTraits, Reasoning, output_limit
from services.router.providers.turns import EMPTY_SCHEMA, Turn, system_texts, turns

FORMAT: Final = "anthropic"

MAX_TOKENS_DEFAULT: Final = 32_000
"""For a model whose limit is not known: the format demands a number, and every Claude since 4 puts out as many."""

_CHOICES: Final = {ToolChoiceMode.AUTO: "auto", ToolChoiceMode.REQUIRED: "any", ToolChoiceMode.TOOL: "tool"}


def encode_request(model: str, prompt: Prompt, traits: ModelTraits, reasoning: Reasoning) -> bytes:
    """The body of a streamed message.

    Raises:
        ProviderError: REQUEST_REJECTED, the plan's cap leaves no room to reason.
    """
    limit = output_limit(prompt, traits) or traits.max_output_tokens or MAX_TOKENS_DEFAULT
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": limit,
        "messages": [_turn(turn) for turn in turns(prompt, FORMAT)],
        "stream": True,
    }
    if system := system_texts(prompt):
        body["system"] = [{"type": "text", "text": text} for text in system]
    if prompt.tools:
        body["tools"] = [_tool(tool) for tool in prompt.tools]
        body |= _tool_choice(prompt.tool_choice)
    output: dict[str, Any] = {}
    if prompt.response_schema_json is not None:
        schema = msgspec.Raw(prompt.response_schema_json.encode())
        output["format"] = {"type": "json_schema", "schema": schema}
    if prompt.reasoning_effort is not None:
        if reasoning is Reasoning.ADAPTIVE:
            # Newer models keep what they think to themselves unless they are asked.
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
            output["effort"] = thinking.EFFORTS[prompt.reasoning_effort]
        else:
            budget = thinking.budget_tokens(prompt.reasoning_effort, limit)
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    optional = {
        "output_config": output or None,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "stop_sequences": list(prompt.stop_sequences) or None,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    return msgspec.json.encode(body)


def _turn(turn: Turn) -> dict[str, Any]:
    content: list[Any] = []
    for piece in turn.pieces:
        if isinstance(piece, NativeContent):
            content += msgspec.json.decode(piece.content_json, type=list[msgspec.Raw])
        else:
            content.append(_block(piece))
    return {"role": "assistant" if turn.assistant else "user", "content": content}


def _block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            data = base64.b64encode(part.data).decode()
            return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": data}}
        case ToolCallPart():
            arguments = msgspec.Raw(part.arguments_json.encode())
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
        case ToolResultPart():
            result: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.tool_call_id}
            if part.content:
                result["content"] = part.content
            if part.is_error:
                result["is_error"] = True
            return result


def native_block(block: thinking.Block, arguments: msgspec.Raw | None) -> dict[str, Any]:
    """A block of an answer as it is handed back."""
    match block.kind:
        case thinking.Kind.TEXT:
            return {"type": "text", "text": block.text}
        case thinking.Kind.THINKING:
            return {"type": "thinking", "thinking": block.text, "signature": block.signature}
        case thinking.Kind.REDACTED:
            return {"type": "redacted_thinking", "data": block.signature}
        case thinking.Kind.TOOL:
            return {"type": "tool_use", "id": block.tool_call_id, "name": block.text, "input": arguments}


def _tool(tool: Tool) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "name": tool.name,
        "input_schema": msgspec.Raw((tool.input_schema_json or EMPTY_SCHEMA).encode()),
    }
    if tool.description:
        wire["description"] = tool.description
    return wire


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.mode is ToolChoiceMode.NONE:
        return {"tool_choice": {"type": "none"}}
    wire: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if choice.mode is ToolChoiceMode.TOOL:
        wire["name"] = choice.tool_name
    if choice.parallel is not None:
        wire["disable_parallel_tool_use"] = not choice.parallel
    # Auto alone is the format's own default.
    return {"tool_choice": wire} if len(wire) > 1 or choice.mode is not ToolChoiceMode.AUTO else {}
