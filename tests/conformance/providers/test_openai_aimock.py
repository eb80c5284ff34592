"""The openai provider against a third-party simulator that speaks the real wire format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.domain.request import Message, Role, ToolCallPart, ToolResultPart
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from tests.conformance.providers.calls import prompt, say


@pytest.fixture
async def provider(aimock_url: str) -> AsyncIterator[OpenAiProvider]:
    provider = OpenAiProvider(OpenAiSettings(base_url=aimock_url))
    yield provider
    await provider.aclose()


async def test_text_is_streamed(provider: OpenAiProvider) -> None:
    said = await say(provider, prompt("stream"))

    assert said.text == "Hello from the simulator, in several pieces: ü€😀."
    assert len(said.events) > 5, "in pieces"
    assert said.finish.reason is FinishReason.STOP
    assert (said.finish.usage.input_tokens, said.finish.usage.output_tokens) == (11, 9)
    assert said.request_id.startswith("req-")


async def test_parallel_tool_calls_and_their_results(provider: OpenAiProvider) -> None:
    asked = prompt("parallel tools", "weather", "time")
    said = await say(provider, asked)

    assert [(call.id, call.name, call.arguments_json) for call in said.calls] == [
        ("call_1", "weather", '{"city":"Ulm"}'),
        ("call_2", "time", '{"zone":"CET"}'),
    ]
    assert said.finish.reason is FinishReason.TOOL_CALLS

    calls = tuple(ToolCallPart(call.id, call.name, call.arguments_json) for call in said.calls)
    results = tuple(ToolResultPart(call.id, "fine") for call in said.calls)
    answered = replace(asked, messages=(*asked.messages, Message(Role.ASSISTANT, calls), Message(Role.TOOL, results)))
    assert (await say(provider, answered)).text == "Sunny at noon."


async def test_429_with_retry_after(provider: OpenAiProvider) -> None:
    error = (await say(provider, prompt("limited"))).error

    assert error is not None
    assert error.failure is AttemptFailure.RATE_LIMITED
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 7
    assert error.message == "Rate limit reached."


async def test_529(provider: OpenAiProvider) -> None:
    error = (await say(provider, prompt("overloaded"))).error

    assert error is not None
    assert error.failure is AttemptFailure.PROVIDER_ERROR


async def test_401(provider: OpenAiProvider) -> None:
    error = (await say(provider, prompt("key refused"))).error

    assert error is not None
    assert error.failure is AttemptFailure.CREDENTIALS_REFUSED


async def test_a_cut_stream_is_an_error(provider: OpenAiProvider) -> None:
    said = await say(provider, prompt("cut"))

    assert "This answer".startswith(said.text[:11])
    assert said.error is not None
    assert said.error.failure is AttemptFailure.TRUNCATED
