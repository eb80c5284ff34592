"""The conversation as turns of user and assistant: the form that Anthropic and Bedrock share.

Both take the system's text apart from the conversation, want the results of tools in the user's next turn, and their
turns to alternate. So messages of one side that follow one another become one turn, as Anthropic's own service does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.router.domain.request import (
    Message,
    NativeContent,
    Part,
    Prompt,
    Role,
    TextPart,
    ToolCallPart,
    ToolChoiceMode,
    ToolResultPart,
)
from services.router.providers.traits import Reasoning
from services.shared.errors import FieldViolation, FlowStackError, Reason, invalid_request

EMPTY_SCHEMA: Final = '{"type":"object","properties":{}}'
"""An object without properties, for a tool that has no schema."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what was said, in order, each piece a part or a whole answer in the provider's own words."""

    assistant: bool
    pieces: Sequence[Part | NativeContent]


def system_texts(prompt: Prompt) -> list[str]:
    """The texts of the system messages that stand at the beginning."""
    texts: list[str] = []
    for message in prompt.messages:
        if message.role is not Role.SYSTEM:
            break
        texts += [part.text for part in message.parts if isinstance(part, TextPart) and part.text]
    return texts


def turns(prompt: Prompt, native_format: str) -> list[Turn]:
    """The rest of the conversation.

    Args:
        prompt: What is asked; it has passed `violations`.
        native_format: Whose own words are taken as they are; another provider's are told by their parts.
    """
    result: list[Turn] = []
    pieces: list[Part | NativeContent] = []
    for message in prompt.messages:
        if message.role is Role.SYSTEM:
            continue
        assistant = message.role is Role.ASSISTANT
        if not result or result[-1].assistant is not assistant:
            pieces = []
            result.append(Turn(assistant, pieces))
        pieces += _pieces(message, native_format)
    return result


def _pieces(message: Message, native_format: str) -> Iterator[Part | NativeContent]:
    if message.native is not None and message.native.format == native_format:
        yield message.native
        return
    for part in message.parts:
        # Both refuse a text without characters, which says nothing.
        if not isinstance(part, TextPart) or part.text:
            yield part


def check(prompt: Prompt, tool_call_id: re.Pattern[str]) -> None:
    """Refuses a conversation that these formats cannot say.

    Args:
        prompt: What is asked.
        tool_call_id: What the id of a tool call has to match as a whole.

    Raises:
        FlowStackError: INVALID_REQUEST, naming every field.
    """
    violations = list(_violations(prompt, tool_call_id))
    if violations:
        summary = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
        raise FlowStackError(Reason.INVALID_REQUEST, f"The request is invalid: {summary}.", violations=violations)


def _violations(prompt: Prompt, tool_call_id: re.Pattern[str]) -> Iterator[FieldViolation]:
    begun = False
    for index, message in enumerate(prompt.messages):
        path = f"messages[{index}]"
        if message.role is not Role.SYSTEM:
            begun = True
            yield from _message(path, message, tool_call_id)
        elif begun:
            yield FieldViolation(f"{path}.role", "this provider takes system messages only before all others")
    if not begun:
        yield FieldViolation("messages", "this provider needs a message beside the system's")
    for index, sequence in enumerate(prompt.stop_sequences):
        if not sequence.strip():
            yield FieldViolation(f"stop_sequences[{index}]", "this provider takes none of white space only")
    if prompt.temperature is not None and prompt.temperature > 1:
        yield FieldViolation("temperature", "has to be at most 1 with this provider")


def _message(path: str, message: Message, tool_call_id: re.Pattern[str]) -> Iterator[FieldViolation]:
    if not any(_pieces(message, "")):
        yield FieldViolation(f"{path}.content", "has no text, and this provider takes no empty messages")
    for position, part in enumerate(message.parts):
        id_ = _id_of(part)
        if id_ is not None and not tool_call_id.fullmatch(id_):
            yield FieldViolation(f"{path}.content[{position}]", "this provider does not take such a tool call id")


def _id_of(part: Part) -> str | None:
    if isinstance(part, ToolCallPart):
        return part.id
    return part.tool_call_id if isinstance(part, ToolResultPart) else None


def check_thinking(prompt: Prompt, reasoning: Reasoning) -> None:
    """Refuses what Claude's thinking does not go together with (platform.claude.com/docs, extended thinking).

    Raises:
        FlowStackError: INVALID_REQUEST, naming the field.
    """
    if prompt.reasoning_effort is None:
        return
    if _in_tool_loop(prompt):
        # It would have to begin with the reasoning that led to the calls, signed, which no message of ours can hold.
        raise invalid_request(
            "reasoning_effort",
            "cannot be set where the messages end in tool results of an earlier request; run the tools within a Chat",
        )
    if reasoning is not Reasoning.BUDGET:
        return
    if prompt.tool_choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL):
        raise invalid_request("tool_choice.mode", "this model cannot reason where a tool is forced")
    if prompt.temperature is not None and prompt.temperature != 1:
        raise invalid_request("temperature", "has to be 1 or unset where this model reasons")
    if prompt.top_p is not None and prompt.top_p < TOP_P_MIN_THINKING:
        raise invalid_request("top_p", f"has to be at least {TOP_P_MIN_THINKING} where this model reasons")
    if prompt.max_output_tokens is not None and prompt.max_output_tokens <= BUDGET_TOKENS_MIN:
        raise invalid_request("max_output_tokens", f"has to be over {BUDGET_TOKENS_MIN} where this model reasons")


TOP_P_MIN_THINKING: Final = 0.95
BUDGET_TOKENS_MIN: Final = 1024


def _in_tool_loop(prompt: Prompt) -> bool:
    """True where the conversation stands between the model's tool calls and its answer to their results."""
    return prompt.messages[-1].role is Role.TOOL


def has_tool_parts(prompt: Prompt) -> bool:
    """True where the conversation holds tool calls or results."""
    return any(isinstance(part, ToolCallPart | ToolResultPart) for m in prompt.messages for part in m.parts)
