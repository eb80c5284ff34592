"""Every provider against every way in which a server can break its format, or its connection."""

from __future__ import annotations

import asyncio
import email.utils
from datetime import UTC, datetime, timedelta

import pytest

from services.router.domain.events import ReasoningDelta, TextDelta
from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.providers import event_stream, sse, stream
from services.router.providers.port import Provider
from services.router.providers.tool_calls import ARGUMENTS_BYTES_MAX
from tests.conformance.providers.calls import Said, asked, body, ignored, prompt, say
from tests.support.dialects import DIALECTS, FAILURE_KINDS, PLANTED, Dialect
from tests.support.fault_server import Exchange, FaultServer

SSE = ("openai", "anthropic")


async def ask(provider: Provider, server: FaultServer, *pieces: bytes, tools: tuple[str, ...] = ()) -> Said:
    server.script(body(*pieces))
    return await say(provider, prompt("x", *tools), asked(server.dialect))


def failed(said: Said) -> AttemptFailure:
    assert said.error is not None, f"it ended well: {said.events}"
    return said.error.failure


def answer(dialect: Dialect, *words: str) -> list[bytes]:
    return [dialect.begin(), *map(dialect.text, words), *dialect.finish(prompt_tokens=7, completion_tokens=2)]


WRITES = ["an event a write", "one write", "byte by byte"]


def cut_up(raw: list[bytes], writes: str) -> list[bytes]:
    if writes == "one write":
        return [b"".join(raw)]
    return [bytes([byte]) for byte in b"".join(raw)] if writes == "byte by byte" else raw


@pytest.mark.parametrize("writes", WRITES)
async def test_text_however_it_is_cut_up(provider: Provider, server: FaultServer, writes: str) -> None:
    said = await ask(provider, server, *cut_up(answer(server.dialect, "a", "ü€😀", "b"), writes))

    assert said.error is None
    assert said.text == "aü€😀b"
    assert said.finish.reason is FinishReason.STOP
    assert (said.finish.usage.input_tokens, said.finish.usage.output_tokens) == (7, 2)
    assert said.request_id == "req_fault"


async def test_what_is_new_or_says_nothing_is_passed_over(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    begin, first, second, *end = answer(dialect, "a", "b")
    silence = dialect.nothing()
    said = await ask(provider, server, *silence, begin, *silence, first, *silence, second, *silence, *end)

    assert said.error is None
    assert said.text == "ab"


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in SSE], ids=SSE)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
async def test_other_line_ends(provider: Provider, server: FaultServer, line_end: bytes) -> None:
    raw = [piece.replace(b"\n", line_end) for piece in answer(server.dialect, "a", "b")]
    said = await ask(provider, server, *raw)

    assert said.error is None
    assert said.text == "ab"


async def test_a_delta_of_a_megabyte(provider: Provider, server: FaultServer) -> None:
    said = await ask(provider, server, *answer(server.dialect, "x" * 1_000_000))

    assert said.error is None
    assert len(said.text) == 1_000_000


@pytest.mark.parametrize("limited", ["one event", "one answer"])
async def test_what_is_over_a_limit_is_refused(
    provider: Provider, server: FaultServer, monkeypatch: pytest.MonkeyPatch, limited: str
) -> None:
    # The limits themselves are megabytes; here they are small, so that the test is quick.
    if limited == "one event":
        monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 50_000)
        monkeypatch.setattr(event_stream, "FRAME_BYTES_MAX", 50_000)
        words = ["x" * 60_000]
    else:
        monkeypatch.setattr(stream, "OUTPUT_CHARACTERS_MAX", 5_000)
        words = ["x" * 1_000] * 6
    said = await ask(provider, server, *answer(server.dialect, *words))

    assert failed(said) is AttemptFailure.MALFORMED
    assert said.error is not None
    assert "over the limit" in said.error.message
    assert len(said.text) <= 5_000


