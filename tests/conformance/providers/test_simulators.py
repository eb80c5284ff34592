"""Every provider against third-party simulators that speak the real wire formats: aimock, and MiniStack for Bedrock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.domain.request import Message, Role, ToolCallPart, ToolResultPart
from services.router.providers.port import Provider
from tests.conformance.providers.calls import asked, prompt, say
from tests.support.dialects import DIALECTS, Dialect
from tests.support.keys import candidate

FAITHFUL = [DIALECTS[name] for name in ("openai", "anthropic")]
"""Those whose simulator reports failures. MiniStack answers with a text of its own where its upstream fails."""

fails = pytest.mark.parametrize("dialect", FAITHFUL, ids=lambda dialect: dialect.name)


@pytest.fixture
async def provider(dialect: Dialect, request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    simulator = "ministack_url" if dialect.name == "bedrock" else "aimock_url"
    provider = dialect.provider(request.getfixturevalue(simulator))
    yield provider
    await provider.aclose()


async def test_text_is_streamed(provider: Provider, dialect: Dialect) -> None:
    said = await say(provider, prompt("stream"), asked(dialect))

    assert said.error is None
    assert said.text == "Hello from the simulator, in several pieces: ü€😀."
    assert said.finish.reason is FinishReason.STOP
    usage = said.finish.usage
    assert usage.output_tokens is not None
    assert usage.input_tokens is not None
    if dialect in FAITHFUL:
        assert len(said.events) > 5, "in pieces"
        assert (usage.input_tokens, usage.output_tokens) == (11, 9)
        assert dialect.name == "anthropic" or said.request_id.startswith("req"), "aimock's Anthropic gives no id"


async def test_parallel_tool_calls_and_their_results(provider: Provider, dialect: Dialect) -> None:
    question = prompt("parallel tools", "weather", "time")
    said = await say(provider, question, asked(dialect))

    assert said.error is None
    assert [(call.name, call.arguments_json.replace(" ", "")) for call in said.calls] == [
        ("weather", '{"city":"Ulm"}'),
        ("time", '{"zone":"CET"}'),
    ]
    assert len({call.id for call in said.calls}) == 2
    assert said.finish.reason is FinishReason.TOOL_CALLS

    calls = tuple(ToolCallPart(call.id, call.name, call.arguments_json) for call in said.calls)
    results = tuple(ToolResultPart(call.id, "fine") for call in said.calls)
    messages = (*question.messages, Message(Role.ASSISTANT, calls), Message(Role.TOOL, results))
    assert (await say(provider, replace(question, messages=messages), asked(dialect))).text == "Sunny at noon."


@fails
async def test_reasoning_comes_first(provider: Provider, dialect: Dialect) -> None:
    # aimock's OpenAI reasons only where the model is one that does.
    model = {"openai": "o3"}.get(dialect.name, dialect.model)
    said = await say(provider, prompt("think"), candidate(dialect.name, model))

    assert said.error is None
    assert (said.reasoning, said.text) == ("The sum of two and two.", "Four.")


@fails
async def test_429_with_retry_after(provider: Provider, dialect: Dialect) -> None:
    error = (await say(provider, prompt("limited"), asked(dialect))).error

    assert error is not None
    assert error.failure is AttemptFailure.RATE_LIMITED
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 7
    assert error.message == "Rate limit reached."


@fails
@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("overloaded", AttemptFailure.PROVIDER_ERROR),
        ("key refused", AttemptFailure.CREDENTIALS_REFUSED),
        ("not understood", AttemptFailure.REQUEST_REJECTED),
    ],
)
async def test_a_refusal(provider: Provider, dialect: Dialect, text: str, failure: AttemptFailure) -> None:
    error = (await say(provider, prompt(text), asked(dialect))).error

    assert error is not None
    assert error.failure is failure
    assert error.message


@fails
async def test_a_cut_stream_is_an_error(provider: Provider, dialect: Dialect) -> None:
    said = await say(provider, prompt("cut"), asked(dialect))

    assert "This answer".startswith(said.text[:11])
    assert said.error is not None
    assert said.error.failure is AttemptFailure.TRUNCATED
