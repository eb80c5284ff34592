"""What Anthropic and Bedrock are sent, field by field, from their published formats; and what they are not asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import (
    ImagePart,
    Message,
    NativeContent,
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
from services.router.providers import anthropic_wire, bedrock_wire
from services.router.providers.openai_wire import encode_request as encode_openai
from services.router.providers.port import ProviderError
from services.router.providers.traits import UNKNOWN, ModelTraits, Reasoning, output_limit
from services.shared.errors import FlowStackError, Reason
from tests.support.dialects import DIALECTS
from tests.support.keys import candidate

USER = Message(Role.USER, (TextPart("hi"),))
CALLS = Message(Role.ASSISTANT, (TextPart("I look."), ToolCallPart("call_1", "look", '{"at":1}')))
RESULTS = Message(Role.TOOL, (ToolResultPart("call_1", "fine"), ToolResultPart("call_2", "", is_error=True)))
TOOLS = (Tool("look", "Looks.", '{"type":"object"}'), Tool("wait"))


def ask(*messages: Message, **fields: Any) -> Prompt:
    return Prompt(messages=messages or (USER,), **fields)


def anthropic(prompt: Prompt, traits: ModelTraits = UNKNOWN, reasoning: Reasoning = Reasoning.ADAPTIVE) -> Any:
    return msgspec.json.decode(anthropic_wire.encode_request("claude", prompt, traits, reasoning))


def bedrock(prompt: Prompt, traits: ModelTraits = UNKNOWN, reasoning: Reasoning = Reasoning.NONE) -> Any:
    return msgspec.json.decode(bedrock_wire.encode_request(prompt, traits, reasoning))


def test_anthropic_gets_what_is_said_and_nothing_else() -> None:
    assert anthropic(ask()) == {
        "model": "claude",
        "max_tokens": anthropic_wire.MAX_TOKENS_DEFAULT,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": True,
    }


def test_bedrock_gets_what_is_said_and_nothing_else() -> None:
    assert bedrock(ask()) == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


def test_anthropic_conversation() -> None:
    image = Message(Role.USER, (ImagePart(b"\x89PNG", "image/png"), TextPart("")))
    system = Message(Role.SYSTEM, (TextPart("one"), TextPart("two")))
    assert anthropic(ask(system, USER, image, CALLS, RESULTS, USER, tools=TOOLS)) | {"model": "", "stream": ""} == {
        "model": "",
        "max_tokens": anthropic_wire.MAX_TOKENS_DEFAULT,
        "system": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "fine"},
                    {"type": "tool_result", "tool_use_id": "call_2", "is_error": True},
                    {"type": "text", "text": "hi"},
                ],
            },
        ],
        "tools": [
            {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}},
            {"name": "wait", "input_schema": {"type": "object", "properties": {}}},
        ],
        "stream": "",
    }


def test_anthropic_options() -> None:
    body = anthropic(
        ask(
            max_output_tokens=50,
            temperature=0.5,
            top_p=0.25,
            stop_sequences=("END",),
            response_schema_json='{"type":"object"}',
            reasoning_effort=ReasoningEffort.MEDIUM,
        )
    )
    assert body["max_tokens"] == 50
    assert (body["temperature"], body["top_p"], body["stop_sequences"]) == (0.5, 0.25, ["END"])
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {
        "effort": "medium",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
    }


Mode = ToolChoiceMode


@pytest.mark.parametrize(
    ("choice", "of_anthropic", "of_bedrock"),
    [
        (ToolChoice(), None, None),
        (ToolChoice(Mode.NONE), {"type": "none"}, "no tools"),
        (ToolChoice(Mode.REQUIRED), {"type": "any"}, {"any": {}}),
        (ToolChoice(Mode.TOOL, "look"), {"type": "tool", "name": "look"}, {"tool": {"name": "look"}}),
        (ToolChoice(parallel=False), {"type": "auto", "disable_parallel_tool_use": True}, None),
        (ToolChoice(parallel=True), {"type": "auto", "disable_parallel_tool_use": False}, None),
        (ToolChoice(Mode.REQUIRED, parallel=False), {"type": "any", "disable_parallel_tool_use": True}, {"any": {}}),
    ],
)
def test_tool_choice(choice: ToolChoice, of_anthropic: Any, of_bedrock: Any) -> None:
    prompt = ask(tools=TOOLS, tool_choice=choice)
    assert anthropic(prompt).get("tool_choice") == of_anthropic
    config = bedrock(prompt).get("toolConfig")
    assert ("no tools" if config is None else config.get("toolChoice")) == of_bedrock


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        (ReasoningEffort.MINIMAL, 64_000, 1_024),
        (ReasoningEffort.LOW, 64_000, 4_096),
        (ReasoningEffort.HIGH, 64_000, 16_384),
        (ReasoningEffort.HIGH, 8_192, 7_168),
        (ReasoningEffort.HIGH, 1_025, 1_024),
    ],
)
def test_a_budget_stays_under_the_output_limit(effort: ReasoningEffort, limit: int, budget: int) -> None:
    prompt = ask(reasoning_effort=effort, max_output_tokens=limit)
    thinking = {"type": "enabled", "budget_tokens": budget}

    assert anthropic(prompt, reasoning=Reasoning.BUDGET)["thinking"] == thinking
    body = bedrock(prompt, reasoning=Reasoning.BUDGET)
    assert body["additionalModelRequestFields"] == {"thinking": thinking}
    assert body["inferenceConfig"] == {"maxTokens": limit}


def test_a_budget_that_has_no_room_is_no_call() -> None:
    prompt = ask(reasoning_effort=ReasoningEffort.LOW, max_output_tokens=1_024)
    for encode in (anthropic, bedrock):
        with pytest.raises(ProviderError) as caught:
            encode(prompt, reasoning=Reasoning.BUDGET)
        assert caught.value.failure is AttemptFailure.REQUEST_REJECTED


def test_how_bedrocks_models_are_told_to_reason() -> None:
    prompt = ask(reasoning_effort=ReasoningEffort.MINIMAL)
    adaptive = bedrock(prompt, reasoning=Reasoning.ADAPTIVE)
    assert adaptive["additionalModelRequestFields"] == {"thinking": {"type": "adaptive", "display": "summarized"}}
    assert adaptive["outputConfig"] == {"effort": "low"}
    effort = bedrock(prompt, reasoning=Reasoning.EFFORT)
    assert effort["additionalModelRequestFields"] == {"reasoning_effort": "minimal"}


@pytest.mark.parametrize(("asked", "model", "sent"), [(None, 4096, None), (100, 4096, 100), (9999, 4096, 4096)])
def test_a_plans_cap_over_the_models_own_limit(asked: int | None, model: int, sent: int | None) -> None:
    prompt, traits = ask(max_output_tokens=asked), ModelTraits(max_output_tokens=model)

    assert output_limit(prompt, traits) == sent
    assert anthropic(prompt, traits)["max_tokens"] == (sent or model), "Anthropic has to be told a number"
    assert bedrock(prompt, traits).get("inferenceConfig", {}).get("maxTokens") == sent
    body = encode_openai("m", prompt, output_limit=sent, max_tokens_field="max_tokens", include_usage=True)
    assert msgspec.json.decode(body).get("max_tokens") == sent


@pytest.mark.parametrize("encode", [anthropic, bedrock])
def test_only_the_provider_that_said_it_gets_its_own_words(encode: Callable[[Prompt], Any]) -> None:
    native = NativeContent(encode.__name__, b'[{"its":"own"}]')
    own = encode(ask(USER, replace(CALLS, native=native), RESULTS, tools=TOOLS))
    other = encode(ask(USER, replace(CALLS, native=replace(native, format="other")), RESULTS, tools=TOOLS))

    assert own["messages"][1]["content"] == [{"its": "own"}]
    assert other == encode(ask(USER, CALLS, RESULTS, tools=TOOLS))


def test_a_result_without_text_on_bedrock() -> None:
    body = bedrock(ask(USER, CALLS, RESULTS, tools=TOOLS))
    assert [block["toolResult"]["content"] for block in body["messages"][2]["content"]] == [[{"text": "fine"}], []]


BOTH = ("anthropic", "bedrock")
THREE = ("openai", *BOTH)
MODELS = {
    "m": ModelTraits(),
    "small": ModelTraits(max_output_tokens=100, images=False, reasoning=Reasoning.NONE, sampling=False),
    "budget": ModelTraits(reasoning=Reasoning.BUDGET),
    "adaptive": ModelTraits(reasoning=Reasoning.ADAPTIVE),
}
LATE_SYSTEM = (USER, Message(Role.SYSTEM, (TextPart("x"),)))
HIGH = {"reasoning_effort": ReasoningEffort.HIGH}
REFUSED = [
    (THREE, "small", ask(max_output_tokens=101), "max_output_tokens"),
    (THREE, "small", ask(temperature=0.5), "temperature"),
    (THREE, "small", ask(top_p=0.5), "top_p"),
    (THREE, "small", ask(**HIGH), "reasoning_effort"),
    (THREE, "small", ask(Message(Role.USER, (ImagePart(b"x", "image/png"),))), "messages[0].content[0].image"),
    (("bedrock",), "m", ask(**HIGH), "reasoning_effort"),
    (BOTH, "m", ask(*LATE_SYSTEM), "messages[1].role"),
    (BOTH, "m", ask(Message(Role.SYSTEM, (TextPart("x"),))), "messages"),
    (("bedrock",), "m", ask(CALLS, RESULTS, tools=TOOLS), "messages[0].role"),
    (BOTH, "m", ask(Message(Role.USER, (TextPart(""),))), "messages[0].content"),
    (BOTH, "m", ask(temperature=1.5), "temperature"),
    (BOTH, "m", ask(stop_sequences=("END", " \n")), "stop_sequences[1]"),
    (
        BOTH,
        "m",
        ask(USER, Message(Role.ASSISTANT, (ToolCallPart("no blanks", "look", "{}"),)), tools=TOOLS),
        "messages[1].content[0]",
    ),
    (BOTH, "budget", ask(USER, CALLS, RESULTS, tools=TOOLS, **HIGH), "reasoning_effort"),
    (BOTH, "adaptive", ask(USER, CALLS, RESULTS, tools=TOOLS, **HIGH), "reasoning_effort"),
    (BOTH, "budget", ask(tools=TOOLS, tool_choice=ToolChoice(Mode.REQUIRED), **HIGH), "tool_choice.mode"),
    (BOTH, "budget", ask(temperature=0.5, **HIGH), "temperature"),
    (BOTH, "budget", ask(top_p=0.5, **HIGH), "top_p"),
    (BOTH, "budget", ask(max_output_tokens=1024, **HIGH), "max_output_tokens"),
    (("bedrock",), "m", ask(tools=TOOLS, tool_choice=ToolChoice(parallel=False)), "tool_choice.parallel_tool_calls"),
    (("bedrock",), "m", ask(USER, CALLS, RESULTS), "tools"),
    (
        ("bedrock",),
        "m",
        ask(USER, CALLS, RESULTS, tools=TOOLS, tool_choice=ToolChoice(Mode.NONE)),
        "tool_choice.mode",
    ),
]


@pytest.mark.parametrize(
    ("name", "model", "prompt", "field"),
    [(name, *rest) for names, *rest in REFUSED for name in names],
)
async def test_what_a_provider_cannot_do_is_refused_by_name(name: str, model: str, prompt: Prompt, field: str) -> None:
    provider = DIALECTS[name].provider("http://127.0.0.1:1", models=MODELS)
    try:
        with pytest.raises(FlowStackError) as caught:
            provider.check(candidate(name, model), prompt)
    finally:
        await provider.aclose()

    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]


TAKEN = [
    (THREE, "m", ask(USER, CALLS, RESULTS, tools=TOOLS, temperature=1, top_p=0.5, max_output_tokens=10**6)),
    (THREE, "small", ask(max_output_tokens=100)),
    (("openai", "anthropic"), "m", ask(**HIGH)),
    (BOTH, "budget", ask(temperature=1, top_p=0.95, **HIGH)),
    (BOTH, "adaptive", ask(tools=TOOLS, tool_choice=ToolChoice(Mode.REQUIRED), **HIGH)),
    (("openai",), "m", ask(*LATE_SYSTEM, temperature=2, tool_choice=ToolChoice(parallel=False), tools=TOOLS)),
    (("openai", "anthropic"), "m", ask(USER, CALLS, RESULTS)),
]


@pytest.mark.parametrize(
    ("name", "model", "prompt"), [(name, model, prompt) for names, model, prompt in TAKEN for name in names]
)
async def test_what_a_provider_can_do_is_taken(name: str, model: str, prompt: Prompt) -> None:
    provider = DIALECTS[name].provider("http://127.0.0.1:1", models=MODELS)
    assert provider.check(candidate(name, model), prompt) is None  # type: ignore[func-returns-value]
    await provider.aclose()


async def test_a_region_that_is_not_offered() -> None:
    provider = DIALECTS["bedrock"].provider("http://127.0.0.1:1")
    own = candidate("bedrock", "m")
    assert own.credentials is not None
    with pytest.raises(FlowStackError) as caught:
        provider.check(replace(own, credentials=replace(own.credentials, region="eu-west-1")), ask())  # type: ignore[call-arg]
    provider.check(replace(own, credentials=replace(own.credentials, region="us-east-1")), ask())  # type: ignore[call-arg]
    await provider.aclose()

    assert [violation.field for violation in caught.value.violations] == ["byok"]
    assert "us-east-1" in str(caught.value)