async def test_reasoning_comes_apart_from_the_text(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    begin, text, *end = answer(dialect, "b")
    said = await ask(provider, server, begin, dialect.reasoning("so "), dialect.reasoning("that"), text, *end)

    assert (said.reasoning, said.text) == ("so that", "b")
    assert isinstance(said.events[0], ReasoningDelta)


@pytest.mark.parametrize("writes", WRITES)
async def test_parallel_tool_calls_are_put_together(provider: Provider, server: FaultServer, writes: str) -> None:
    dialect = server.dialect
    first = dialect.call(0, "call_a", "look", '{"at":', ' "sky"}')
    second = dialect.call(1, "call_b", "feel", "", '{"w": 12345678901234567890123}')
    third = dialect.call(2, "call_c", "wait")
    raw = [dialect.begin(), *first, *second, *third, *dialect.finish("tools")]
    said = await ask(provider, server, *cut_up(raw, writes), tools=("look", "feel", "wait"))

    assert [(call.id, call.name, call.arguments_json) for call in said.calls] == [
        ("call_a", "look", '{"at": "sky"}'),
        ("call_b", "feel", '{"w": 12345678901234567890123}'),
        ("call_c", "wait", "{}"),
    ]
    assert said.finish.reason is FinishReason.TOOL_CALLS


BAD_CALLS = {
    "no object": ('["sky"]',),
    "cut": ('{"at": "s',),
    "two": ("{}", "{}"),
    "too long": ('{"at": "' + "x" * 700_000, "x" * (ARGUMENTS_BYTES_MAX - 700_000) + '"}'),
}


@pytest.mark.parametrize("arguments", BAD_CALLS.values(), ids=BAD_CALLS.keys())
async def test_arguments_that_are_no_whole_object(
    provider: Provider, server: FaultServer, arguments: tuple[str, ...]
) -> None:
    dialect = server.dialect
    raw = [dialect.begin(), *dialect.call(0, "call_a", "look", *arguments), *dialect.finish("tools")]
    said = await ask(provider, server, *raw, tools=("look",))

    assert failed(said) is AttemptFailure.MALFORMED
    assert said.calls == []
    assert said.error is not None
    assert said.error.request_id == "req_fault"


async def test_two_calls_of_one_id_are_refused(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    calls = [*dialect.call(0, "call_a", "look", "{}"), *dialect.call(1, "call_a", "feel", "{}")]
    said = await ask(provider, server, dialect.begin(), *calls, *dialect.finish("tools"), tools=("look", "feel"))

    assert failed(said) is AttemptFailure.MALFORMED
    assert said.calls == []


async def test_a_call_that_the_token_limit_cut_is_left_out(provider: Provider, server: FaultServer) -> None:
    dialect = server.dialect
    calls = [*dialect.call(0, "call_a", "look", "{}"), *dialect.call(1, "call_b", "look", '{"at')]
    said = await ask(provider, server, dialect.begin(), *calls, *dialect.finish("length"), tools=("look",))

    assert [call.id for call in said.calls] == ["call_a"]
    assert said.finish.reason is FinishReason.MAX_OUTPUT_TOKENS


@pytest.mark.parametrize("joined", [True, False], ids=["one write", "many writes"])
async def test_what_breaks_the_format_is_told_after_what_came_before(
    provider: Provider, server: FaultServer, joined: bool
) -> None:
    dialect = server.dialect
    for name, bad in dialect.broken().items():
        raw = [dialect.begin() + dialect.text("a") + bad] if joined else [dialect.begin(), dialect.text("a"), bad]
        said = await ask(provider, server, *raw)

        assert failed(said) is AttemptFailure.MALFORMED, name
        assert said.text == "a", name
        assert said.error is not None
        assert said.error.request_id == "req_fault"


FAILURES = {
    "overloaded": AttemptFailure.PROVIDER_ERROR,
    "rate": AttemptFailure.RATE_LIMITED,
    "credentials": AttemptFailure.CREDENTIALS_REFUSED,
    "request": AttemptFailure.REQUEST_REJECTED,
}


@pytest.mark.parametrize("kind", FAILURE_KINDS)
@pytest.mark.parametrize("words", [("a",), ()], ids=["after output", "before output"])
async def test_a_failure_that_the_provider_reports_with_status_200(
    provider: Provider, server: FaultServer, kind: str, words: tuple[str, ...]
) -> None:
    dialect = server.dialect
    told = dialect.failure(kind, f"No more of {PLANTED[0]}, {PLANTED[1]} and {PLANTED[3]}.")
    said = await ask(provider, server, dialect.begin(), *map(dialect.text, words), told)

    assert failed(said) is FAILURES[kind]
    assert said.text == "".join(words)
    assert said.error is not None
    assert said.error.message == "No more of <secret>, <secret> and <secret>."


CUT_SHORT = ["without its end mark", "within an event", "at the beginning", "an HTML page"]


@pytest.mark.parametrize("how", CUT_SHORT)
async def test_an_answer_that_just_ends(provider: Provider, server: FaultServer, how: str) -> None:
    dialect = server.dialect
    begun = [dialect.begin(), dialect.text("a")]
    raw = {
        "without its end mark": begun,
        "within an event": [*begun, dialect.text("b")[:-5]],
        "at the beginning": [],
        "an HTML page": [b"<html></html>"],
    }[how]
    said = await ask(provider, server, *raw)

    expected = AttemptFailure.TRUNCATED
    if how == "an HTML page" and dialect.name not in SSE:
        expected = AttemptFailure.MALFORMED
    assert failed(said) is expected
    assert said.text == ("a" if begun == raw[:2] else "")


async def test_an_end_after_the_finish_reason_is_no_cut(provider: Provider, server: FaultServer) -> None:
    *most, _ = answer(server.dialect, "a")
    said = await ask(provider, server, *most)

    assert said.error is None
    assert said.finish.reason is FinishReason.STOP


@pytest.mark.parametrize("how", ["cut", "reset"])
@pytest.mark.parametrize("begun", [True, False], ids=["in the answer", "before the answer"])
async def test_a_connection_that_breaks(provider: Provider, server: FaultServer, how: str, begun: bool) -> None:
    async def behave(exchange: Exchange) -> None:
        if begun:
            await exchange.begin()
            await exchange.text("a")
        getattr(exchange, how)()

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert failed(said) is (AttemptFailure.TRUNCATED if begun else AttemptFailure.UNREACHABLE)


async def test_no_server_at_all(dialect: Dialect) -> None:
    provider = dialect.provider("http://127.0.0.1:1")
    said = await say(provider, prompt("x"), asked(dialect))
    await provider.aclose()

    assert failed(said) is AttemptFailure.UNREACHABLE


STATUSES = {
    400: AttemptFailure.REQUEST_REJECTED,
    401: AttemptFailure.CREDENTIALS_REFUSED,
    402: AttemptFailure.CREDENTIALS_REFUSED,
    403: AttemptFailure.CREDENTIALS_REFUSED,
    404: AttemptFailure.REQUEST_REJECTED,
    408: AttemptFailure.PROVIDER_ERROR,
    413: AttemptFailure.REQUEST_REJECTED,
    422: AttemptFailure.REQUEST_REJECTED,
    424: AttemptFailure.PROVIDER_ERROR,
    429: AttemptFailure.RATE_LIMITED,
    500: AttemptFailure.PROVIDER_ERROR,
    503: AttemptFailure.PROVIDER_ERROR,
    529: AttemptFailure.PROVIDER_ERROR,
    302: AttemptFailure.PROVIDER_ERROR,
    307: AttemptFailure.PROVIDER_ERROR,
}


@pytest.mark.parametrize(("status", "failure"), STATUSES.items())
async def test_a_status(provider: Provider, server: FaultServer, status: int, failure: AttemptFailure) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.refuse(status, f"No, with {PLANTED[0]} here.", location=f"{server.url}/elsewhere")

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert failed(said) is failure
    assert said.error is not None
    assert said.error.message == "No, with <secret> here."
    assert said.error.request_id == "req_fault"
    assert len(server.requests) == 1, "neither retried nor redirected"


@pytest.mark.parametrize("refusal", [b"", b"<html>", b"[]", b'{"error": 7, "message": 7}', b"\xff" * 100], ids=repr)
async def test_a_refusal_in_no_known_form(provider: Provider, server: FaultServer, refusal: bytes) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(500, content_type="application/json")
        if refusal:
            await exchange.send(refusal)
        await exchange.end()

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert failed(said) is AttemptFailure.PROVIDER_ERROR


async def test_a_refusal_without_an_end(provider: Provider, server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(400, content_type="application/json")
        while not exchange.client_closed.is_set():
            await exchange.send(b" " * 65_536)

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert failed(said) is AttemptFailure.REQUEST_REJECTED
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)


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
    provider: Provider, server: FaultServer, headers: dict[str, str], low: float, high: float
) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.refuse(429, "Slower.", **headers)

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert said.error is not None
    assert said.error.retry_after is not None
    assert low <= said.error.retry_after.total_seconds() <= high


@pytest.mark.parametrize("value", ["soon", "nan", ""])
async def test_a_retry_after_that_says_nothing(provider: Provider, server: FaultServer, value: str) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.refuse(429, "Slower.", retry_after=value)

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert said.error is not None
    assert said.error.retry_after is None


@pytest.mark.parametrize("begun", [True, False], ids=["in the answer", "before the answer"])
async def test_silence_is_given_up_and_the_connection_closed(server: FaultServer, begun: bool) -> None:
    async def behave(exchange: Exchange) -> None:
        if begun:
            await exchange.begin()
            await exchange.text("a")
        await exchange.hold()

    provider = server.dialect.provider(server.root, stall_s=1.0)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))
    await asyncio.wait_for((await server.arrived()).client_closed.wait(), 20)
    await provider.aclose()

    assert failed(said) is AttemptFailure.STALLED
    assert said.text == ("a" if begun else "")


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in SSE], ids=SSE)
async def test_comments_are_no_events(server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        while not exchange.client_closed.is_set():
            await exchange.send(b": still here\n\n")
            await asyncio.sleep(0.005)

    provider = server.dialect.provider(server.root, stall_s=0.1)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))
    await provider.aclose()

    assert failed(said) is AttemptFailure.STALLED


