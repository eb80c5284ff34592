"""What a chat sends, and what its events add up to. Pure: sync and async agents share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from flowstack._client import RETRIES_MAX, may_retry
from flowstack._errors import DuplicateRequestError, FlowStackError, InternalError, InvalidRequestError
from flowstack._json import NotJsonError, encode
from flowstack._routes import Route
from flowstack._tools import ToolDefinition, ToolOutcome
from flowstack._values import (
    AttemptFailed,
    Event,
    ReasoningDelta,
    Reply,
    SessionFinished,
    SessionStarted,
    TextDelta,
    ToolCalled,
    reply_from,
    word,
)

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
    if isinstance(message, str):
        messages.append(_message("user", message))
    else:
        messages.extend(_message(one.get("role", ""), one.get("content", "")) for one in message)
    plain: dict[str, Any] = {name: value for name, value in options.items() if name in _PLAIN and value is not None}
    try:
        request = pb.CompleteRequest(
            request_id=options.get("request_id", ""),
            provider=route.provider,
            model=route.model,
            messages=messages,
            tools=[pb.Tool(name=t.name, description=t.description, input_schema_json=t.schema_json) for t in tools],
            byok=[] if route.byok is None else [route.byok],
            fallbacks=[pb.Fallback(provider=provider, model=model) for provider, model in options.get("fallbacks", ())],
            **plain,
        )
        if options.get("response_schema"):
            request.response_schema_json = encode(options["response_schema"])
        if options.get("reasoning_effort"):
            request.reasoning_effort = pb.ReasoningEffort.Value(
                f"REASONING_EFFORT_{options['reasoning_effort'].upper()}"
            )
    except (NotJsonError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"An option of the chat is wrong: {error}.") from None
    choice = options.get("tool_choice")
    if choice and request.tools:
        request.tool_choice.mode = _CHOICES.get(choice, pb.TOOL_CHOICE_MODE_TOOL)
        request.tool_choice.tool_name = "" if choice in _CHOICES else choice
    return request


def _message(role: str, content: Any) -> pb.Message:
    roles = {
        "system": pb.MESSAGE_ROLE_SYSTEM,
        "user": pb.MESSAGE_ROLE_USER,
        "assistant": pb.MESSAGE_ROLE_ASSISTANT,
    }
    if role not in roles or not isinstance(content, str) or not content:
        raise InvalidRequestError(
            "A message has to be text, or a list of {'role': 'system', 'user' or 'assistant', 'content': text}, "
            "and no text may be empty."
        )
    return pb.Message(role=roles[role], content=[pb.ContentPart(text=content)])


class Conversation:
    """Adds up the events of one attempt at a session.

    Attributes:
        session_id: empty until the session is reserved.
        begun: output has come: from here on a repeat would not be the same to a reader, or to tools.
        reply: the answer, once the session has ended.
    """

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.session_id = ""
        self.begun = False
        self.reply: Reply | None = None
        self._text: list[str] = []
        self._calls: list[ToolCalled] = []

    def feed(self, event: pb.CompletionEvent) -> tuple[Event | None, list[ToolCalled]]:
        """Takes one event: what a reader is shown, and the tools whose results are owed now."""
        kind = event.WhichOneof("event")
        if kind == "text_delta":
            self.begun = True
            self._text.append(event.text_delta)
            return TextDelta(event.text_delta), []
        if kind == "reasoning_delta":
            self.begun = True
            return ReasoningDelta(event.reasoning_delta), []
        if kind == "tool_call":
            self.begun = True
            call = ToolCalled(event.tool_call.id, event.tool_call.name, event.tool_call.arguments_json)
            self._calls.append(call)
            return call, []
        if kind == "tool_results_wanted":
            wanted = set(event.tool_results_wanted.tool_call_ids)
            owed = [call for call in self._calls if call.id in wanted]
            # The answer is what the model says last, after its tools.
            self._calls, self._text = [], []
            return None, owed
        if kind == "session_started":
            self.session_id = event.session_started.session_id
            return SessionStarted(self.session_id, event.session_started.quota.sessions_remaining), []
        if kind == "attempt_failed":
            failed = event.attempt_failed
            reason = word(type_pb2.AttemptFailure, failed.reason, "ATTEMPT_FAILURE_")
            return AttemptFailed(failed.provider, failed.model, reason), []
        if kind == "session_finished":
            self.reply = reply_from("".join(self._text), self.session_id, self.request_id, event.session_finished)
            return SessionFinished(self.reply), []
        return None, []  # a newer router's event

    def ended(self) -> Reply:
        """The answer, after the stream ended OK.

        Raises:
            InternalError: it ended without its last message.
        """
        if self.reply is None:
            raise InternalError(
                "The stream ended without saying how the session ended. Usage says whether it was counted.",
                details={"session_id": self.session_id},
            )
        return self.reply

    def may_retry(self, error: FlowStackError, retries: int) -> bool:
        """True where a repeat with the same request_id is safe, and the caller has seen nothing of this attempt.

        On a repeat the first attempt's session may still be on its way to being released; then it is in the way.
        """
        if isinstance(error, DuplicateRequestError):
            in_the_way = error.details.get("session_state", "").endswith("RESERVED")
            return in_the_way and 0 < retries < RETRIES_MAX
        return may_retry(error, safe=not self.begun and not error.counted, retries=retries)


def tool_results(outcomes: Iterable[tuple[ToolCalled, ToolOutcome]]) -> pb.ChatRequest:
    """The message that answers a round of tool calls."""
    return pb.ChatRequest(
        tool_results=pb.ToolResults(
            results=[
                pb.ToolResultPart(tool_call_id=call.id, content=outcome.content, is_error=outcome.is_error)
                for call, outcome in outcomes
            ]
        )
    )
