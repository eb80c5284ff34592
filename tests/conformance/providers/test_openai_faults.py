"""The openai provider against every way in which a server can break its format."""

from __future__ import annotations

import asyncio
import email.utils
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.router.domain.events import TextDelta
from services.router.domain.outcome import AttemptFailure, FinishReason, Usage
from services.router.domain.request import Candidate, CredentialMode, OpenAiCredentials, Prompt
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.port import Timeouts
from services.shared.secret import Secret
from tests.conformance.providers.calls import CANDIDATE, KEY, Said, prompt, say
from tests.support.fault_server import Behaviour, Exchange, FaultServer


@pytest.fixture
async def provider(server: FaultServer) -> AsyncIterator[OpenAiProvider]:
    provider = OpenAiProvider(OpenAiSettings(base_url=server.url))
    yield provider
    await provider.aclose()


def body(*pieces: bytes) -> Behaviour:
    """Sends `pieces`, each in a write of its own, and ends the body properly."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        for piece in pieces:
            await exchange.send(piece)
        await exchange.end()

    return behave


def chunk(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def delta(text: str, finish: str | None = None) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


def event(data: bytes, end: bytes = b"\n") -> bytes:
    return b"data: " + data + end * 2


STOP = event(delta("", "stop"))
DONE = b"data: [DONE]\n\n"


async def ask(provider: OpenAiProvider, server: FaultServer, *pieces: bytes) -> Said:
    server.script(body(*pieces))
    return await say(provider, prompt("x"))


WELL = {
    "one write": (event(delta("a")) + event(delta("b")) + STOP + DONE,),
    "CRLF": (event(delta("a"), b"\r\n") + event(delta("b"), b"\r\n"), event(delta("", "stop"), b"\r\n"), DONE),
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
    "no end event after the finish reason": (event(delta("ab")), STOP),
    "a refusal": (event(chunk(choices=[{"index": 0, "delta": {"refusal": "ab"}}])), STOP, DONE),
    "byte by byte": tuple(bytes([byte]) for byte in event(delta("ab")) + STOP + DONE),
}


@pytest.mark.parametrize("pieces", WELL.values(), ids=WELL.keys())
async def test_what_is_well_formed_is_read(
    provider: OpenAiProvider, server: FaultServer, pieces: tuple[bytes, ...]
) -> None:
    said = await ask(provider, server, *pieces)

    assert said.error is None
    assert said.text == "ab"
    assert said.finish.reason is FinishReason.STOP
    assert said.finish.usage == Usage(), "what was not said is unknown"


async def test_characters_that_are_split_over_writes(provider: OpenAiProvider, server: FaultServer) -> None:
    raw = event(delta("ü€😀")) + STOP + DONE
    for cut in range(1, len(raw)):
        if raw[cut] & 0b1100_0000 == 0b1000_0000:
            said = await ask(provider, server, raw[:cut], raw[cut:])
            assert said.text == "ü€😀"


async def test_a_delta_of_a_megabyte(provider: OpenAiProvider, server: FaultServer) -> None:
    said = await ask(provider, server, event(delta("x" * 1_000_000)), STOP, DONE)

    assert len(said.text) == 1_000_000


BROKEN = {
    "no end mark": ((event(delta("a")),), AttemptFailure.TRUNCATED),
    "only the end event": ((event(delta("a")), DONE), AttemptFailure.TRUNCATED),
    "nothing": ((), AttemptFailure.TRUNCATED),
    "cut within an event": ((event(delta("a")), b"data: {"), AttemptFailure.TRUNCATED),
    "bad JSON": ((event(delta("a")), event(b"{nope")), AttemptFailure.MALFORMED),
    "bad UTF-8": (
        (event(delta("a")), event(b'{"choices":[{"delta":{"content":"\xff\xfe"}}]}')),
        AttemptFailure.MALFORMED,
    ),
    "another type": ((event(delta("a")), event(b'{"choices":{}}')), AttemptFailure.MALFORMED),
    "JSON too deep": ((event(delta("a")), event(b'{"error":' + b"[" * 100_000)), AttemptFailure.MALFORMED),
    "an error object": ((event(delta("a")), event(chunk(error={"message": "m"}))), AttemptFailure.PROVIDER_ERROR),
    "an error text": ((event(delta("a")), event(chunk(error="m"))), AttemptFailure.PROVIDER_ERROR),
    "a limit": ((event(delta("a")), event(chunk(error={"type": "rate_limit_error"}))), AttemptFailure.RATE_LIMITED),
    "a code as number": ((event(delta("a")), event(chunk(error={"code": 429}))), AttemptFailure.RATE_LIMITED),
    "an HTML page": ((b"<html>\n\n",), AttemptFailure.TRUNCATED),
}


@pytest.mark.parametrize(("pieces", "failure"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("joined", [True, False], ids=["one write", "many writes"])
async def test_what_is_broken_is_an_error_after_what_came_before(
    provider: OpenAiProvider, server: FaultServer, pieces: tuple[bytes, ...], failure: AttemptFailure, joined: bool
) -> None:
    said = await ask(provider, server, *((b"".join(pieces),) if joined and pieces else pieces))

    assert said.error is not None
    assert said.error.failure is failure
    assert said.text == ("a" if pieces and pieces[0].startswith(b"data: {") else "")
    assert said.error.request_id == "req_fault"


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_connection_that_breaks(provider: OpenAiProvider, server: FaultServer, how: str) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(delta("a")))
        getattr(exchange, how)()

    server.script(behave)
    said = await say(provider, prompt("x"))

    assert said.error is not None
    assert said.error.failure is AttemptFailure.TRUNCATED


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_connection_that_breaks_before_the_answer(
    provider: OpenAiProvider, server: FaultServer, how: str
) -> None:
    async def behave(exchange: Exchange) -> None:
        getattr(exchange, how)()

    server.script(behave)
    said = await say(provider, prompt("x"))

    assert said.error is not None
    assert said.error.failure is AttemptFailure.UNREACHABLE


async def test_no_server_at_all() -> None:
    provider = OpenAiProvider(OpenAiSettings(base_url="http://127.0.0.1:1/v1"))
    said = await say(provider, prompt("x"))
    await provider.aclose()

    assert said.error is not None
    assert said.error.failure is AttemptFailure.UNREACHABLE


STATUSES = {
    400: AttemptFailure.REQUEST_REJECTED,
    401: AttemptFailure.CREDENTIALS_REFUSED,
    403: AttemptFailure.CREDENTIALS_REFUSED,
    404: AttemptFailure.REQUEST_REJECTED,
    408: AttemptFailure.PROVIDER_ERROR,
    413: AttemptFailure.REQUEST_REJECTED,
    422: AttemptFailure.REQUEST_REJECTED,
    429: AttemptFailure.RATE_LIMITED,
    500: AttemptFailure.PROVIDER_ERROR,
    503: AttemptFailure.PROVIDER_ERROR,
    529: AttemptFailure.PROVIDER_ERROR,
    302: AttemptFailure.PROVIDER_ERROR,
    307: AttemptFailure.PROVIDER_ERROR,
}


@pytest.mark.parametrize(("status", "failure"), STATUSES.items())
async def test_a_status(provider: OpenAiProvider, server: FaultServer, status: int, failure: AttemptFailure) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.error(status, {"message": f"No, with {KEY}."}, location=f"{server.url}/elsewhere")

    server.script(behave)
    said = await say(provider, prompt("x"))

    assert said.error is not None
    assert said.error.failure is failure
    assert said.error.message == "No, with <secret>."
    assert len(server.requests) == 1, "neither retried nor redirected"


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry_after": "7"}, 7, 7),
        ({"retry_after": "1.5"}, 1.5, 1.5),
        ({"retry_after_ms": "250"}, 0.25, 0.25),
        ({"retry_after": "-3"}, 0, 0),
        ({"retry_after": "999999999"}, 3600, 3600),
        ({"retry_after": email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=1000))}, 1, 1000),
    ],
)
async def test_retry_after(
    provider: OpenAiProvider, server: FaultServer, headers: dict[str, str], low: float, high: float
) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.error(429, {}, **headers)

    server.script(behave)
    said = await say(provider, prompt("x"))

    assert said.error is not None
    assert said.error.retry_after is not None
    assert low <= said.error.retry_after.total_seconds() <= high


@pytest.mark.parametrize("value", ["soon", "nan", ""])
async def test_a_retry_after_that_says_nothing(provider: OpenAiProvider, server: FaultServer, value: str) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.error(429, {}, retry_after=value)

    server.script(behave)
    said = await say(provider, prompt("x"))

    assert said.error is not None
    assert said.error.retry_after is None


async def test_silence_is_given_up_and_the_connection_closed(server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(delta("a")))
        await exchange.hold()

    provider = OpenAiProvider(OpenAiSettings(base_url=server.url, timeouts=Timeouts(stall_s=0.1)))
    server.script(behave)
    said = await say(provider, prompt("x"))
    await asyncio.wait_for((await server.arrived()).client_closed.wait(), 20)
    await provider.aclose()

    assert said.text == "a"
    assert said.error is not None
    assert said.error.failure is AttemptFailure.STALLED


async def test_comments_are_no_events(server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        while not exchange.client_closed.is_set():
            await exchange.send(b": still here\n\n")
            await asyncio.sleep(0.005)

    provider = OpenAiProvider(OpenAiSettings(base_url=server.url, timeouts=Timeouts(stall_s=0.1)))
    server.script(behave)
    said = await say(provider, prompt("x"))
    await provider.aclose()

    assert said.error is not None
    assert said.error.failure is AttemptFailure.STALLED


async def test_a_cancelled_call_closes_its_connection(provider: OpenAiProvider, server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(delta("a")))
        await exchange.hold()

    server.script(behave)
    first = asyncio.Event()

    async def call() -> None:
        async with provider.open(CANDIDATE, prompt("x")) as stream:
            assert await stream.read() == [TextDelta("a")]
            first.set()
            await stream.read()

    task = asyncio.create_task(call())
    await first.wait()
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)


async def test_a_call_that_is_left_early_closes_its_connection(provider: OpenAiProvider, server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(delta("a")))
        await exchange.hold()

    server.script(behave)
    async with provider.open(CANDIDATE, prompt("x")) as stream:
        await stream.read()
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)


async def test_nothing_of_the_environment_goes_out(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, f"planted-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Planted: planted-header")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    provider = OpenAiProvider(OpenAiSettings(base_url=server.url))
    said = await ask(provider, server, event(delta("a")), STOP, DONE)
    await provider.aclose()

    assert said.error is None
    assert "planted" not in str(server.requests[0].headers)


async def test_organisation_and_project_travel_with_the_key(provider: OpenAiProvider, server: FaultServer) -> None:
    server.script(body(STOP, DONE))
    credentials = OpenAiCredentials(Secret(KEY), "org-1", "proj-1")
    await say(provider, prompt("x"), Candidate("openai", "m", CredentialMode.BYOK, credentials))
    await say(provider, prompt("x"))

    first, second = (request.headers for request in server.requests)
    assert (first["openai-organization"], first["openai-project"]) == ("org-1", "proj-1")
    assert "openai-organization" not in second
    assert "openai-project" not in second


async def test_cookies_are_not_kept_for_the_next_caller(provider: OpenAiProvider, server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(set_cookie="session=planted; Path=/")
        await exchange.send(STOP + DONE)
        await exchange.end()

    server.script(behave)
    await say(provider, prompt("x"))
    await say(provider, prompt("x"))

    assert "cookie" not in server.requests[1].headers


async def test_reasoning_in_both_spellings(provider: OpenAiProvider, server: FaultServer) -> None:
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


async def test_usage_with_its_details(provider: OpenAiProvider, server: FaultServer) -> None:
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


async def test_tool_calls_of_servers_that_give_no_index_or_id(provider: OpenAiProvider, server: FaultServer) -> None:
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


@pytest.mark.parametrize("arguments", ["[1]", "{", '"x"', "{} {}"])
async def test_arguments_that_are_no_object(provider: OpenAiProvider, server: FaultServer, arguments: str) -> None:
    said = await ask(provider, server, call_piece(index=0, id="a", function=function("f", arguments)), STOP, DONE)

    assert said.error is not None
    assert said.error.failure is AttemptFailure.MALFORMED
    assert said.calls == []


async def test_a_call_that_the_token_limit_cut_is_left_out(provider: OpenAiProvider, server: FaultServer) -> None:
    said = await ask(
        provider,
        server,
        call_piece(index=0, id="a", function=function("f", "{}")),
        call_piece(index=1, id="b", function=function("g", '{"x')),
        event(delta("", "length")),
        DONE,
    )
    assert [call.id for call in said.calls] == ["a"]
    assert said.finish.reason is FinishReason.MAX_OUTPUT_TOKENS


async def test_older_servers_get_what_they_understand(server: FaultServer) -> None:
    provider = OpenAiProvider(OpenAiSettings(base_url=server.url, max_tokens_field="max_tokens", include_usage=False))
    server.script(body(STOP, DONE))
    await say(provider, Prompt(messages=prompt("x").messages, max_output_tokens=9))
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
