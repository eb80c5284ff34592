"""Planted keys reach the provider's request and nothing else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import structlog
from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.shared.errors import Reason
from tests.grpc.router.harness import API_KEY, RouterUnderTest, request_to
from tests.support.dialects import DIALECTS
from tests.support.fault_server import Behaviour, Exchange, FaultServer, fault_server
from tests.support.keys import BYOK, MANAGED, PLANTED

SECRETS = (API_KEY, *PLANTED)


@pytest.fixture(params=list(DIALECTS))
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[FaultServer]:
    """Each provider in turn."""
    async with fault_server(DIALECTS[request.param]) as server:
        yield server


def keys_of(exchange: Exchange) -> tuple[str, ...]:
    """The keys that a request came with; a secret of AWS's is only signed with, but might be said all the same."""
    own, managed = BYOK[exchange.dialect.name], MANAGED[exchange.dialect.name]
    sent = str(exchange.request.headers)
    (keys,) = [keys for keys in (own, managed) if keys[0] in sent]
    return tuple(key for key in keys if key)


def says_the_keys(where: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        keys = keys_of(exchange)
        message = " ".join(f"Incorrect key: {key} (Bearer {key})" for key in keys)
        if where in ("400", "401"):
            await exchange.refuse(int(where), message)
        elif where == "plain text":
            await exchange.error(500, f"no such key {message}")
        elif where == "error event":
            await exchange.begin()
            await exchange.text("some")
            await exchange.fail("overloaded", message)
            await exchange.end()
        elif where == "bad format":
            await exchange.begin()
            await exchange.send(b"data: {" + message.encode() + b"\n\n")
            await exchange.end()
        elif where == "request id of a refusal":
            await exchange.refuse(400, "No.", **{exchange.dialect.request_id_header: f"req-{keys[-1]}"})
        else:
            raise AssertionError(where)

    return behave


def ends_well_with_the_keys(where: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        key = keys_of(exchange)[0]
        ids = {"request id": f"req-{key}", "start of the request id": key[:20] + "." + "x" * 400}
        await exchange.head(**{exchange.dialect.request_id_header: ids.get(where, "req_fault")})
        for piece in exchange.dialect.finish(f"stop_{key}" if where == "finish reason" else "stop"):
            await exchange.send(piece)
        await exchange.end()

    return behave


def _everything(router: RouterUnderTest, *more: object) -> str:
    """All that the router said of a call, and all that quota keeps of it."""
    return "\n".join(str(said) for said in (*more, router.quota.sessions, router.quota.reservations))


@pytest.mark.parametrize("byok", [True, False])
@pytest.mark.parametrize("where", ["401", "400", "plain text", "error event", "bad format", "request id of a refusal"])
async def test_a_key_that_a_provider_quotes_back_goes_nowhere(
    router: RouterUnderTest,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    byok: bool,
    where: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    router.quota.managed_providers = [router.upstream.dialect.name]
    router.upstream.script(says_the_keys(where))
    with structlog.testing.capture_logs() as logs:
        events, error = await router.failure(request_to(router.upstream.dialect, byok=byok))
        await router.settled()

    seen = _everything(router, *events, repr(error), error.metadata, caplog.text, logs, *capsys.readouterr())
    assert router.upstream.requests, "the key was on its way"
    for planted in SECRETS:
        assert planted not in seen


@pytest.mark.parametrize("byok", [True, False])
@pytest.mark.parametrize("where", ["request id", "start of the request id", "finish reason"])
async def test_a_key_in_an_answer_that_ends_well_reaches_neither_the_client_nor_quota(
    router: RouterUnderTest, caplog: pytest.LogCaptureFixture, byok: bool, where: str
) -> None:
    caplog.set_level(logging.DEBUG)
    router.quota.managed_providers = [router.upstream.dialect.name]
    router.upstream.script(ends_well_with_the_keys(where))
    with structlog.testing.capture_logs() as logs:
        events = await router.events(request_to(router.upstream.dialect, byok=byok))
        await router.settled()

    seen = _everything(router, *events, caplog.text, logs)
    outcome = router.quota.only.outcome
    assert router.quota.states() == ["COMMITTED"]
    if where == "finish reason":
        assert outcome.provider_request_id == "req_fault", "what is not a key stays"
    else:
        assert outcome.provider_finish_reason in ("stop", "end_turn"), "what is not a key stays"
    for planted in SECRETS:
        assert planted[:20] not in seen


def refuses(status: int) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.refuse(status, "The installation is out of credit.")

    return behave


def breaks_off(kind: str) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("some")
        await exchange.fail(kind, "The installation is out of credit.")
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
        (breaks_off("overloaded"), True, True),
        (breaks_off("overloaded"), False, False),
        (breaks_off("rate"), False, False),
    ],
)
async def test_what_a_provider_tells_the_operator_is_not_told_to_customers(
    router: RouterUnderTest, says: Behaviour, byok: bool, quoted: bool
) -> None:
    router.quota.managed_providers = [router.upstream.dialect.name]
    router.upstream.script(says)
    _, error = await router.failure(request_to(router.upstream.dialect, byok=byok))

    assert ("out of credit" in error.message) == quoted
    assert router.upstream.dialect.name in error.message


async def test_a_refusal_on_the_operators_key_is_not_told_beside_another_reason(router: RouterUnderTest) -> None:
    router.quota.managed_providers = [router.upstream.dialect.name, "backup"]
    router.upstream.script(refuses(503), refuses(400))
    fallback = pb.Fallback(provider="backup", model="m")
    _, error = await router.failure(request_to(router.upstream.dialect, byok=False, fallbacks=[fallback]))

    assert error.reason is Reason.PROVIDER_UNAVAILABLE
    assert "out of credit" not in error.message


async def test_a_request_never_becomes_text(router: RouterUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    request = request_to(router.upstream.dialect, fallbacks=[pb.Fallback(provider="nowhere", model="m")])
    _, error = await router.failure(request)

    for planted in SECRETS:
        assert planted not in caplog.text
        assert planted not in repr(error)
