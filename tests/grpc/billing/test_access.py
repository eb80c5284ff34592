"""Who may call what: every RPC of billing against every kind of caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from flowstack_protos.billing.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    invoice_service_pb2,
    subscription_service_pb2,
    usage_service_pb2,
)
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from tests.support.billing import (
    ADMIN,
    INTERNAL,
    BillingUnderTest,
    Customer,
    Metadata,
    bearer,
    billing,
    failure_of,
    reason_of,
    settings_for,
)
from tests.support.clock import DAY_US, ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents

FILES = (
    account_service_pb2,
    subscription_service_pb2,
    usage_service_pb2,
    invoice_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
PACKAGE = "/flowstack.billing.v1."

ADMIN_ONLY = {
    *(
        f"{PACKAGE}AccountService/{name}"
        for name in ("CreateAccount", "ListAccounts", "SuspendAccount", "DeleteAccount")
    ),
    f"{PACKAGE}SubscriptionService/PutContract",
    f"{PACKAGE}UsageService/ReconcileUsage",
    *(f"{PACKAGE}InvoiceService/{name}" for name in ("MarkInvoicePaid", "VoidInvoice", "CreateCreditNote")),
}
INTERNAL_ONLY = {f"{PACKAGE}AccountService/AuthenticateApiKey"}
OF_AN_ACCOUNT = sorted(
    path
    for path, method in METHODS.items()
    if path not in ADMIN_ONLY | INTERNAL_ONLY and "account_id" in method.input_type.fields_by_name
)
OF_ALL_ACCOUNTS = {f"{PACKAGE}AuditService/ListAuditEvents"}

VALID: dict[str, dict[str, Any]] = {
    "CreateAccount": {"displayName": "Ada", "email": "ada@example.org"},
    "SuspendAccount": {"accountId": "acct_1", "reason": "r"},
    "DeleteAccount": {"accountId": "acct_1"},
    "RotateApiKey": {"apiKeyId": "key_1"},
    "RevokeApiKey": {"apiKeyId": "key_1"},
    "ChangePlan": {"planId": "starter"},
    "PutContract": {"accountId": "acct_1", "contract": {"planId": "starter"}},
    "QueryUsage": {
        "startTime": "2026-03-01T00:00:00Z",
        "endTime": "2026-03-02T00:00:00Z",
        "granularity": "USAGE_GRANULARITY_DAY",
    },
    "EstimateCost": {"sessionsPerMonth": 1, "provider": "openai", "model": "gpt-4o"},
    "ReconcileUsage": {"accountId": "acct_1"},
    "GetInvoice": {"invoiceId": "inv_1"},
    "DownloadInvoice": {"invoiceId": "inv_1"},
    "MarkInvoicePaid": {"accountId": "acct_1", "invoiceId": "inv_1", "paymentReference": "p"},
    "VoidInvoice": {"accountId": "acct_1", "invoiceId": "inv_1", "reason": "r"},
    "CreateCreditNote": {
        "accountId": "acct_1",
        "invoiceId": "inv_1",
        "reason": "r",
        "requestId": "r",
        "lines": [{"lineNumber": 1, "description": "d", "amount": {"currencyCode": "USD", "units": "1"}}],
    },
    "UpdateAlertSettings": {"alertSettings": {"thresholds": []}, "updateMask": "thresholds"},
    "SendAlert": {"message": "m"},
    "CreateWebhook": {"url": "https://example.org/hook"},
    "RotateWebhookSecret": {"webhookId": "wh_1"},
    "DeleteWebhook": {"webhookId": "wh_1"},
    "RedeliverAlert": {"alertId": "alert_1", "webhookId": "wh_1"},
}
"""Fields that a request cannot be valid without."""


def request_for(path: str, **fields: Any) -> Any:
    """A valid request of a method."""
    descriptor = METHODS[path].input_type
    known = {field.json_name for field in descriptor.fields}
    values = {name: value for name, value in VALID.get(METHODS[path].name, {}).items() if name in known}
    return json_format.ParseDict(values | fields, message_factory.GetMessageClass(descriptor)())


def call(channel: grpc.aio.Channel, path: str, metadata: Metadata | None, request: Any = None) -> Any:
    """Starts a call of a method by its name."""
    method = METHODS[path]
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = kind(
        path,
        request_serializer=type(request).SerializeToString if request is not None else None,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    return stub(b"" if request is None else request, metadata=metadata)


@dataclass
class House:
    """A service with a customer, another one, and keys that are good no more."""

    service: BillingUnderTest
    customer: Customer
    other: Customer
    revoked: Customer
    expired: Customer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One for the module: these calls change nothing."""
    clock = ManualClock()
    quota = FakeQuotaEvents(clock.now_us)
    await quota.start()
    try:
        folder: Path = tmp_path_factory.mktemp("access")
        async with billing(settings_for(folder, quota.address), clock) as service:
            customer, other, revoked = [await service.new_customer() for _ in range(3)]
            request = account_service_pb2.RevokeApiKeyRequest(api_key_id=revoked.api_key_id)
            await service.accounts.RevokeApiKey(request, metadata=revoked.metadata)
            expiring = account_service_pb2.CreateApiKeyRequest(account_id=customer.account_id)
            expiring.expire_time.FromMicroseconds(clock.now_us() + DAY_US)
            created = await service.accounts.CreateApiKey(expiring, metadata=ADMIN)
            clock.advance_us(DAY_US)
            expired = Customer(customer.account_id, created.api_key.api_key_id, created.secret)
            yield House(service, customer, other, revoked, expired)
    finally:
        await quota.stop()


