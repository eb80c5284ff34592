"""A real billing service for tests: its own process's wiring, on ephemeral ports, over a real file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceStub
from flowstack_protos.billing.v1.audit_service_pb2_grpc import AuditServiceStub
from flowstack_protos.billing.v1.invoice_service_pb2_grpc import InvoiceServiceStub
from flowstack_protos.billing.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub

from services.billing.__main__ import running
from services.billing.adapters.webhooks.addresses import Lookup
from services.billing.config import BillingSettings
from services.shared.background import Backoff
from services.shared.clock import Clock
from services.shared.errors import FlowStackError
from services.shared.secret import Secret
from services.shared.status import error_from_rpc

ADMIN_TOKEN: Final = "admin-token-of-the-tests"
INTERNAL_TOKEN: Final = "internal-token-of-the-tests"
PEPPER: Final = "pepper-of-the-tests"
QUICK: Final = Backoff(0.01, 0.02, lambda: 1.0)
Metadata = tuple[tuple[str, str], ...]


def bearer(token: str) -> Metadata:
    """The metadata of a call with `token`."""
    return (("authorization", f"Bearer {token}"),)


ADMIN: Final = bearer(ADMIN_TOKEN)
INTERNAL: Final = bearer(INTERNAL_TOKEN)


def settings_for(folder: Path, quota_address: str, **overrides: Any) -> BillingSettings:
    """Settings of a billing service that keeps its data in `folder`."""
    values: dict[str, Any] = {
        "data_dir": folder,
        "quota_address": quota_address,
        "billing_address": "127.0.0.1:0",
        "billing_internal_address": "127.0.0.1:0",
        "admin_port_base": 0,
        "admin_token": Secret(ADMIN_TOKEN),
        "internal_token": Secret(INTERNAL_TOKEN),
        "key_pepper": Secret(PEPPER),
    }
    return BillingSettings(_env_file=None, **(values | overrides))  # type: ignore[call-arg]


@dataclass
class Customer:
    """An account and a key of it."""

    account_id: str
    api_key_id: str
    secret: str

    @property
    def metadata(self) -> Metadata:
        """The metadata of a call with the key."""
        return bearer(self.secret)


class BillingUnderTest:
    """Stubs of a running billing service."""

    def __init__(self, public: grpc.aio.Channel, internal: grpc.aio.Channel) -> None:
        self.public = public
        self.internal = internal
        self.accounts: Any = AccountServiceStub(public)
        self.internal_accounts: Any = AccountServiceStub(internal)
        self.subscriptions: Any = SubscriptionServiceStub(public)
        self.usage: Any = UsageServiceStub(public)
        self.invoices: Any = InvoiceServiceStub(public)
        self.alerts: Any = AlertServiceStub(public)
        self.audit: Any = AuditServiceStub(public)

    async def open_account(self, plan_id: str = "", **fields: str) -> account_pb.CreateAccountResponse:
        """Creates an account."""
        request = account_pb.CreateAccountRequest(
            **({"display_name": "Ada", "email": "ada@example.org", "plan_id": plan_id} | fields)
        )
        response: account_pb.CreateAccountResponse = await self.accounts.CreateAccount(request, metadata=ADMIN)
        return response

    async def new_key(self, account_id: str, **fields: Any) -> Customer:
        """Creates a key of an account."""
        request = account_pb.CreateApiKeyRequest(account_id=account_id, **fields)
        response = await self.accounts.CreateApiKey(request, metadata=ADMIN)
        return Customer(account_id, response.api_key.api_key_id, response.secret)

    async def new_customer(self, plan_id: str = "") -> Customer:
        """Creates an account and a key of it."""
        return await self.new_key((await self.open_account(plan_id)).account.account_id)

    async def authenticate(self, secret: str) -> account_pb.AuthenticateApiKeyResponse:
        """Asks the internal port whose key it is."""
        response: account_pb.AuthenticateApiKeyResponse = await self.internal_accounts.AuthenticateApiKey(
            account_pb.AuthenticateApiKeyRequest(api_key=secret), metadata=INTERNAL
        )
        return response


@asynccontextmanager
async def billing(
    settings: BillingSettings, clock: Clock, backoff: Backoff = QUICK, lookup: Lookup | None = None
) -> AsyncIterator[BillingUnderTest]:
    """Runs billing until the block's end; webhooks' names are the system's to resolve, unless `lookup` does."""
    async with running(settings, clock, backoff, lookup) as host:
        await host.start()
        try:
            public, internal = host.bound_ports
            async with (
                grpc.aio.insecure_channel(f"127.0.0.1:{public}") as public_channel,
                grpc.aio.insecure_channel(f"127.0.0.1:{internal}") as internal_channel,
            ):
                yield BillingUnderTest(public_channel, internal_channel)
        finally:
            # Also where the test fails: a server that is left running fails a later one, when it is collected.
            await host.drain(0)


async def failure_of(call: Any) -> tuple[grpc.StatusCode, FlowStackError]:
    """The code and the error that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call.read() if hasattr(call, "read") else call)
    ours = error_from_rpc(raised.value)
    assert ours is not None, raised.value
    return raised.value.code(), ours


async def reason_of(call: Any) -> str:
    """The reason that a call fails with."""
    return (await failure_of(call))[1].reason.value
