"""WatchUsage: at once, after each change, and one upstream for all who watch an account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from flowstack_protos.billing.v1 import alert_service_pb2 as alert_pb
from flowstack_protos.billing.v1 import budget_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoice_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from services.billing.__main__ import running
from services.billing.config import BillingSettings
from tests.support.billing import ADMIN, QUICK, BillingUnderTest, Customer, failure_of
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


async def until(call: Any, is_so: Callable[[pb.Usage], bool]) -> pb.Usage:
    """Reads until usage is as it is to be."""
    async with asyncio.timeout(20):
        while True:
            usage: pb.Usage = (await call.read()).usage
            if is_so(usage):
                return usage


async def test_what_quota_does_not_see_is_pushed_too(service: BillingUnderTest, customer: Customer) -> None:
    call = service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata)
    before = await until_used(call, 0)
    assert not before.HasField("budget")
    money = Money(currency_code="USD", units=500)
    budget = budget_pb2.Budget(max_monthly_cost=money, action=budget_pb2.BUDGET_ACTION_WARN)
    request = alert_pb.UpdateAlertSettingsRequest(
        alert_settings=alert_pb.AlertSettings(budget=budget), update_mask=FieldMask(paths=["budget"])
    )
    await service.alerts.UpdateAlertSettings(request, metadata=customer.metadata)
    after = await until(call, lambda usage: usage.HasField("budget"))
    assert after.budget.budget.max_monthly_cost == money
    invoices = await service.invoices.ListInvoices(invoice_pb.ListInvoicesRequest(), metadata=customer.metadata)
    credit = invoice_pb.CreateCreditNoteRequest(
        account_id=customer.account_id,
        invoice_id=invoices.invoices[0].invoice_id,
        lines=[invoice_pb.CreditNoteLineInput(line_number=1, amount=Money(currency_code="USD", units=1))],
        reason="An apology.",
        request_id="apology",
    )
    await service.invoices.CreateCreditNote(credit, metadata=ADMIN)
    await until(call, lambda usage: usage.current_charges.units == before.current_charges.units - 1)
    call.cancel()


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
    async with running(settings, clock, QUICK) as host:
        await host.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{host.bound_ports[0]}") as channel:
            service = BillingUnderTest(channel, channel)
            customer = await service.new_customer("starter")
            call = service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata)
            await until_used(call, 0)
            await host.drain(10)
            assert (await failure_of(call))[1].reason.value == "SHUTTING_DOWN"


async def test_an_unknown_account(service: BillingUnderTest) -> None:
    call = service.usage.WatchUsage(pb.WatchUsageRequest(account_id="acct_none"), metadata=ADMIN)
    assert (await failure_of(call))[1].reason.value == "ACCOUNT_NOT_FOUND"
