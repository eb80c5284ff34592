"""What is Anthropic's format alone: what its errors are about, and what comes beside the deltas."""

from __future__ import annotations

import json

import pytest

from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.providers import thinking
from services.router.providers.port import Provider
from tests.conformance.providers.calls import asked, body, prompt, say
from tests.support.dialects import AnthropicDialect
from tests.support.fault_server import Exchange, FaultServer

ANTHROPIC = AnthropicDialect()

pytestmark = pytest.mark.parametrize("dialect", [ANTHROPIC], ids=["anthropic"])

CREDIT = "Your credit balance is too low to access the Anthropic API."


@pytest.mark.parametrize(
    "told",
    [
        (400, "invalid_request_error", CREDIT, AttemptFailure.CREDENTIALS_REFUSED),
        (402, "billing_error", "Pay.", AttemptFailure.CREDENTIALS_REFUSED),
        (403, "permission_error", "No.", AttemptFailure.CREDENTIALS_REFUSED),
        (400, "invalid_request_error", "No.", AttemptFailure.REQUEST_REJECTED),
        (413, "request_too_large", "No.", AttemptFailure.REQUEST_REJECTED),
        (529, "overloaded_error", "No.", AttemptFailure.PROVIDER_ERROR),
        (504, "timeout_error", "No.", AttemptFailure.PROVIDER_ERROR),
    ],
    ids=lambda told: f"{told[0]} {told[1]}",
)
async def test_what_an_error_is_about(
    provider: Provider, server: FaultServer, told: tuple[int, str, str, AttemptFailure]
) -> None:
    status, type_, message, failure = told

    async def behave(exchange: Exchange) -> None:
        await exchange.head(status, content_type="application/json")
        await exchange.send(json.dumps({"type": "error", "error": {"type": type_, "message": message}}).encode())
        await exchange.end()

    server.script(behave)
    said = await say(provider, prompt("x"), asked(ANTHROPIC))

    assert said.error is not None
    assert (said.error.failure, said.error.message) == (failure, message)


async def test_a_block_may_begin_with_what_it_says(provider: Provider, server: FaultServer) -> None:
    pieces = [ANTHROPIC.start(0, "thinking", thinking="so"), ANTHROPIC.start(1, "text", text="a"), ANTHROPIC.text("b")]
    server.script(body(ANTHROPIC.begin(), *pieces, *ANTHROPIC.finish()))
    said = await say(provider, prompt("x"), asked(ANTHROPIC))

    assert (said.reasoning, said.text) == ("so", "ab")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("pause_turn", FinishReason.STOP),
        ("model_context_window_exceeded", FinishReason.MAX_OUTPUT_TOKENS),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("something_new", FinishReason.STOP),
    ],
)
async def test_why_an_answer_ends(provider: Provider, server: FaultServer, word: str, reason: FinishReason) -> None:
    server.script(body(ANTHROPIC.begin(), ANTHROPIC.text("a"), *ANTHROPIC.finish(word)))
    said = await say(provider, prompt("x"), asked(ANTHROPIC))

    assert (said.finish.reason, said.finish.provider_reason) == (reason, word)


@pytest.mark.parametrize("what", ["blocks", "signatures"])
async def test_what_is_kept_for_later_has_a_limit(
    provider: Provider, server: FaultServer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(thinking, "BLOCKS_MAX", 3)
    monkeypatch.setattr(thinking, "SIGNATURE_CHARACTERS_MAX", 10)
    pieces = {
        "blocks": [ANTHROPIC.start(index, "thinking") for index in range(4)],
        "signatures": [ANTHROPIC.delta(0, "signature_delta", signature="x" * 6) for _ in range(2)],
    }[what]
    server.script(body(ANTHROPIC.begin(), *pieces, *ANTHROPIC.finish()))
    said = await say(provider, prompt("x", "look"), asked(ANTHROPIC))

    assert said.error is not None
    assert said.error.failure is AttemptFailure.MALFORMED


async def test_reasoning_is_kept_only_where_tools_were_called(provider: Provider, server: FaultServer) -> None:
    thought = [ANTHROPIC.begin(), ANTHROPIC.reasoning("so"), ANTHROPIC.delta(0, "signature_delta", signature="s")]
    server.script(body(*thought, *ANTHROPIC.finish()))
    said = await say(provider, prompt("x", "look"), asked(ANTHROPIC))

    assert said.finish.native is None
