"""GetUsage, ListPlans and GetSubscription as a customer sees them."""

from __future__ import annotations

import pytest
from flowstack_protos.billing.v1 import plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from tests.support.billing import ADMIN, BillingUnderTest, Customer, failure_of, reason_of
from tests.support.clock import DAY_US, HOUR_US, ManualClock, us
from tests.support.fake_quota_events import BYOK, MANAGED, RELEASED, FakeQuotaEvents


async def usage_of(service: BillingUnderTest, customer: Customer) -> pb.Usage:
    response: pb.GetUsageResponse = await service.usage.GetUsage(pb.GetUsageRequest(), metadata=customer.metadata)
    return response.usage


async def test_usage_of_a_fresh_account(service: BillingUnderTest, customer: Customer, clock: ManualClock) -> None:
    usage = await usage_of(service, customer)
    assert usage.account_id == customer.account_id
    assert usage.plan_id == "starter"
    assert usage.period_start_time.ToMicroseconds() == clock.now_us()
    assert usage.period_end_time.ToMicroseconds() == us(2026, 4, 10, 12)
    assert (usage.sessions_used, usage.sessions_limit, usage.sessions_remaining) == (0, 1000, 1000)
    assert usage.usage_percentage == 0
    assert usage.can_make_requests
    assert usage.can_use_managed
    assert usage.days_left == 31
    # The fee of the period is due in advance.
    assert (usage.current_charges.currency_code, usage.current_charges.units) == ("USD", 50)
    assert usage.estimated_monthly_cost == usage.current_charges
    assert usage.costs_as_of_time.ToMicroseconds() == clock.now_us()
    assert not usage.HasField("budget")


async def test_the_free_plan_costs_nothing_and_has_nothing_managed(service: BillingUnderTest) -> None:
    usage = await usage_of(service, await service.new_customer())
    assert not usage.can_use_managed
    assert (usage.current_charges.currency_code, usage.current_charges.units) == ("USD", 0)