pytestmark = pytest.mark.asyncio(loop_scope="module")
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("path", sorted(METHODS))
async def test_without_a_good_key_nothing_is_served(house: House, path: str) -> None:
    for metadata, reason in (
        (None, "API_KEY_MISSING"),
        ((("authorization", "Basic abc"),), "API_KEY_MISSING"),
        (bearer("not-a-key"), "API_KEY_INVALID"),
        (bearer("fs_" + "0" * 75), "API_KEY_INVALID"),
        (INTERNAL, "API_KEY_INVALID"),
    ):
        code, error = await failure_of(call(house.service.public, path, metadata))
        assert (code, error.reason.value) == (UNAUTHENTICATED, reason)


@pytest.mark.parametrize("path", sorted(set(METHODS) - INTERNAL_ONLY))
async def test_a_key_that_is_good_no_more_serves_nothing(house: House, path: str) -> None:
    for customer, reason in ((house.revoked, "API_KEY_REVOKED"), (house.expired, "API_KEY_EXPIRED")):
        code, error = await failure_of(call(house.service.public, path, customer.metadata))
        assert (code, error.reason.value) == (UNAUTHENTICATED, reason)


@pytest.mark.parametrize("path", sorted(ADMIN_ONLY))
async def test_a_customer_is_no_admin(house: House, path: str) -> None:
    code, error = await failure_of(call(house.service.public, path, house.customer.metadata, request_for(path)))
    assert (code, error.reason.value) == (DENIED, "ADMIN_REQUIRED")


@pytest.mark.parametrize("path", OF_AN_ACCOUNT)
async def test_another_accounts_key_opens_nothing(house: House, path: str) -> None:
    request = request_for(path, accountId=house.customer.account_id)
    code, error = await failure_of(call(house.service.public, path, house.other.metadata, request))
    assert (code, error.reason.value) == (DENIED, "ACCOUNT_MISMATCH")


@pytest.mark.parametrize("path", [path for path in OF_AN_ACCOUNT if path not in OF_ALL_ACCOUNTS])
async def test_an_admin_names_the_account(house: House, path: str) -> None:
    _, error = await failure_of(call(house.service.public, path, ADMIN, request_for(path)))
    assert [violation.field for violation in error.violations] == ["account_id"]


async def test_the_public_port_tells_nobody_whose_a_key_is(house: House) -> None:
    (path,) = INTERNAL_ONLY
    request = account_service_pb2.AuthenticateApiKeyRequest(api_key=house.customer.secret)
    for metadata in (ADMIN, INTERNAL, house.customer.metadata):
        assert await reason_of(call(house.service.public, path, metadata, request)) == "API_KEY_INVALID"


async def test_the_internal_port_serves_one_method_to_services_alone(house: House) -> None:
    (path,) = INTERNAL_ONLY
    request = account_service_pb2.AuthenticateApiKeyRequest(api_key=house.customer.secret)
    internal = house.service.internal
    assert (await call(internal, path, INTERNAL, request)).account_id == house.customer.account_id
    for metadata in (ADMIN, house.customer.metadata):
        assert await reason_of(call(internal, path, metadata, request)) == "API_KEY_INVALID"
    assert await reason_of(call(internal, path, None, request)) == "API_KEY_MISSING"
    get_account = f"{PACKAGE}AccountService/GetAccount"
    assert await reason_of(call(internal, get_account, ADMIN, request_for(get_account))) == "API_KEY_INVALID"
    assert await reason_of(call(internal, get_account, INTERNAL, request_for(get_account))) == "METHOD_NOT_AVAILABLE"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(internal, f"{PACKAGE}UsageService/GetUsage", INTERNAL)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
