"""What a request must satisfy beyond the shape of its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services.router.domain.request import (
    ImagePart,
    Message,
    Part,
    Prompt,
    Role,
    TextPart,
    ToolCallPart,
    ToolChoiceMode,
    ToolResultPart,
)
from services.shared.errors import FieldViolation, FlowStackError, Reason

_PARTS_OF_ROLE: dict[Role, tuple[type[Part], ...]] = {
    Role.SYSTEM: (TextPart,),
    Role.USER: (TextPart, ImagePart),
    Role.ASSISTANT: (TextPart, ToolCallPart),
    Role.TOOL: (ToolResultPart,),
}
_PART_NAMES: dict[type[Part], str] = {
    TextPart: "text",
    ImagePart: "image",
    ToolCallPart: "tool_call",
    ToolResultPart: "tool_result",
}


IsObject = Callable[[str], bool]
"""Whether a text is a JSON object. Given in, because reading JSON to the letter takes a library: Python's own takes
NaN and halves of characters, which providers refuse, and no long numbers, which they take."""


def check(prompt: Prompt, is_object: IsObject) -> None:
    """Refuses what no provider could be asked.

    Raises:
        FlowStackError: INVALID_REQUEST, with every field that breaks a rule.
    """
    violations = [
        *(found for index, message in enumerate(prompt.messages) for found in _message(index, message, is_object)),
        *_tools(prompt, is_object),
    ]
    if prompt.response_schema_json is not None and not is_object(prompt.response_schema_json):
        violations.append(FieldViolation("response_schema_json", "has to be a JSON object"))
    if violations:
        summary = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
        raise FlowStackError(Reason.INVALID_REQUEST, f"The request is invalid: {summary}.", violations=violations)


def _message(index: int, message: Message, is_object: IsObject) -> Iterator[FieldViolation]:
    allowed = _PARTS_OF_ROLE[message.role]
    for position, part in enumerate(message.parts):
        path = f"messages[{index}].content[{position}].{_PART_NAMES[type(part)]}"
        if not isinstance(part, allowed):
            names = " and ".join(_PART_NAMES[kind] for kind in allowed)
            yield FieldViolation(path, f"a message of role {message.role.value} takes {names} only")
        elif isinstance(part, ToolCallPart) and not is_object(part.arguments_json):
            yield FieldViolation(f"{path}.arguments_json", "has to be a JSON object")


def _tools(prompt: Prompt, is_object: IsObject) -> Iterator[FieldViolation]:
    for index, tool in enumerate(prompt.tools):
        if tool.input_schema_json and not is_object(tool.input_schema_json):
            yield FieldViolation(f"tools[{index}].input_schema_json", "has to be a JSON object")
    choice = prompt.tool_choice
    if choice.mode is ToolChoiceMode.REQUIRED and not prompt.tools:
        yield FieldViolation("tool_choice.mode", "cannot require a tool where the request has none")
    if choice.mode is ToolChoiceMode.TOOL and choice.tool_name not in {tool.name for tool in prompt.tools}:
        yield FieldViolation("tool_choice.tool_name", "has to be the name of one of the request's tools")
