"""Every provider against every way in which a server can break its format, or its connection."""

from __future__ import annotations

import pytest

from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.providers.port import Provider
from tests.conformance.providers.calls import SSE, answer, ask, asked, failed, prompt, say
from tests.support.dialects import FAILURE_KINDS, Dialect
from tests.support.fault_server import Exchange, FaultServer
from tests.support.keys import PLANTED


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
