"""Tools: functions that a model may call. Their schemas come from type hints and docstrings."""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from flowstack._errors import ToolDefinitionError
from flowstack._json import NotJsonError, encode

if TYPE_CHECKING:
    from pydantic import BaseModel

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
DESCRIPTION_BYTES_MAX: Final = 8192
SCHEMA_BYTES_MAX: Final = 65536
RESULT_BYTES_MAX: Final = 1024 * 1024
ERROR_CHARACTERS_MAX: Final = 2000
TOOLS_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A function that a model may call.

    Attributes:
        name: what the model calls it by.
        description: what the model is told that it does.
        schema_json: JSON Schema of its arguments.
        function: the function itself.
        is_async: its call has to be awaited.
        arguments: checks what the model sent; its fields carry the parameters' names as aliases.
    """

    name: str
    description: str
    schema_json: str
    function: Callable[..., Any]
    is_async: bool
    arguments: type[BaseModel]


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What the model is told."""

    content: str
    is_error: bool


def define(function: Callable[..., Any], name: str | None = None, description: str | None = None) -> ToolDefinition:
    """Reads a function's signature and docstring.

    Args:
        function: sync or async, with parameters that can be given by name and that JSON can express.
        name: in place of the function's.
        description: in place of the docstring's.

    Raises:
        ToolDefinitionError: what a model could not call.
    """
    from docstring_parser import parse
    from pydantic import Field

    own_name = name or str(getattr(function, "__name__", ""))
    if not own_name:
        raise ToolDefinitionError(
            f"A tool that is no function, but {type(function).__name__}, has no name of its own: give it one with "
            "name=."
        )
    if not NAME.fullmatch(own_name):
        raise ToolDefinitionError(f"A tool's name has to be 1 to 64 letters, digits, _ or -; {own_name!r} is not.")
    documented = parse(inspect.getdoc(_plain(function)) or "")
    told = {parameter.arg_name: parameter.description for parameter in documented.params}
    fields: dict[str, Any] = {}
    for position, (parameter, hint) in enumerate(_parameters(function, own_name)):
        default = ... if parameter.default is parameter.empty else parameter.default
        # Parameters may be called what pydantic keeps for itself, such as `_x` or `json`: aliases may not clash.
        fields[f"p{position}"] = (hint, Field(default, alias=parameter.name, description=told.get(parameter.name)))
    model, schema = _model_of(own_name, fields)
    text = description if description is not None else _described(documented)
    if len(schema.encode()) > SCHEMA_BYTES_MAX or len(text.encode()) > DESCRIPTION_BYTES_MAX:
        raise ToolDefinitionError(
            f"Tool {own_name}: a description may have {DESCRIPTION_BYTES_MAX} bytes and the schema of the parameters "
            f"{SCHEMA_BYTES_MAX}; shorten the one that has more."
        )
    return ToolDefinition(own_name, text, schema, function, _is_async(function), model)


def _model_of(name: str, fields: Mapping[str, Any]) -> tuple[type[BaseModel], str]:
    """The model of the arguments, and its schema."""
    from pydantic import create_model
    from pydantic.errors import PydanticUserError

    try:
        model: type[BaseModel] = create_model(f"{name}_arguments", **fields)
        schema = _without_titles(model.model_json_schema())
        return model, json.dumps(schema, separators=(",", ":"), allow_nan=False)
    except (PydanticUserError, TypeError, ValueError, NameError):
        for one in fields if len(fields) > 1 else ():
            _model_of(name, {one: fields[one]})  # the first that fails alone is the one to name
        parameters = ", ".join(str(field.alias) for _, field in fields.values())
        raise ToolDefinitionError(
            f"Tool {name}: JSON cannot express the type or the default of the parameter {parameters}. Use text, finite "
            "numbers, booleans, lists, dicts, enums, dataclasses or pydantic models."
        ) from None


