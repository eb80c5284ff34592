"""Every status and every refusal that a provider can answer with."""

from __future__ import annotations

import asyncio
import email.utils
from datetime import UTC, datetime, timedelta

import pytest

from services.router.domain.outcome import AttemptFailure
from services.router.providers.port import Provider
from tests.conformance.providers.calls import asked, failed, prompt, say
from tests.support.fault_server import Exchange, FaultServer
from tests.support.keys import PLANTED

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
