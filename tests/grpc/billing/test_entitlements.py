"""Entitlements reach quota: at once, when it is back, and again when its store was replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb

from services.billing.config import BillingSettings
from services.shared.clock import SystemClock
from tests.support.billing import ADMIN, BillingUnderTest, billing, reason_of, settings_for
from tests.support.fake_quota_events import FakeQuotaEvents


@pytest.fixture
async def quota() -> AsyncIterator[FakeQuotaEvents]:
    """On the machine's clock, by which the attempts after a failure are made."""
    fake = FakeQuotaEvents(SystemClock().now_us)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def settings(tmp_path: Path, quota: FakeQuotaEvents) -> BillingSettings:
    return settings_for(tmp_path, quota.address)


@pytest.fixture
async def service(settings: BillingSettings) -> AsyncIterator[BillingUnderTest]:
    async with billing(settings, SystemClock()) as running:
        yield running


async def subscription_of(service: BillingUnderTest, account_id: str) -> pb.Subscription:
    request = pb.GetSubscriptionRequest(account_id=account_id)
    response: pb.GetSubscriptionResponse = await service.subscriptions.GetSubscription(request, metadata=ADMIN)
    return response.subscription


async def test_a_new_account_can_be_used_at_once(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    created = await service.open_account("hobbyist")
    assert created.entitlement_applied
    entitlement = quota.entitlements[created.account.account_id]
    (term,) = entitlement.terms
    assert entitlement.revision == 1 == created.subscription.entitlement_revision
    assert entitlement.subscription_id == created.subscription.subscription_id
    assert entitlement.period_anchor_time == term.effective_time == created.subscription.anchor_time
    assert (term.plan_id, term.session_limit, list(term.managed_providers)) == ("hobbyist", 200, ["bedrock"])
    assert (term.max_concurrent_sessions, term.max_output_tokens, term.max_tool_rounds) == (50, 8192, 25)
    assert term.upgrade_plan_id == "starter"
    assert not entitlement.HasField("end_time")


async def test_an_account_made_while_quota_fails_is_entitled_later(
    service: BillingUnderTest, quota: FakeQuotaEvents
) -> None:
    await quota.set_unavailable(True)
    created = await service.open_account("starter")
    account_id = created.account.account_id
    assert not created.entitlement_applied
    assert not (await subscription_of(service, account_id)).entitlement_applied
    await quota.set_unavailable(False)
    await quota.until(lambda: account_id in quota.entitlements)
    assert quota.entitlements[account_id].terms[0].session_limit == 1000


async def test_an_entitlement_survives_a_restart_of_billing(settings: BillingSettings, quota: FakeQuotaEvents) -> None:
    await quota.set_unavailable(True)
    async with billing(settings, SystemClock()) as service:
        account_id = (await service.open_account(request_id="r")).account.account_id
    await quota.set_unavailable(False)
    async with billing(settings, SystemClock()) as service:
        await quota.until(lambda: account_id in quota.entitlements)
        # Its repeat says how far it has come since.
        assert (await service.open_account(request_id="r")).entitlement_applied


async def test_billing_starts_before_quota_and_catches_up(settings: BillingSettings, quota: FakeQuotaEvents) -> None:
    await quota.stop()
    async with billing(settings, SystemClock()) as service:
        created = await service.open_account()
        assert not created.entitlement_applied
        await quota.restart()
        await quota.until(lambda: created.account.account_id in quota.entitlements)
        await quota.resolve(created.account.account_id, "ses_1")
        await quota.drained()


async def test_what_quota_has_is_not_sent_again(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    first = (await service.open_account()).account.account_id
    second = (await service.open_account()).account.account_id
    assert (await subscription_of(service, first)).entitlement_applied
    revisions = {(put.account_id, put.revision) for put in quota.puts}
    assert revisions == {(first, 1), (second, 1)}


async def test_a_revision_below_quotas_is_raised(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    await quota.set_unavailable(True)
    created = await service.open_account()
    account_id = created.account.account_id
    # What quota has is of a database of billing's that was newer than this one.
    quota.entitlements[account_id] = quota_pb.Entitlement(account_id=account_id, revision=7)
    await quota.set_unavailable(False)
    await quota.until(lambda: quota.entitlements[account_id].revision == 8)
    assert quota.entitlements[account_id].terms[0].plan_id == "free"


async def test_a_replaced_store_gets_every_entitlement_again(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    accounts = [(await service.open_account()).account.account_id for _ in range(3)]
    await quota.resolve(accounts[0], "ses_1")
    await quota.drained()
    await quota.replace_store()
    await quota.until(lambda: set(quota.entitlements) == set(accounts))


async def test_a_store_that_lost_an_entitlement_gets_it_again(
    service: BillingUnderTest, quota: FakeQuotaEvents
) -> None:
    account_id = (await service.open_account()).account.account_id
    quota.entitlements.clear()
    request = usage_pb.GetUsageRequest(account_id=account_id)
    assert await reason_of(service.usage.GetUsage(request, metadata=ADMIN)) == "ENTITLEMENT_MISSING"
    await quota.until(lambda: account_id in quota.entitlements)
    await service.usage.GetUsage(request, metadata=ADMIN)