def _parameters(function: Callable[..., Any], name: str) -> list[tuple[inspect.Parameter, Any]]:
    try:
        signature = inspect.signature(function)
        hints = _hints(_plain(function))
    except (TypeError, ValueError, NameError) as error:
        raise ToolDefinitionError(f"Tool {name}: its signature cannot be read. ({_first_line(error)})") from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ToolDefinitionError(f"Tool {name}: a tool returns one result; it cannot be a generator.")
    _refuse_unbound(function, list(signature.parameters.values()), name)
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ToolDefinitionError(
                f"Tool {name}: a model gives arguments by name, so the parameter {parameter.name} cannot be "
                "positional-only, *args or **kwargs. Name each parameter."
            )
        found.append((parameter, hints.get(parameter.name, Any)))
    return found


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose hints and docstring are the tool's."""
    if isinstance(function, functools.partial):
        return _plain(function.func)
    return function if inspect.isroutine(function) else type(function).__call__


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The hints of the parameters. What comes back need not be known here."""
    annotations = {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if name != "return"}
    known = getattr(inspect.unwrap(function), "__globals__", {})
    return typing.get_type_hints(SimpleNamespace(__annotations__=annotations), known, include_extras=True)


def _refuse_unbound(function: Callable[..., Any], parameters: list[inspect.Parameter], name: str) -> None:
    """A method of a class, whose `self` no model can give."""
    place = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not place or place.endswith("<locals>") or not parameters or inspect.ismethod(function):
        return
    first = parameters[0]
    if first.name in ("self", "cls") and first.annotation is first.empty:
        raise ToolDefinitionError(
            f"Tool {name}: a method has no {first.name} before there is an object. Register the object's, as in "
            f"agent.tool(thing.{name})."
        )


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004  # the method itself is wanted, not whether it is there
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _described(documented: Any) -> str:
    parts = (documented.short_description, documented.long_description)
    return "\n\n".join(part for part in parts if part)


def _without_titles(schema: Any) -> Any:
    """Pydantic titles everything after the Python name, which costs tokens and says nothing."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs"):
            kept[key] = {name: _without_titles(item) for name, item in value.items()}
        else:
            kept[key] = value if key in ("default", "enum", "const", "examples") else _without_titles(value)
    return kept


def _first_line(error: BaseException) -> str:
    return (_text_of(error).splitlines() or [type(error).__name__])[0]


def _text_of(error: BaseException) -> str:
    """What an exception says; nothing where it cannot say it. Text that no message can hold is replaced."""
    try:
        return str(error).encode(errors="replace").decode()
    except Exception:  # whatever a stranger's __str__ raises
        return ""


def call(tool: ToolDefinition, arguments_json: str) -> Any:
    """Calls a tool with what the model sent; for an async one, or one that wraps one, this is to be awaited.

    Raises:
        ArgumentsError: what the model sent does not fit the tool.
        Exception: whatever the tool raises.
    """
    from pydantic import ValidationError

    try:
        model = tool.arguments.model_validate_json(arguments_json or "{}")
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise ArgumentsError(
            "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults)
        ) from None
    named = {str(field.alias): getattr(model, key) for key, field in type(model).model_fields.items()}
    return tool.function(**named)


class ArgumentsError(ValueError):
    """The model's arguments do not fit. The text is for the model."""


def returned(value: Any) -> ToolOutcome:
    """What a tool's result is to the model: text as it is, everything else as JSON."""
    try:
        content = str(value) if isinstance(value, str) else encode(value)
    except NotJsonError as error:
        return ToolOutcome(f"The tool returned what JSON cannot express: {error}.", True)
    if len(content.encode()) > RESULT_BYTES_MAX:
        return ToolOutcome(f"The tool's result is over {RESULT_BYTES_MAX} bytes. Ask for less.", True)
    return ToolOutcome(content, False)


def raised(error: BaseException) -> ToolOutcome:
    """What a tool's failure is to the model."""
    what = "The arguments are wrong" if isinstance(error, ArgumentsError) else type(error).__name__
    return ToolOutcome(f"{what}: {_text_of(error)}"[:ERROR_CHARACTERS_MAX], True)


def unknown(name: str, known: typing.Iterable[str]) -> ToolOutcome:
    """What a call of a tool that there is not is to the model."""
    return ToolOutcome(f"There is no tool {name}. Tools: {', '.join(known)}.", True)
