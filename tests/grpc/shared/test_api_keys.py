"""What a service takes for an answer of billing, and what for its absence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as billing_pb
from flowstack_protos.billing.v1 import account_service_pb2_grpc as billing_grpc

from services.shared.api_keys import BillingClient
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.status import abort
from tests.support.fake_quota import channel_to


class Refusing(billing_grpc.AccountServiceServicer):
    """Answers every key with the same error."""

    error = FlowStackError(Reason.INTERNAL, "x")
    bare: grpc.StatusCode | None = None

    async def AuthenticateApiKey(
        self, request: billing_pb.AuthenticateApiKeyRequest, context: Any
    ) -> billing_pb.AuthenticateApiKeyResponse:
        if self.bare is not None:
            await context.abort(self.bare, "x")
        await abort(context, self.error)
        raise AssertionError


@pytest.fixture
async def billing() -> AsyncIterator[tuple[Refusing, BillingClient]]:
    servicer, server = Refusing(), grpc.aio.server()
    billing_grpc.add_AccountServiceServicer_to_server(servicer, server)
    channel = channel_to(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    yield servicer, BillingClient(channel)
    await channel.close()
    await server.stop(0)


async def asked(client: BillingClient) -> Reason:
    with pytest.raises(FlowStackError) as caught:
        await client.ask(Secret("fs_key"))
    return caught.value.reason


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Reason.API_KEY_INVALID, Reason.API_KEY_INVALID),
        (Reason.API_KEY_REVOKED, Reason.API_KEY_REVOKED),
        (Reason.API_KEY_EXPIRED, Reason.API_KEY_EXPIRED),
        (Reason.INVALID_REQUEST, Reason.INVALID_REQUEST),
        (Reason.INTERNAL, Reason.INTERNAL),
        (Reason.SHUTTING_DOWN, Reason.BILLING_UNAVAILABLE),
        (Reason.CALL_TIME_LIMIT, Reason.BILLING_UNAVAILABLE),
    ],
)
async def test_an_error_of_billings_own(billing: tuple[Refusing, BillingClient], said: Reason, told: Reason) -> None:
    servicer, client = billing
    servicer.error = FlowStackError(said, "x")

    assert await asked(client) is told


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_no_answer(billing: tuple[Refusing, BillingClient], code: grpc.StatusCode) -> None:
    servicer, client = billing
    servicer.bare = code

    assert await asked(client) is Reason.BILLING_UNAVAILABLE


async def test_nobody_there() -> None:
    channel = channel_to("127.0.0.1:1")
    assert await asked(BillingClient(channel)) is Reason.BILLING_UNAVAILABLE
    await channel.close()
