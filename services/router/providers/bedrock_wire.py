"""Requests in Bedrock's Converse format: docs.aws.amazon.com/bedrock, API reference, ConverseStream."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from services.router.domain.request import (
    ImagePart,
    NativeContent,
    Part,
    Prompt,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from services.router.providers import thinking
from services.router.providers.traits import ModelTraits, Reasoning, output_limit
from services.router.providers.turns import EMPTY_SCHEMA, Turn, has_tool_parts, system_texts, turns
from services.shared.errors import invalid_request

FORMAT: Final = "bedrock"

MAX_TOKENS_THINKING: Final = 32_000
"""For a model that thinks by a budget and whose limit is not known: the budget has to be under a number."""


def check(prompt: Prompt) -> None:
    """Refuses what Converse has no field for.

    Raises:
        FlowStackError: INVALID_REQUEST, naming the field.
    """
    for index, message in enumerate(prompt.messages):
        if message.role is not Role.SYSTEM:
            if message.role is not Role.USER:
                raise invalid_request(
                    f"messages[{index}].role", "with this provider a conversation begins with a user message"
                )
            break
    if prompt.tools and prompt.tool_choice.parallel is False:
        raise invalid_request("tool_choice.parallel_tool_calls", "cannot be switched off with this provider")
    if has_tool_parts(prompt):
        if not prompt.tools:
            raise invalid_request("tools", "this provider needs the tools whose calls the messages hold")
        if prompt.tool_choice.mode is ToolChoiceMode.NONE:
            raise invalid_request(
                "tool_choice.mode", "this provider cannot switch tools off where the messages hold tool calls"
            )


def encode_request(prompt: Prompt, traits: ModelTraits, reasoning: Reasoning) -> bytes:
    """The body of a ConverseStream.

    Raises:
        ProviderError: REQUEST_REJECTED, the plan's cap leaves no room to reason.
    """
    body: dict[str, Any] = {"messages": [_turn(turn) for turn in turns(prompt, FORMAT)]}
    if system := system_texts(prompt):
        body["system"] = [{"text": text} for text in system]
    # Converse has no word for "call no tool": without tools in the request the model can call none.
    if prompt.tools and prompt.tool_choice.mode is not ToolChoiceMode.NONE:
        body["toolConfig"] = _tool_config(prompt.tools, prompt.tool_choice)
    limit = output_limit(prompt, traits)
    output: dict[str, Any] = {}
    if prompt.response_schema_json is not None:
        schema = {"name": "response", "schema": prompt.response_schema_json}
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    if prompt.reasoning_effort is not None:
        effort = prompt.reasoning_effort
        match reasoning:
            case Reasoning.ADAPTIVE:
                # Newer models keep what they think to themselves unless they are asked.
                body["additionalModelRequestFields"] = {"thinking": {"type": "adaptive", "display": "summarized"}}
                output["effort"] = thinking.EFFORTS[effort]
            case Reasoning.BUDGET:
                limit = limit or traits.max_output_tokens or MAX_TOKENS_THINKING
                budget = thinking.budget_tokens(effort, limit)
                body["additionalModelRequestFields"] = {"thinking": {"type": "enabled", "budget_tokens": budget}}
            case _:
                body["additionalModelRequestFields"] = {"reasoning_effort": effort.value}
    if output:
        body["outputConfig"] = output
    inference = {
        "maxTokens": limit,
        "temperature": prompt.temperature,
        "topP": prompt.top_p,
        "stopSequences": list(prompt.stop_sequences) or None,
    }
    if inference := {name: value for name, value in inference.items() if value is not None}:
        body["inferenceConfig"] = inference
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
            return {"text": part.text}
        case ImagePart():
            data = base64.b64encode(part.data).decode()
            return {"image": {"format": part.media_type.removeprefix("image/"), "source": {"bytes": data}}}
        case ToolCallPart():
            return _tool_use(part.id, part.name, msgspec.Raw(part.arguments_json.encode()))
        case ToolResultPart():
            return {
                "toolResult": {
                    "toolUseId": part.tool_call_id,
                    # A text without characters is refused, a result without texts is not.
                    "content": [{"text": part.content}] if part.content.strip() else [],
                    "status": "error" if part.is_error else "success",
                }
            }


def native_block(block: thinking.Block, arguments: msgspec.Raw | None) -> dict[str, Any]:
    """A block of an answer as it is handed back."""
    match block.kind:
        case thinking.Kind.TEXT:
            return {"text": block.text}
        case thinking.Kind.THINKING:
            signed = {"signature": block.signature} if block.signature else {}
            return {"reasoningContent": {"reasoningText": {"text": block.text, **signed}}}
        case thinking.Kind.REDACTED:
            return {"reasoningContent": {"redactedContent": block.signature}}
        case thinking.Kind.TOOL:
            return _tool_use(block.tool_call_id, block.text, arguments)


def _tool_use(id_: str, name: str, arguments: msgspec.Raw | None) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id_, "name": name, "input": arguments}}


def _tool_config(tools: tuple[Tool, ...], choice: ToolChoice) -> dict[str, Any]:
    config: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if choice.mode is ToolChoiceMode.REQUIRED:
        config["toolChoice"] = {"any": {}}
    elif choice.mode is ToolChoiceMode.TOOL:
        config["toolChoice"] = {"tool": {"name": choice.tool_name}}
    return config


def _tool(tool: Tool) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": tool.name,
        "inputSchema": {"json": msgspec.Raw((tool.input_schema_json or EMPTY_SCHEMA).encode())},
    }
    if tool.description:
        spec["description"] = tool.description
    return {"toolSpec": spec}
