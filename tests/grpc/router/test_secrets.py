"""Planted keys reach the provider's request and nothing else."""

from __future__ import annotations

import logging

import pytest
import structlog
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.shared.errors import Reason
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
        elif where == "request id of a refusal":
            await exchange.error(400, {"message": "No."}, x_request_id=f"req-{key}")
        else:
            raise AssertionError(where)

    return behave


def ends_well_with_the_key(where: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        key = exchange.request.headers["authorization"].removeprefix("Bearer ")
        ids = {"request id": f"req-{key}", "start of the request id": key[:20] + "." + "x" * 400}
        await exchange.head(x_request_id=ids.get(where, "req_fault"))
        await exchange.finish(f"stop_{key}" if where == "finish reason" else "stop")

    return behave


def _everything(router: RouterUnderTest, *more: object) -> str:
    """All that the router said of a call, and all that quota keeps of it."""
    return "\n".join(str(said) for said in (*more, router.quota.sessions, router.quota.reservations))


@pytest.mark.parametrize("byok", [True, False])
@pytest.mark.parametrize("where", ["401", "400", "plain text", "error event", "bad json", "request id of a refusal"])
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

    seen = _everything(router, *events, repr(error), error.metadata, caplog.text, logs, *capsys.readouterr())
    assert router.upstream.requests, "the key was on its way"
    for planted in PLANTED:
        assert planted not in seen


@pytest.mark.parametrize("byok", [True, False])
@pytest.mark.parametrize("where", ["request id", "start of the request id", "finish reason"])
async def test_a_key_in_an_answer_that_ends_well_reaches_neither_the_client_nor_quota(
    router: RouterUnderTest, caplog: pytest.LogCaptureFixture, byok: bool, where: str
) -> None:
    caplog.set_level(logging.DEBUG)
    router.quota.managed_providers = ["openai"]
    router.upstream.script(ends_well_with_the_key(where))
    with structlog.testing.capture_logs() as logs:
        events = await router.events(openai_request(byok=byok))
        await router.settled()

    seen = _everything(router, *events, caplog.text, logs)
    outcome = router.quota.only.outcome
    assert router.quota.states() == ["COMMITTED"]
    if where == "finish reason":
        assert outcome.provider_request_id == "req_fault", "what is not a key stays"
    else:
        assert outcome.provider_finish_reason == "stop", "what is not a key stays"
    for planted in PLANTED:
        assert planted[:20] not in seen


def refuses(status: int) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.error(status, {"message": "The installation is out of credit."})

    return behave


def breaks_off(type_: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.text("some")
        await exchange.event(error={"message": "The installation is out of credit.", "type": type_})
        await exchange.end()

    return behave


@pytest.mark.parametrize(
    ("says", "byok", "quoted"),
    [
        (refuses(400), True, True),
        (refuses(401), True, True),
        (refuses(429), True, True),
        (refuses(500), True, True),
        (refuses(400), False, True),
        (refuses(401), False, False),
        (refuses(429), False, False),
        (refuses(500), False, False),
        (breaks_off("server_error"), True, True),
        (breaks_off("server_error"), False, False),
        (breaks_off("rate_limit_exceeded"), False, False),
    ],
)
async def test_what_a_provider_tells_the_operator_is_not_told_to_customers(
    router: RouterUnderTest, says: Behaviour, byok: bool, quoted: bool
) -> None:
    router.quota.managed_providers = ["openai"]
    router.upstream.script(says)
    _, error = await router.failure(openai_request(byok=byok))

    assert ("out of credit" in error.message) == quoted
    assert "openai" in error.message


async def test_a_refusal_on_the_operators_key_is_not_told_beside_another_reason(router: RouterUnderTest) -> None:
    router.quota.managed_providers = ["backup"]
    router.upstream.script(refuses(503), refuses(400))
    _, error = await router.failure(openai_request(fallbacks=[pb.Fallback(provider="backup", model="m")]))

    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert "out of credit" not in error.message


async def test_a_request_never_becomes_text(router: RouterUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    request = openai_request(fallbacks=[pb.Fallback(provider="nowhere", model="m")])
    _, error = await router.failure(request)

    assert BYOK_KEY not in caplog.text
    assert BYOK_KEY not in repr(error)
