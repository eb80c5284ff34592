"""Calls of a billing server."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

from flowstack_protos.billing.v1 import account_service_pb2, usage_service_pb2
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub

from bench.processes import BillingServer

TIMEOUT_SECONDS = 30


async def new_account(server: BillingServer) -> str:
    """Opens an account; answers its id."""
    request = account_service_pb2.CreateAccountRequest(
        display_name="Bench", email="bench@example.org", plan_id="professional"
    )
    stub = AccountServiceStub(server.public.channel)
    response = await stub.CreateAccount(request, metadata=server.public.metadata, timeout=TIMEOUT_SECONDS)
    return response.account.account_id


async def new_key(server: BillingServer, account_id: str) -> str:
    """Makes an API key of an account; answers the secret."""
    request = account_service_pb2.CreateApiKeyRequest(account_id=account_id, display_name="bench")
    stub = AccountServiceStub(server.public.channel)
    response = await stub.CreateApiKey(request, metadata=server.public.metadata, timeout=TIMEOUT_SECONDS)
    return response.secret


class Authentications:
    """Checks keys in turn, one call each."""

    def __init__(self, server: BillingServer, keys: Sequence[str]) -> None:
        self._stub = AccountServiceStub(server.internal.channel)
        self._metadata = server.internal.metadata
        self._keys = itertools.cycle(keys)

    async def __call__(self) -> None:
        """One check."""
        request = account_service_pb2.AuthenticateApiKeyRequest(api_key=next(self._keys))
        await self._stub.AuthenticateApiKey(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS)


class UsageReads:
    """Reads an account's usage."""

    def __init__(self, server: BillingServer, account_id: str) -> None:
        self._stub = UsageServiceStub(server.public.channel)
        self._metadata = server.public.metadata
        self._request = usage_service_pb2.GetUsageRequest(account_id=account_id)

    async def median_ms(self, calls: int) -> float:
        """The median duration of lone calls, in milliseconds."""
        found = []
        for _ in range(calls):
            started_s = time.perf_counter()
            await self._stub.GetUsage(self._request, metadata=self._metadata, timeout=TIMEOUT_SECONDS)
            found.append(time.perf_counter() - started_s)
        return statistics.median(found) * 1000
