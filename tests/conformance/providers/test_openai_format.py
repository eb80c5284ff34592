"""What is OpenAI's format alone: its spellings, its spare ways of saying things, and its older servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.domain.request import Candidate, CredentialMode, OpenAiCredentials, Prompt
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.port import Provider
from services.shared.secret import Secret
from tests.conformance.providers.calls import Said, asked, body, prompt, say
from tests.support.dialects import DIALECTS
from tests.support.fault_server import FaultServer
from tests.support.keys import BYOK

CANDIDATE = asked(DIALECTS["openai"])

pytestmark = pytest.mark.parametrize("dialect", [DIALECTS["openai"]], ids=["openai"])


def chunk(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def delta(text: str, finish: str | None = None) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


def event(data: bytes, end: bytes = b"\n") -> bytes:
    return b"data: " + data + end * 2


STOP = event(delta("", "stop"))
DONE = b"data: [DONE]\n\n"


async def ask(provider: Provider, server: FaultServer, *pieces: bytes) -> Said:
    server.script(body(*pieces))
    return await say(provider, prompt("x"), CANDIDATE)


WELL = {
    "one write": (event(delta("a")) + event(delta("b")) + STOP + DONE,),
    "comments and pings": (b": ping\n\n", event(delta("a")), b":\n\nevent: ping\n\n", event(delta("b")), STOP, DONE),
    "other event types": (b"event: unknown\ndata: {}\n\n", event(delta("ab")), STOP, DONE),
    "unknown fields": (event(chunk(choices=[{"index": 0, "delta": {"content": "ab", "x": [1]}}], y={})), STOP, DONE),
    "nulls": (
        event(chunk(choices=[{"index": 0, "delta": {"content": None, "tool_calls": None}}], usage=None, error=None)),
        event(delta("ab")),
        STOP,
        DONE,
    ),
    "another choice": (
        event(chunk(choices=[{"index": 1, "delta": {"content": "no"}}])),
        event(delta("ab")),
        STOP,
        DONE,
    ),
    "a refusal": (event(chunk(choices=[{"index": 0, "delta": {"refusal": "ab"}}])), STOP, DONE),
}


@pytest.mark.parametrize("pieces", WELL.values(), ids=WELL.keys())
async def test_what_is_well_formed_is_read(provider: Provider, server: FaultServer, pieces: tuple[bytes, ...]) -> None:
    said = await ask(provider, server, *pieces)

    assert said.error is None
    assert said.text == "ab"
    assert said.finish.reason is FinishReason.STOP
    assert said.finish.usage == Usage(), "what was not said is unknown"


BROKEN = {
    "only the end event": ((event(delta("a")), DONE), AttemptFailure.TRUNCATED),
    "an error object": ((event(delta("a")), event(chunk(error={"message": "m"}))), AttemptFailure.PROVIDER_ERROR),
    "an error text": ((event(delta("a")), event(chunk(error="m"))), AttemptFailure.PROVIDER_ERROR),
    "a limit": ((event(delta("a")), event(chunk(error={"type": "rate_limit_error"}))), AttemptFailure.RATE_LIMITED),
    "a code as number": ((event(delta("a")), event(chunk(error={"code": 429}))), AttemptFailure.RATE_LIMITED),
}


@pytest.mark.parametrize(("pieces", "failure"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("joined", [True, False], ids=["one write", "many writes"])
async def test_what_is_broken_is_an_error_after_what_came_before(
    provider: Provider, server: FaultServer, pieces: tuple[bytes, ...], failure: AttemptFailure, joined: bool
) -> None:
    said = await ask(provider, server, *((b"".join(pieces),) if joined and pieces else pieces))

    assert said.error is not None
    assert said.error.failure is failure
    assert said.text == ("a" if pieces and pieces[0].startswith(b"data: {") else "")
    assert said.error.request_id == "req_fault"


async def test_organisation_and_project_travel_with_the_key(provider: Provider, server: FaultServer) -> None:
    server.script(body(STOP, DONE))
    credentials = OpenAiCredentials(Secret(BYOK["openai"][0]), "org-1", "proj-1")
    await say(provider, prompt("x"), Candidate("openai", "m", CredentialMode.BYOK, credentials))
    await say(provider, prompt("x"), CANDIDATE)

    first, second = (request.headers for request in server.requests)
    assert (first["openai-organization"], first["openai-project"]) == ("org-1", "proj-1")
    assert "openai-organization" not in second
    assert "openai-project" not in second


async def test_reasoning_in_both_spellings(provider: Provider, server: FaultServer) -> None:
    said = await ask(
        provider,
        server,
        event(chunk(choices=[{"index": 0, "delta": {"reasoning_content": "so "}}])),
        event(chunk(choices=[{"index": 0, "delta": {"reasoning": "that"}}])),
        event(delta("a")),
        STOP,
        DONE,
    )
    assert (said.reasoning, said.text) == ("so that", "a")


async def test_usage_with_its_details(provider: Provider, server: FaultServer) -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    said = await ask(provider, server, event(delta("a")), STOP, event(chunk(choices=[], usage=usage)), DONE)

    assert said.finish.usage == Usage(10, 5, 4, None, 3)


def call_piece(**fields: Any) -> bytes:
    return event(chunk(choices=[{"index": 0, "delta": {"tool_calls": [fields]}}]))


def function(name: str | None = None, arguments: str | None = None) -> dict[str, str | None]:
    return {"name": name, "arguments": arguments}


async def test_tool_calls_of_servers_that_give_no_index_or_id(provider: Provider, server: FaultServer) -> None:
    said = await ask(
        provider,
        server,
        call_piece(id="a", function=function("f", '{"x":')),
        call_piece(function=function(arguments="1}")),
        call_piece(id="b", function=function("g")),
        STOP,
        DONE,
    )
    assert [(call.id, call.name, call.arguments_json) for call in said.calls] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]
    assert said.finish.reason is FinishReason.TOOL_CALLS, "whatever word the server has for it"
    assert said.finish.provider_reason == "stop"

    said = await ask(provider, server, call_piece(index=0, function=function("f", "{}")), STOP, DONE)
    assert said.calls[0].id.startswith("call_")


async def test_older_servers_get_what_they_understand(server: FaultServer) -> None:
    provider = OpenAiProvider(OpenAiSettings(base_url=server.url, max_tokens_field="max_tokens", include_usage=False))
    server.script(body(STOP, DONE))
    await say(provider, Prompt(messages=prompt("x").messages, max_output_tokens=9), CANDIDATE)
    await provider.aclose()

    sent = server.requests[0].json
    assert sent["max_tokens"] == 9
    assert "max_completion_tokens" not in sent
    assert "stream_options" not in sent


async def test_a_server_without_keys_gets_none(server: FaultServer) -> None:
    provider = OpenAiProvider(OpenAiSettings(base_url=server.url))
    server.script(body(STOP, DONE))
    said = await say(provider, prompt("x"), Candidate("openai", "m", CredentialMode.MANAGED))
    await provider.aclose()

    assert said.error is None
    assert "authorization" not in server.requests[0].headers
