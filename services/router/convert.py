"""Between the public API's messages and the router's own types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.convert_common import (
    ATTEMPT_FAILURES,
    FINISH_REASONS,
    SESSION_STATES,
    outcome_to_proto,
    quota_to_proto,
)
from services.router.domain.events import (
    AttemptFailed,
    ReasoningDelta,
    SessionEvent,
    SessionFinished,
    SessionStarted,
    TextDelta,
    ToolCall,
    ToolResultsWanted,
)
from services.router.domain.outcome import Usage
from services.router.domain.request import (
    AnthropicCredentials,
    BedrockCredentials,
    Choice,
    CompletionRequest,
    Credentials,
    ImagePart,
    Message,
    OpenAiCredentials,
    Part,
    Prompt,
    ReasoningEffort,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from services.shared.secret import Secret

_ROLES: Final = {
    pb.MESSAGE_ROLE_SYSTEM: Role.SYSTEM,
    pb.MESSAGE_ROLE_USER: Role.USER,
    pb.MESSAGE_ROLE_ASSISTANT: Role.ASSISTANT,
    pb.MESSAGE_ROLE_TOOL: Role.TOOL,
}
_TOOL_CHOICES: Final = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: ToolChoiceMode.AUTO,
    pb.TOOL_CHOICE_MODE_AUTO: ToolChoiceMode.AUTO,
    pb.TOOL_CHOICE_MODE_NONE: ToolChoiceMode.NONE,
    pb.TOOL_CHOICE_MODE_REQUIRED: ToolChoiceMode.REQUIRED,
    pb.TOOL_CHOICE_MODE_TOOL: ToolChoiceMode.TOOL,
}
_EFFORTS: Final = {
    pb.REASONING_EFFORT_UNSPECIFIED: None,
    pb.REASONING_EFFORT_MINIMAL: ReasoningEffort.MINIMAL,
    pb.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    pb.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    pb.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
}


def request_from_proto(message: pb.CompleteRequest) -> CompletionRequest:
    """A request that has passed its message's own rules."""
    first = Choice(message.provider, message.model)
    return CompletionRequest(
        prompt=_prompt(message),
        choices=(first, *(Choice(fallback.provider, fallback.model) for fallback in message.fallbacks)),
        credentials=tuple(_credentials(byok) for byok in message.byok),
        request_id=message.request_id,
    )


def results_from_proto(message: pb.ToolResults) -> tuple[ToolResultPart, ...]:
    """The client's tool results."""
    return tuple(_tool_result(result) for result in message.results)


def event_to_proto(event: SessionEvent) -> pb.CompletionEvent:
    """One event of a session."""
    return _EVENTS[type(event)](event)


def _prompt(message: pb.CompleteRequest) -> Prompt:
    return Prompt(
        messages=tuple(
            Message(_ROLES[said.role], tuple(_part(part) for part in said.content)) for said in message.messages
        ),
        tools=tuple(Tool(tool.name, tool.description, tool.input_schema_json) for tool in message.tools),
        tool_choice=_tool_choice(message.tool_choice),
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        stop_sequences=tuple(message.stop_sequences),
        response_schema_json=message.response_schema_json if message.HasField("response_schema_json") else None,
        reasoning_effort=_EFFORTS[message.reasoning_effort],
        labels=dict(message.labels),
    )


def _part(part: pb.ContentPart) -> Part:
    match part.WhichOneof("part"):
        case "image":
            return ImagePart(part.image.data, part.image.media_type)
        case "tool_call":
            return ToolCallPart(part.tool_call.id, part.tool_call.name, part.tool_call.arguments_json)
        case "tool_result":
            return _tool_result(part.tool_result)
        case _:
            return TextPart(part.text)


def _tool_result(result: pb.ToolResultPart) -> ToolResultPart:
    return ToolResultPart(result.tool_call_id, result.content, result.is_error)


def _tool_choice(choice: pb.ToolChoice) -> ToolChoice:
    parallel = choice.parallel_tool_calls if choice.HasField("parallel_tool_calls") else None
    return ToolChoice(_TOOL_CHOICES[choice.mode], choice.tool_name, parallel)


def _credentials(byok: pb.ByokCredentials) -> Credentials:
    match byok.WhichOneof("credentials"):
        case "anthropic":
            return AnthropicCredentials(Secret(byok.anthropic.api_key))
        case "bedrock":
            aws = byok.bedrock
            return BedrockCredentials(
                Secret(aws.access_key_id), Secret(aws.secret_access_key), Secret(aws.session_token), aws.region
            )
        case _:
            key = byok.openai
            return OpenAiCredentials(Secret(key.api_key), key.organization, key.project)


def _text(event: TextDelta) -> pb.CompletionEvent:
    return pb.CompletionEvent(text_delta=event.text)


def _reasoning(event: ReasoningDelta) -> pb.CompletionEvent:
    return pb.CompletionEvent(reasoning_delta=event.text)


def _tool_call(event: ToolCall) -> pb.CompletionEvent:
    call = pb.ToolCall(id=event.id, name=event.name, arguments_json=event.arguments_json)
    return pb.CompletionEvent(tool_call=call)


def _started(event: SessionStarted) -> pb.CompletionEvent:
    started = pb.SessionStarted(session_id=event.session_id, quota=quota_to_proto(event.quota))
    return pb.CompletionEvent(session_started=started)


def _results_wanted(event: ToolResultsWanted) -> pb.CompletionEvent:
    return pb.CompletionEvent(tool_results_wanted=pb.ToolResultsWanted(tool_call_ids=event.tool_call_ids))


def _attempt_failed(event: AttemptFailed) -> pb.CompletionEvent:
    failed = pb.AttemptFailed(provider=event.provider, model=event.model, reason=ATTEMPT_FAILURES[event.failure])
    return pb.CompletionEvent(attempt_failed=failed)


def _finished(event: SessionFinished) -> pb.CompletionEvent:
    outcome = event.outcome
    finished = pb.SessionFinished(
        finish_reason=FINISH_REASONS[outcome.finish_reason],
        session_state=SESSION_STATES[event.state],
        usage=_usage(outcome.usage),
        outcome=outcome_to_proto(outcome),
        quota=None if event.quota is None else quota_to_proto(event.quota),
    )
    return pb.CompletionEvent(session_finished=finished)


def _usage(usage: Usage) -> pb.TokenUsage:
    return pb.TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


_EVENTS: Final[dict[type, Callable[[Any], pb.CompletionEvent]]] = {
    TextDelta: _text,
    ReasoningDelta: _reasoning,
    ToolCall: _tool_call,
    SessionStarted: _started,
    ToolResultsWanted: _results_wanted,
    AttemptFailed: _attempt_failed,
    SessionFinished: _finished,
}
"""By type, because this runs for every delta."""
