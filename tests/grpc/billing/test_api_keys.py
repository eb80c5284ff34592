"""API keys from creation to refusal."""

from __future__ import annotations

import pytest
import structlog
from flowstack_protos.billing.v1 import account_service_pb2 as pb

from services.billing.config import BillingSettings
from services.billing.domain.api_keys import ACTIVE_KEYS_MAX
from tests.support.billing import (
    ADMIN,
    ADMIN_TOKEN,
    INTERNAL_TOKEN,
    PEPPER,
    BillingUnderTest,
    Customer,
    billing,
    failure_of,
    reason_of,
)
from tests.support.clock import DAY_US, ManualClock
from tests.support.database import everything_in


async def test_a_key_authenticates_for_its_account(service: BillingUnderTest, customer: Customer) -> None:
    answer = await service.authenticate(customer.secret)
    assert (answer.account_id, answer.api_key_id) == (customer.account_id, customer.api_key_id)
    assert answer.account_state == pb.ACCOUNT_STATE_ACTIVE
    assert answer.plan_id == "starter"
    assert list(answer.managed_providers) == ["bedrock"]
    assert not answer.HasField("expire_time")


async def test_features_of_the_plan_come_with_the_answer(service: BillingUnderTest) -> None:
    customer = await service.new_customer("professional")
    assert list((await service.authenticate(customer.secret)).features) == [
        "optimized_ai_pricing",
        "advanced_analytics",
    ]


@pytest.mark.parametrize("secret", ["fs_", "fs_short", "sk-something", "fs_" + "0" * 75, "fs_" + "é" * 75, " "])
async def test_a_malformed_key_is_unknown(service: BillingUnderTest, secret: str) -> None:
    assert await reason_of(service.authenticate(secret)) == "API_KEY_INVALID"


async def test_an_empty_key_is_missing(service: BillingUnderTest) -> None:
    assert await reason_of(service.authenticate("")) == "API_KEY_MISSING"


async def test_a_changed_digit_is_unknown(service: BillingUnderTest, customer: Customer) -> None:
    for place in (3, 25, -1):
        digits = list(customer.secret)
        digits[place] = "0" if digits[place] != "0" else "1"
        assert await reason_of(service.authenticate("".join(digits))) == "API_KEY_INVALID"


async def test_a_revoked_key_is_refused_on_both_ports(service: BillingUnderTest, customer: Customer) -> None:
    request = pb.RevokeApiKeyRequest(api_key_id=customer.api_key_id)
    revoked = (await service.accounts.RevokeApiKey(request, metadata=customer.metadata)).api_key
    assert revoked.state == pb.API_KEY_STATE_REVOKED
    assert await reason_of(service.authenticate(customer.secret)) == "API_KEY_REVOKED"
    call = service.accounts.GetAccount(pb.GetAccountRequest(), metadata=customer.metadata)
    assert await reason_of(call) == "API_KEY_REVOKED"