@pytest.mark.parametrize("dialect", [DIALECTS["bedrock"]], ids=["bedrock"])
async def test_a_frame_that_never_becomes_whole_is_no_event(server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin()
        for byte in server.dialect.text("x" * 1_000_000):
            if exchange.client_closed.is_set():
                return
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0.005)

    provider = server.dialect.provider(server.root, stall_s=0.1)
    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))
    await provider.aclose()

    assert failed(said) is AttemptFailure.STALLED


async def test_an_endless_answer_is_read_no_faster_than_it_is_taken(provider: Provider, server: FaultServer) -> None:
    sent = 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin()
        while not exchange.client_closed.is_set():
            await exchange.text("x" * 10_000)
            sent += 1

    server.script(behave)
    async with provider.open(asked(server.dialect), prompt("x"), ignored) as running:
        first = await running.read()
        # Nobody reads: the server comes to a halt once what lies between is full.
        before = -1
        async with asyncio.timeout(20):
            while before != sent:
                before = sent
                await asyncio.sleep(0.05)
        held = sent
        assert isinstance(first[-1], TextDelta)
        while sent == held:
            await running.read()
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_a_call_that_is_given_up_closes_its_connection(provider: Provider, server: FaultServer, how: str) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("a")
        await exchange.hold()

    server.script(behave)
    first = asyncio.Event()

    async def call() -> None:
        async with provider.open(asked(server.dialect), prompt("x"), ignored) as running:
            assert await running.read() == [TextDelta("a")]
            first.set()
            if how == "cancelled":
                await running.read()

    task = asyncio.create_task(call())
    await first.wait()
    if how == "cancelled":
        task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled() is (how == "cancelled")
    await asyncio.wait_for(server.exchanges[0].client_closed.wait(), 20)


ENVIRONMENT = {
    "openai": ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_IDENTITY_TOKEN"),
    "bedrock": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_PROFILE",
        "AWS_REGION",
    ),
}


async def test_nothing_of_the_environment_goes_out(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = server.dialect
    for name in ENVIRONMENT[dialect.name]:
        monkeypatch.setenv(name, f"environment-{name}")
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", "X-Planted: environment-header")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    provider = dialect.provider(server.root, managed=False)
    said = await ask(provider, server, *answer(dialect, "a"))
    await provider.aclose()

    assert said.error is None
    assert "environment" not in str(server.requests[0].headers)
    assert "environment" not in server.requests[0].path


async def test_cookies_are_not_kept_for_the_next_caller(provider: Provider, server: FaultServer) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head(set_cookie="session=planted; Path=/")
        await exchange.send(b"".join(answer(server.dialect, "a")))
        await exchange.end()

    server.script(behave)
    for _ in range(2):
        await say(provider, prompt("x"), asked(server.dialect))

    assert "cookie" not in server.requests[1].headers
