"""RotateApiKey: the old key and the new one, side by side until the overlap ends."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as pb
from flowstack_protos.billing.v1 import audit_service_pb2 as audit_pb
from google.protobuf.duration_pb2 import Duration

from services.billing.config import BillingSettings
from services.billing.domain.api_keys import ACTIVE_KEYS_MAX
from services.shared.times import time_to_proto
from tests.support.billing import ADMIN, BillingUnderTest, Customer, bearer, billing, failure_of, reason_of
from tests.support.clock import DAY_US, ManualClock
from tests.support.database import everything_in

HOUR_US = 3_600_000_000


def hours(number: float) -> Duration:
    return Duration(seconds=int(number * 3_600))


async def rotate(service: BillingUnderTest, customer: Customer, **fields: object) -> pb.RotateApiKeyResponse:
    request = pb.RotateApiKeyRequest(api_key_id=customer.api_key_id, **fields)  # type: ignore[arg-type]
    response: pb.RotateApiKeyResponse = await service.accounts.RotateApiKey(request, metadata=customer.metadata)
    return response


def holder_of(rotated: pb.RotateApiKeyResponse) -> Customer:
    return Customer(rotated.api_key.account_id, rotated.api_key.api_key_id, rotated.secret)


async def test_both_keys_are_valid_until_the_overlap_ends(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    rotated = await rotate(service, customer, overlap=hours(2))
    end_us = clock.now_us() + 2 * HOUR_US
    assert rotated.previous_api_key.expire_time == time_to_proto(end_us)
    clock.advance_us(2 * HOUR_US - 1)
    # A router that caches the answer is told how long it may.
    old = await service.authenticate(customer.secret)
    assert (old.api_key_id, old.expire_time) == (customer.api_key_id, time_to_proto(end_us))
    new = await service.authenticate(rotated.secret)
    assert (new.account_id, new.api_key_id) == (customer.account_id, rotated.api_key.api_key_id)
    clock.advance_us(1)
    assert await reason_of(service.authenticate(customer.secret)) == "API_KEY_EXPIRED"
    call = service.accounts.GetAccount(pb.GetAccountRequest(), metadata=customer.metadata)
    assert await reason_of(call) == "API_KEY_EXPIRED"
    await service.accounts.GetAccount(pb.GetAccountRequest(), metadata=bearer(rotated.secret))


async def test_the_keys_name_each_other_and_the_new_one_takes_the_name_over(
    service: BillingUnderTest, clock: ManualClock
) -> None:
    account_id = (await service.open_account()).account.account_id
    customer = await service.new_key(account_id, display_name="mobile")
    clock.advance(60)
    rotated = await rotate(service, customer)
    new, old = rotated.api_key, rotated.previous_api_key
    assert (new.display_name, new.state, new.account_id) == ("mobile", pb.API_KEY_STATE_ACTIVE, account_id)
    assert new.create_time == time_to_proto(clock.now_us())
    assert not new.HasField("expire_time")
    assert (old.state, old.expire_time) == (pb.API_KEY_STATE_ROTATING, time_to_proto(clock.now_us() + DAY_US))
    assert (old.rotated_to_api_key_id, new.rotated_from_api_key_id) == (new.api_key_id, old.api_key_id)
    listed = await service.accounts.ListApiKeys(pb.ListApiKeysRequest(), metadata=customer.metadata)
    listed.api_keys[1].ClearField("last_use_time")
    assert list(listed.api_keys) == [new, old]


async def test_without_overlap_the_old_key_ends_at_once(service: BillingUnderTest, customer: Customer) -> None:
    rotated = await rotate(service, customer, overlap=hours(0))
    assert rotated.previous_api_key.state == pb.API_KEY_STATE_EXPIRED
    assert await reason_of(service.authenticate(customer.secret)) == "API_KEY_EXPIRED"
    await service.authenticate(rotated.secret)


async def test_the_old_key_never_outlives_its_own_expiry(service: BillingUnderTest, clock: ManualClock) -> None:
    account_id = (await service.open_account()).account.account_id
    expire_time = time_to_proto(clock.now_us() + HOUR_US)
    customer = await service.new_key(account_id, expire_time=expire_time)
    later = time_to_proto(clock.now_us() + 3 * HOUR_US)
    rotated = await rotate(service, customer, overlap=hours(2), expire_time=later)
    assert rotated.previous_api_key.expire_time == expire_time
    assert rotated.api_key.expire_time == later
    clock.advance_us(HOUR_US)
    assert await reason_of(service.authenticate(customer.secret)) == "API_KEY_EXPIRED"
    clock.advance_us(2 * HOUR_US)
    assert await reason_of(service.authenticate(rotated.secret)) == "API_KEY_EXPIRED"


async def test_a_key_in_its_overlap_can_be_revoked(service: BillingUnderTest, customer: Customer) -> None:
    rotated = await rotate(service, customer)
    revoke = pb.RevokeApiKeyRequest(api_key_id=customer.api_key_id)
    await service.accounts.RevokeApiKey(revoke, metadata=bearer(rotated.secret))
    assert await reason_of(service.authenticate(customer.secret)) == "API_KEY_REVOKED"
    await service.authenticate(rotated.secret)


async def test_a_key_is_rotated_once_and_its_successor_next(service: BillingUnderTest, customer: Customer) -> None:
    second = holder_of(await rotate(service, customer))
    code, error = await failure_of(rotate(service, customer))
    assert (code, error.reason.value) == (grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_NOT_ACTIVE")
    assert "successor" in error.message
    third = holder_of(await rotate(service, second))
    for secret in (customer.secret, second.secret, third.secret):
        await service.authenticate(secret)


@pytest.mark.parametrize("state", ["revoked", "expired", "deleted"])
async def test_a_key_that_is_not_active_is_not_rotated(
    service: BillingUnderTest, clock: ManualClock, state: str
) -> None:
    account_id = (await service.open_account()).account.account_id
    customer = await service.new_key(account_id, expire_time=time_to_proto(clock.now_us() + HOUR_US))
    if state == "revoked":
        request = pb.RevokeApiKeyRequest(account_id=account_id, api_key_id=customer.api_key_id)
        await service.accounts.RevokeApiKey(request, metadata=ADMIN)
    elif state == "expired":
        clock.advance_us(HOUR_US)
    else:
        await service.accounts.DeleteAccount(pb.DeleteAccountRequest(account_id=account_id), metadata=ADMIN)
    rotation = pb.RotateApiKeyRequest(account_id=account_id, api_key_id=customer.api_key_id)
    assert await reason_of(service.accounts.RotateApiKey(rotation, metadata=ADMIN)) == "API_KEY_NOT_ACTIVE"
    every = pb.ListApiKeysRequest(account_id=account_id, include_inactive=True)
    assert len((await service.accounts.ListApiKeys(every, metadata=ADMIN)).api_keys) == 1


async def test_of_rotations_at_the_same_time_one_holds(service: BillingUnderTest, customer: Customer) -> None:
    answers = await asyncio.gather(*(rotate(service, customer) for _ in range(5)), return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, pb.RotateApiKeyResponse)]
    assert len(made) == 1
    listed = await service.accounts.ListApiKeys(pb.ListApiKeysRequest(), metadata=customer.metadata)
    assert {key.api_key_id for key in listed.api_keys} == {customer.api_key_id, made[0].api_key.api_key_id}


async def test_another_accounts_key_is_not_found(service: BillingUnderTest, customer: Customer) -> None:
    other = await service.new_customer()
    request = pb.RotateApiKeyRequest(api_key_id=customer.api_key_id)
    assert await reason_of(service.accounts.RotateApiKey(request, metadata=other.metadata)) == "API_KEY_NOT_FOUND"
    assert not (await service.authenticate(customer.secret)).HasField("expire_time")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"overlap": Duration(seconds=-1)}, "overlap"),
        ({"overlap": Duration(seconds=30 * 86_400, nanos=1)}, "overlap"),
        ({"expire_time": time_to_proto(1_000_000)}, "expire_time"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    service: BillingUnderTest, customer: Customer, fields: dict[str, object], named: str
) -> None:
    _, error = await failure_of(rotate(service, customer, **fields))
    assert [violation.field for violation in error.violations] == [named]
    assert not (await service.authenticate(customer.secret)).HasField("expire_time")


async def test_an_account_with_every_key_in_use_can_rotate(service: BillingUnderTest, customer: Customer) -> None:
    for _ in range(ACTIVE_KEYS_MAX - 1):
        await service.new_key(customer.account_id)
    await rotate(service, customer)
    call = service.accounts.CreateApiKey(pb.CreateApiKeyRequest(), metadata=customer.metadata)
    assert await reason_of(call) == "API_KEY_LIMIT_EXCEEDED"


async def test_a_rotation_is_in_the_audit_log(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    rotated = await rotate(service, customer, overlap=hours(1))
    request = audit_pb.ListAuditEventsRequest(actions=["AccountService.RotateApiKey"])
    events = (await service.audit.ListAuditEvents(request, metadata=customer.metadata)).audit_events
    assert [(event.resource_id, event.actor_id) for event in events] == [
        (rotated.api_key.api_key_id, customer.api_key_id),
        (customer.api_key_id, customer.api_key_id),
    ]
    changes = {change.field: (change.from_json, change.to_json) for change in events[1].changes}
    assert changes == {
        "expire_us": ("", str(clock.now_us() + HOUR_US)),
        "rotated_to": ("", f'"{rotated.api_key.api_key_id}"'),
    }
    assert rotated.secret[19:] not in str(events)


async def test_the_overlap_survives_a_restart_and_the_database_holds_neither_key(
    settings: BillingSettings, clock: ManualClock
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer()
        rotated = await rotate(service, customer, overlap=hours(1))
    content = everything_in(settings.billing_database)
    assert rotated.api_key.api_key_id.encode() in content, "the dump is of this account"
    for secret in (customer.secret, rotated.secret):
        assert secret[19:39].encode() not in content
    async with billing(settings, clock) as service:
        clock.advance_us(HOUR_US - 1)
        await service.authenticate(customer.secret)
        clock.advance_us(1)
        assert await reason_of(service.authenticate(customer.secret)) == "API_KEY_EXPIRED"
        await service.authenticate(rotated.secret)