async def test_revoking_again_changes_nothing(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    request = pb.RevokeApiKeyRequest(account_id=customer.account_id, api_key_id=customer.api_key_id)
    first = await service.accounts.RevokeApiKey(request, metadata=ADMIN)
    clock.advance(60)
    assert await service.accounts.RevokeApiKey(request, metadata=ADMIN) == first


async def test_an_expired_key_is_refused(service: BillingUnderTest, customer: Customer, clock: ManualClock) -> None:
    request = pb.CreateApiKeyRequest(account_id=customer.account_id)
    request.expire_time.FromMicroseconds(clock.now_us() + DAY_US)
    created = await service.accounts.CreateApiKey(request, metadata=ADMIN)
    assert (await service.authenticate(created.secret)).expire_time == request.expire_time
    clock.advance_us(DAY_US)
    assert await reason_of(service.authenticate(created.secret)) == "API_KEY_EXPIRED"


async def test_a_key_cannot_expire_in_the_past(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    request = pb.CreateApiKeyRequest(account_id=customer.account_id)
    request.expire_time.FromMicroseconds(clock.now_us())
    _, error = await failure_of(service.accounts.CreateApiKey(request, metadata=ADMIN))
    assert [violation.field for violation in error.violations] == ["expire_time"]


async def test_another_accounts_key_is_not_found(service: BillingUnderTest, customer: Customer) -> None:
    other = await service.new_customer()
    request = pb.RevokeApiKeyRequest(api_key_id=customer.api_key_id)
    assert await reason_of(service.accounts.RevokeApiKey(request, metadata=other.metadata)) == "API_KEY_NOT_FOUND"
    assert (await service.authenticate(customer.secret)).account_id == customer.account_id


async def test_a_customer_makes_and_lists_keys_of_its_own(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    clock.advance(1)
    request = pb.CreateApiKeyRequest(display_name="mobile")
    created = await service.accounts.CreateApiKey(request, metadata=customer.metadata)
    assert created.api_key.account_id == customer.account_id
    await service.new_customer()
    listed = await service.accounts.ListApiKeys(pb.ListApiKeysRequest(), metadata=customer.metadata)
    assert [key.api_key_id for key in listed.api_keys] == [created.api_key.api_key_id, customer.api_key_id]


async def test_revoked_and_expired_keys_are_listed_on_request(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    expiring = pb.CreateApiKeyRequest(account_id=customer.account_id)
    expiring.expire_time.FromMicroseconds(clock.now_us() + 1)
    await service.accounts.CreateApiKey(expiring, metadata=ADMIN)
    revoked = await service.new_key(customer.account_id)
    await service.accounts.RevokeApiKey(
        pb.RevokeApiKeyRequest(api_key_id=revoked.api_key_id), metadata=revoked.metadata
    )
    clock.advance(1)
    active = await service.accounts.ListApiKeys(pb.ListApiKeysRequest(), metadata=customer.metadata)
    assert [key.api_key_id for key in active.api_keys] == [customer.api_key_id]
    every = await service.accounts.ListApiKeys(pb.ListApiKeysRequest(include_inactive=True), metadata=customer.metadata)
    assert sorted(key.state for key in every.api_keys) == [
        pb.API_KEY_STATE_ACTIVE,
        pb.API_KEY_STATE_REVOKED,
        pb.API_KEY_STATE_EXPIRED,
    ]


async def test_the_number_of_active_keys_is_bounded(service: BillingUnderTest, customer: Customer) -> None:
    keys = [await service.new_key(customer.account_id) for _ in range(ACTIVE_KEYS_MAX - 1)]
    request = pb.CreateApiKeyRequest()
    call = service.accounts.CreateApiKey(request, metadata=customer.metadata)
    assert await reason_of(call) == "API_KEY_LIMIT_EXCEEDED"
    revoke = pb.RevokeApiKeyRequest(api_key_id=keys[0].api_key_id)
    await service.accounts.RevokeApiKey(revoke, metadata=customer.metadata)
    await service.accounts.CreateApiKey(request, metadata=customer.metadata)


async def test_the_database_holds_neither_keys_nor_pepper(settings: BillingSettings, clock: ManualClock) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer()
        await service.authenticate(customer.secret)
    content = everything_in(settings.billing_database)
    assert customer.api_key_id.encode() in content, "the dump is of this account"
    secret_part = customer.secret[len("fs_") + 16 :]
    for canary in (customer.secret, secret_part, secret_part[:20], PEPPER):
        assert canary.encode() not in content


async def test_when_a_key_was_last_used_survives_a_restart(settings: BillingSettings, clock: ManualClock) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer()
        clock.advance(90)
        await service.authenticate(customer.secret)
        used_us = clock.now_us()
    async with billing(settings, clock) as service:
        request = pb.ListApiKeysRequest(account_id=customer.account_id)
        listed = await service.accounts.ListApiKeys(request, metadata=ADMIN)
        assert listed.api_keys[0].last_use_time.ToMicroseconds() == used_us


async def test_no_log_line_holds_a_key(settings: BillingSettings, clock: ManualClock) -> None:
    with structlog.testing.capture_logs() as lines:
        async with billing(settings, clock) as service:
            customer = await service.new_customer()
            await service.authenticate(customer.secret)
            changed = customer.secret[:-1] + ("0" if customer.secret[-1] != "0" else "1")
            await reason_of(service.authenticate(changed))
            await service.accounts.GetAccount(pb.GetAccountRequest(), metadata=customer.metadata)
            await reason_of(service.accounts.ListAccounts(pb.ListAccountsRequest(), metadata=customer.metadata))
    assert len(lines) > 5
    for canary in (customer.secret, customer.secret[19:-1], PEPPER, ADMIN_TOKEN, INTERNAL_TOKEN):
        assert canary not in repr(lines)
