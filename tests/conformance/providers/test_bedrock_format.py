"""What is Bedrock's format alone: how it names its exceptions, and where models are asked."""

from __future__ import annotations

import json

import pytest

from services.router.domain.outcome import AttemptFailure
from services.router.providers.port import Provider
from tests.conformance.providers.calls import asked, body, prompt, say
from tests.support.bedrock_dialect import frame
from tests.support.dialects import DIALECTS
from tests.support.fault_server import Exchange, FaultServer

pytestmark = pytest.mark.parametrize("dialect", [DIALECTS["bedrock"]], ids=["bedrock"])

THROTTLED, PROVIDERS = AttemptFailure.RATE_LIMITED, AttemptFailure.PROVIDER_ERROR
KEYS, REQUEST = AttemptFailure.CREDENTIALS_REFUSED, AttemptFailure.REQUEST_REJECTED

EXCEPTIONS = [
    (429, "ThrottlingException:http://internal.amazon.com/coral/", THROTTLED),
    (400, "ThrottlingException", THROTTLED),
    (400, "com.amazon.coral.service#ServiceQuotaExceededException", THROTTLED),
    (429, "ModelNotReadyException", PROVIDERS),
    (424, "ModelErrorException", PROVIDERS),
    (408, "ModelTimeoutException", PROVIDERS),
    (403, "AccessDeniedException", KEYS),
    (400, "ExpiredTokenException", KEYS),
    (400, "ValidationException", REQUEST),
    (404, "ResourceNotFoundException", REQUEST),
    (400, "SomethingNewException", REQUEST),
    (500, "SomethingNewException", PROVIDERS),
]


@pytest.mark.parametrize("place", ["header", "body"])
@pytest.mark.parametrize("told", EXCEPTIONS, ids=lambda told: f"{told[0]} {told[1]}")
async def test_an_exception_says_more_than_a_status(
    provider: Provider, server: FaultServer, place: str, told: tuple[int, str, AttemptFailure]
) -> None:
    status, name, failure = told

    async def behave(exchange: Exchange) -> None:
        await exchange.head(status, **({"x-amzn-ErrorType": name} if place == "header" else {}))
        await exchange.send(json.dumps({"__type": name, "message": "No."} if place == "body" else {}).encode())
        await exchange.end()

    server.script(behave)
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert said.error is not None
    assert said.error.failure is failure
    assert said.error.message == ("No." if place == "body" else "")


async def test_an_error_without_an_exception(provider: Provider, server: FaultServer) -> None:
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "It broke."}
    server.script(body(frame(headers, b"")))
    said = await say(provider, prompt("x"), asked(server.dialect))

    assert said.error is not None
    assert (said.error.failure, said.error.message) == (PROVIDERS, "It broke.")


async def test_where_a_model_is_asked(provider: Provider, server: FaultServer) -> None:
    server.script(body(*server.dialect.finish()))
    await say(provider, prompt("x"), asked(server.dialect))

    assert server.requests[0].path == "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
