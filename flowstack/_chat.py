"""What a chat may ask, and the request that asks it. Pure: sync and async agents share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from flowstack_protos.router.v1 import router_service_pb2 as pb

from flowstack._connection import MESSAGE_BYTES_MAX, SESSION_SECONDS
from flowstack._errors import InvalidRequestError
from flowstack._json import NotJsonError, encode
from flowstack._requests import build
from flowstack._routes import Route
from flowstack._tools import ToolDefinition

Message = str | Sequence[Mapping[str, str]]
"""What to say: a text, or a whole conversation as [{"role": "user", "content": …}, …], because calls keep no memory."""


class ChatOptions(TypedDict, total=False):
    """What a chat may set, for all chats of an agent or for one.

    system: instructions to the model. max_output_tokens, temperature (0 to 2), top_p (over 0 to 1), stop_sequences:
    as the provider knows them. fallbacks: (provider, model) pairs to try when an attempt fails before any output.
    labels: up to 16 texts for reports. response_schema: JSON Schema that the answer has to satisfy. reasoning_effort:
    minimal, low, medium or high. tool_choice: auto, none, required, or a tool's name. request_id: the idempotency
    key, made where it is not given. timeout_s: seconds for the whole session.
    """

    system: str | None
    max_output_tokens: int
    temperature: float
    top_p: float
    stop_sequences: Sequence[str]
    fallbacks: Sequence[tuple[str, str]]
    labels: Mapping[str, str]
    response_schema: Mapping[str, Any]
    reasoning_effort: str
    tool_choice: str
    request_id: str
    timeout_s: float


OPTIONS: Final = frozenset(ChatOptions.__annotations__)
_PLAIN: Final = ("max_output_tokens", "temperature", "top_p", "stop_sequences", "labels")
_CHOICES: Final = {
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}
_EFFORTS: Final = {
    "minimal": pb.REASONING_EFFORT_MINIMAL,
    "low": pb.REASONING_EFFORT_LOW,
    "medium": pb.REASONING_EFFORT_MEDIUM,
    "high": pb.REASONING_EFFORT_HIGH,
}
TIMEOUT_SECONDS_MAX: Final = 86_400
ENVELOPE_BYTES: Final = 64
"""What a Chat's first message has around the request, at most."""


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses what is no option.

    Raises:
        TypeError: as Python itself does for an unknown keyword.
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"there is no option {name!r}; options are {', '.join(sorted(OPTIONS))}")


def complete_request(
    route: Route, message: Message, options: ChatOptions, tools: Iterable[ToolDefinition]
) -> pb.CompleteRequest:
    """The request for one chat.

    Raises:
        InvalidRequestError: a message or an option that no request can hold.
    """
    messages = [_message("system", options["system"])] if options.get("system") else []
    messages += _messages(message)
    plain: dict[str, Any] = {name: value for name, value in options.items() if name in _PLAIN and value is not None}
    effort = str(options.get("reasoning_effort") or "").lower()
    if effort and effort not in _EFFORTS:
        raise InvalidRequestError(f"reasoning_effort has to be one of {', '.join(_EFFORTS)}.")
    try:
        schema = encode(options["response_schema"]) if options.get("response_schema") else None
    except NotJsonError as error:
        raise InvalidRequestError(f"response_schema cannot be sent: {error}.") from None
    request = build(
        pb.CompleteRequest,
        request_id=options.get("request_id", ""),
        provider=route.provider,
        model=route.model,
        messages=messages,
        tools=[pb.Tool(name=t.name, description=t.description, input_schema_json=t.schema_json) for t in tools],
        fallbacks=_fallbacks(options.get("fallbacks") or ()),
        response_schema_json=schema,
        reasoning_effort=_EFFORTS[effort] if effort else None,
        **plain,
    )
    choice = options.get("tool_choice")
    if choice and request.tools:
        mode = _CHOICES.get(choice) if isinstance(choice, str) else None
        name = None if mode else choice
        request.tool_choice.CopyFrom(build(pb.ToolChoice, mode=mode or pb.TOOL_CHOICE_MODE_TOOL, tool_name=name))
    if route.byok is not None:
        request.byok.append(route.byok)  # last, so that no error above has it among its variables
    size = request.ByteSize()
    if size > MESSAGE_BYTES_MAX - ENVELOPE_BYTES:
        del request.byok[:]
        raise InvalidRequestError(
            f"The chat has {size:,} bytes; {MESSAGE_BYTES_MAX:,} are allowed. Shorten its messages, or part them."
        )
    return request


def timeout_of(options: ChatOptions) -> float:
    """How long a chat may take, in seconds.

    Raises:
        InvalidRequestError: no number over 0.
    """
    given: Any = options.get("timeout_s")
    if given is None:
        return SESSION_SECONDS
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= TIMEOUT_SECONDS_MAX:
        raise InvalidRequestError(f"timeout_s has to be a number of seconds, over 0 to {TIMEOUT_SECONDS_MAX:,}.")
    return float(given)


def _fallbacks(pairs: Any) -> list[pb.Fallback]:
    try:
        return [build(pb.Fallback, provider=provider, model=model) for provider, model in pairs]
    except (TypeError, ValueError):
        raise InvalidRequestError(
            "fallbacks has to be a list of (provider, model), such as [('openai', 'gpt-4o')]."
        ) from None


def _messages(message: Any) -> list[pb.Message]:
    if isinstance(message, str):
        return [_message("user", message)]
    if isinstance(message, Sequence) and all(isinstance(one, Mapping) for one in message):
        return [_message(one.get("role", ""), one.get("content", "")) for one in message]
    raise InvalidRequestError(_WHAT_A_MESSAGE_IS)


_WHAT_A_MESSAGE_IS: Final = (
    "A message has to be text, or a list of {'role': 'system', 'user' or 'assistant', 'content': text}, "
    "and no text may be empty."
)
_ROLES: Final = {
    "system": pb.MESSAGE_ROLE_SYSTEM,
    "user": pb.MESSAGE_ROLE_USER,
    "assistant": pb.MESSAGE_ROLE_ASSISTANT,
}


def _message(role: Any, content: Any) -> pb.Message:
    if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str) or not content:
        raise InvalidRequestError(_WHAT_A_MESSAGE_IS)
    return pb.Message(role=_ROLES[role], content=[build(pb.ContentPart, text=content)])
