"""Planted keys reach the provider's request and nothing else."""

from __future__ import annotations

import logging

import pytest
import structlog
from flowstack_protos.router.v1 import router_service_pb2 as pb

from tests.grpc.router.harness import API_KEY, BYOK_KEY, MANAGED_KEY, RouterUnderTest, openai_request
from tests.support.fault_server import Behaviour, Exchange

PLANTED = (API_KEY, BYOK_KEY, MANAGED_KEY)


def says_the_key(where: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        key = exchange.request.headers["authorization"].removeprefix("Bearer ")
        error = {"message": f"Incorrect key: {key} (Bearer {key})", "type": "server_error", "code": None}
        if where == "401":
            await exchange.error(401, error)
        elif where == "400":
            await exchange.error(400, error)
        elif where == "plain text":
            await exchange.error(500, f"no such key {key}")
        elif where == "error event":
            await exchange.head()
            await exchange.text("some")
            await exchange.event(error=error)
            await exchange.end()
        elif where == "bad json":
            await exchange.head()
            await exchange.send(b"data: {" + key.encode() + b"\n\n")
            await exchange.end()
        else:
            await exchange.head(x_request_id=f"req-{key}")
            await exchange.finish()

    return behave


@pytest.mark.parametrize("byok", [True, False])
@pytest.mark.parametrize("where", ["401", "400", "plain text", "error event", "bad json"])
async def test_a_key_that_a_provider_quotes_back_goes_nowhere(
    router: RouterUnderTest,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    byok: bool,
    where: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    router.quota.managed_providers = ["openai"]
    router.upstream.script(says_the_key(where))
    with structlog.testing.capture_logs() as logs:
        events, error = await router.failure(openai_request(byok=byok))
        await router.settled()

    seen = "\n".join(
        (
            *(str(event) for event in events),
            repr(error),
            str(error.metadata),
            str(router.quota.sessions),
            str(router.quota.reservations),
            caplog.text,
            str(logs),
            *capsys.readouterr(),
        )
    )
    assert router.upstream.requests, "the key was on its way"
    for planted in PLANTED:
        assert planted not in seen


async def test_a_request_never_becomes_text(router: RouterUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    request = openai_request(fallbacks=[pb.Fallback(provider="nowhere", model="m")])
    _, error = await router.failure(request)

    assert BYOK_KEY not in caplog.text
    assert BYOK_KEY not in repr(error)
