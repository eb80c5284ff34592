"""A client that leaves before its request went out owes nothing, whosever credentials it would have run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from tests.grpc.router.harness import RouterUnderTest, openai_request, request_to, running_router
from tests.support.dialects import DIALECTS
from tests.support.fake_quota import FakeQuota
from tests.support.fault_server import Exchange, fault_server
from tests.support.silent_server import SilentServer, silent_server


@pytest.fixture(params=list(DIALECTS))
async def silent(request: pytest.FixtureRequest) -> AsyncIterator[SilentServer]:
    async with silent_server(DIALECTS[request.param]) as server:
        yield server


async def released(router: RouterUnderTest, call: Any) -> type_pb2.SessionOutcome:
    """Leaves, and gives the outcome of the session, which is not counted."""
    call.cancel()
    await router.quota.until_resolved()
    session = router.quota.only
    assert router.quota.states() == ["RELEASED"]
    assert session.release_reason == type_pb2.RELEASE_REASON_CLIENT_CANCELLED
    return session.outcome


@pytest.mark.parametrize("byok", [True, False], ids=["own key", "managed"])
async def test_while_the_connection_is_made(quota: FakeQuota, silent: SilentServer, byok: bool) -> None:
    quota.managed_providers = [silent.dialect.name]
    async with running_router(quota, silent) as router:
        call = router.complete(request_to(silent.dialect, byok=byok))
        await silent.connected()
        outcome = await released(router, call)

    assert outcome.served_credential_mode == type_pb2.CREDENTIAL_MODE_UNSPECIFIED
    assert [attempt.failure for attempt in outcome.attempts] == [type_pb2.ATTEMPT_FAILURE_ABANDONED]


async def test_after_another_attempt_that_failed(quota: FakeQuota) -> None:
    """What one provider was sent says nothing of the next one."""
    dialect = DIALECTS["anthropic"]
    quota.managed_providers = ["openai", dialect.name]
    async with silent_server(dialect) as silent, fault_server() as failing:
        failing.script(_overloaded)
        async with running_router(quota, silent, openai_url=failing.url) as router:
            fallback = pb.Fallback(provider=dialect.name, model=dialect.model)
            call = router.complete(openai_request(byok=False, fallbacks=[fallback]))
            await silent.connected()
            outcome = await released(router, call)

    assert [attempt.failure for attempt in outcome.attempts] == [
        type_pb2.ATTEMPT_FAILURE_PROVIDER_ERROR,
        type_pb2.ATTEMPT_FAILURE_ABANDONED,
    ]


async def _overloaded(exchange: Exchange) -> None:
    await exchange.refuse(529, "Busy.")
