"""WatchUsage: at once, after each change, and one upstream for all who watch an account."""

from __future__ import annotations

import asyncio
from typing import Any

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from services.billing.config import BillingSettings
from tests.support.billing import ADMIN, BillingUnderTest, Customer, billing, failure_of
from tests.support.clock import ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents


async def until_used(call: Any, used: int) -> pb.Usage:
    """Reads until so many sessions are used."""
    async with asyncio.timeout(20):
        while True:
            usage: pb.Usage = (await call.read()).usage
            if usage.sessions_used == used:
                return usage


async def test_many_watchers_share_one_watch_at_quota(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    calls = [
        service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata),
        *(
            service.usage.WatchUsage(pb.WatchUsageRequest(account_id=customer.account_id), metadata=ADMIN)
            for _ in range(20)
        ),
    ]
    for call in calls:
        await until_used(call, 0)
    await quota.resolve(customer.account_id, "ses_1")
    for call in calls:
        usage = await until_used(call, 1)
        assert usage.sessions_remaining == 999
    assert (quota.watches, quota.watching) == (1, 1)
    for call in calls:
        call.cancel()
    async with asyncio.timeout(20):
        await quota.until(lambda: quota.watching == 0)
    again = service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata)
    await until_used(again, 1)
    assert quota.watches == 2
    again.cancel()


async def test_the_stream_ends_when_quota_goes(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    call = service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata)
    await until_used(call, 0)
    await quota.set_unavailable(True)
    async with asyncio.timeout(20):
        _, error = await failure_of(call)
    assert error.reason.value == "QUOTA_UNAVAILABLE"
    await quota.set_unavailable(False)
    await until_used(service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata), 0)


async def test_the_stream_ends_when_billing_drains(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("starter")
        call = service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata)
        await until_used(call, 0)
        reading = asyncio.create_task(failure_of(call))
        await asyncio.sleep(0)
    _, error = await reading
    assert error.reason.value == "SHUTTING_DOWN"


async def test_an_unknown_account(service: BillingUnderTest) -> None:
    call = service.usage.WatchUsage(pb.WatchUsageRequest(account_id="acct_none"), metadata=ADMIN)
    assert (await failure_of(call))[1].reason.value == "ACCOUNT_NOT_FOUND"