async def test_a_finished_session_is_in_the_next_read(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    await quota.resolve(customer.account_id, "ses_1", mode=MANAGED)
    await quota.resolve(customer.account_id, "ses_2", mode=BYOK)
    usage = await usage_of(service, customer)
    assert (usage.sessions_used, usage.managed_sessions, usage.byok_sessions) == (2, 1, 1)
    assert usage.usage_percentage == 0.2


async def test_today_begins_at_midnight_utc(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    midnight_us = us(2026, 3, 11)
    clock.advance_us(midnight_us + HOUR_US - clock.now_us())
    await quota.resolve(customer.account_id, "ses_1", reserve_us=midnight_us - 1)
    await quota.resolve(customer.account_id, "ses_2", reserve_us=midnight_us)
    await quota.resolve(customer.account_id, "ses_3", RELEASED, reserve_us=midnight_us + 1)
    await quota.drained()
    usage = await usage_of(service, customer)
    assert (usage.sessions_used, usage.sessions_used_today) == (2, 1)


async def test_sessions_of_today_in_the_last_period_count_as_todays(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    # The anchor is at noon: the morning of the tenth belongs to the period before.
    clock.advance_us(us(2026, 4, 10, 13) - clock.now_us())
    await quota.resolve(customer.account_id, "ses_1", reserve_us=us(2026, 4, 10, 11))
    await quota.resolve(customer.account_id, "ses_2", reserve_us=us(2026, 4, 10, 12))
    await quota.drained()
    usage = await usage_of(service, customer)
    assert (usage.sessions_used, usage.sessions_used_today, usage.unpriced_sessions) == (1, 2, 1)


async def test_own_keys_are_unpriced_and_money_says_as_of_when(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    await quota.resolve(customer.account_id, "ses_1", mode=BYOK)
    await quota.resolve(customer.account_id, "ses_2", mode=MANAGED)
    clock.advance(60)
    await quota.resolve(customer.account_id, "ses_3", mode=BYOK)
    await quota.drained()
    as_of_us = clock.now_us()
    clock.advance(1)
    usage = await usage_of(service, customer)
    assert usage.unpriced_sessions == 2
    assert usage.costs_as_of_time.ToMicroseconds() == as_of_us


async def test_near_the_limit_and_at_it(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    customer = await service.new_customer("free")
    for number in range(19):
        await quota.resolve(customer.account_id, f"ses_{number}")
    assert not (await usage_of(service, customer)).is_near_limit
    await quota.resolve(customer.account_id, "ses_19")
    usage = await usage_of(service, customer)
    assert (usage.usage_percentage, usage.is_near_limit) == (80, True)
    for number in range(20, 25):
        await quota.resolve(customer.account_id, f"ses_{number}")
    usage = await usage_of(service, customer)
    assert (usage.sessions_remaining, usage.can_make_requests) == (0, False)
    assert usage.refusal_reason == "SESSION_QUOTA_EXCEEDED"


async def test_counts_are_never_answered_from_memory(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    await usage_of(service, customer)
    await quota.set_unavailable(True)
    assert await reason_of(usage_of(service, customer)) == "QUOTA_UNAVAILABLE"


async def test_days_are_rounded_up(service: BillingUnderTest, customer: Customer, clock: ManualClock) -> None:
    clock.advance_us(31 * DAY_US - 1)
    assert (await usage_of(service, customer)).days_left == 1


async def test_an_admin_reads_any_account_and_has_to_name_it(service: BillingUnderTest, customer: Customer) -> None:
    request = pb.GetUsageRequest(account_id=customer.account_id)
    assert (await service.usage.GetUsage(request, metadata=ADMIN)).usage.account_id == customer.account_id
    _, error = await failure_of(service.usage.GetUsage(pb.GetUsageRequest(), metadata=ADMIN))
    assert [violation.field for violation in error.violations] == ["account_id"]


async def test_the_catalogue_is_listed_cheapest_first(service: BillingUnderTest, customer: Customer) -> None:
    request = subscription_pb.ListPlansRequest()
    listed = await service.subscriptions.ListPlans(request, metadata=customer.metadata)
    table = [(p.plan_id, p.price.units, p.session_limit, p.max_concurrent_sessions) for p in listed.plans]
    assert table == [
        ("free", 0, 25, 25),
        ("hobbyist", 15, 200, 50),
        ("starter", 50, 1000, 100),
        ("professional", 200, 5000, 500),
        ("enterprise", 0, 25000, 0),
    ]
    free, *_, enterprise = listed.plans
    assert free.byok_requirement == plan_pb2.BYOK_REQUIREMENT_REQUIRED
    assert free.HasField("price")
    assert not enterprise.HasField("price")
    assert enterprise.contact_sales
    (offer,) = listed.offers
    assert (offer.offer_id, offer.price.units, offer.session_limit) == ("volume-10k", 99, 10000)


async def test_the_catalogue_has_pages(service: BillingUnderTest, customer: Customer) -> None:
    found, offers, token = [], [], ""
    while True:
        request = subscription_pb.ListPlansRequest(page_size=2, page_token=token)
        page = await service.subscriptions.ListPlans(request, metadata=customer.metadata)
        found.append([plan.plan_id for plan in page.plans])
        offers.append(len(page.offers))
        token = page.next_page_token
        if not token:
            break
    assert found == [["free", "hobbyist"], ["starter", "professional"], ["enterprise"]]
    assert offers == [1, 0, 0]


async def test_a_subscription_comes_with_its_plan_and_history(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    request = subscription_pb.GetSubscriptionRequest()
    answer = await service.subscriptions.GetSubscription(request, metadata=customer.metadata)
    subscription = answer.subscription
    assert subscription.state == subscription_pb.SUBSCRIPTION_STATE_ACTIVE
    assert (subscription.plan_id, subscription.plan_version) == ("starter", 1)
    assert subscription.terms.price.units == 50
    assert (subscription.entitlement_revision, subscription.entitlement_applied) == (1, True)
    assert answer.plan.plan_id == "starter"
    (change,) = answer.changes
    assert change.kind == subscription_pb.CHANGE_KIND_START
    assert change.state == subscription_pb.CHANGE_STATE_APPLIED
    assert change.to_terms == subscription.terms
    assert not change.HasField("from_terms")
    assert change.amount.units == 50


@pytest.mark.parametrize(("days", "month"), [(28, 3), (32, 4)])
async def test_periods_are_counted_from_the_anchor(
    service: BillingUnderTest, customer: Customer, clock: ManualClock, days: int, month: int
) -> None:
    clock.advance_us(days * DAY_US)
    request = subscription_pb.GetSubscriptionRequest()
    answer = await service.subscriptions.GetSubscription(request, metadata=customer.metadata)
    assert answer.subscription.period_start_time.ToMicroseconds() == us(2026, month, 10, 12)
    assert answer.subscription.period_end_time.ToMicroseconds() == us(2026, month + 1, 10, 12)
