"""A year of a customer's life, by a clock that is moved by hand: what it does, what it may, what it pays."""

from __future__ import annotations

from itertools import pairwise

from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb

from tests.support.billing import ADMIN, BillingUnderTest, Customer
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.fake_quota_events import MANAGED, FakeQuotaEvents
from tests.support.plans import Desk, amount_of, stamp

FEE, UPGRADE = invoice_pb2.INVOICE_KIND_PERIOD_FEE, invoice_pb2.INVOICE_KIND_UPGRADE
STATEMENT = invoice_pb2.INVOICE_KIND_USAGE_STATEMENT


class Life:
    """The customer, its calendar, and quota's view of it."""

    def __init__(self, service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock):
        self.desk = Desk(service, customer)
        self.quota = quota
        self.clock = clock
        self.sessions = 0

    async def comes(self, month: int, day: int, *time: int, year: int = 2026) -> None:
        """Time passes; everybody pays on time, unless told otherwise."""
        self.clock.advance_us(us(year, month, day, *time) - self.clock.now_us())
        await self.desk.view()

    async def runs(self, count: int) -> None:
        """Sessions run and are booked."""
        for _ in range(count):
            self.sessions += 1
            await self.quota.resolve(self.desk.account_id, f"ses_{self.sessions:04}", mode=MANAGED)
        await self.quota.drained()

    async def limit(self) -> int:
        """How many sessions the period allows, as quota has it."""
        now = stamp(self.clock.now_us()).ToMicroseconds()
        terms = self.quota.entitlements[self.desk.account_id].terms
        return [term.session_limit for term in terms if term.effective_time.ToMicroseconds() <= now][-1]

    async def charges(self) -> float:
        """GetUsage's current_charges."""
        request = usage_pb.GetUsageRequest()
        answer = await self.desk.service.usage.GetUsage(request, metadata=self.desk.customer.metadata)
        return amount_of(answer.usage.current_charges)


async def test_a_year_of_a_customers_life(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    # 10 March: Ada opens an account and tries the free plan.
    life = Life(service, await service.new_customer("free"), quota, clock)
    desk = life.desk
    assert (await life.limit(), await life.charges()) == (25, 0)
    await life.runs(20)

    # 31 March: it is good. The first paid plan begins a subscription of its own, with its own anchor and fee.
    await life.comes(3, 31, 9)
    started = await desk.change("hobbyist")
    assert started.change.kind == pb.CHANGE_KIND_START
    assert (await life.limit(), await life.charges()) == (200, 15)
    await desk.pay_all()

    # 12 April: more is needed at once. The whole difference is invoiced, and the anchor stays.
    await life.comes(4, 12)
    upgraded = await desk.change("starter")
    assert (upgraded.change.kind, amount_of(upgraded.invoice.total)) == (pb.CHANGE_KIND_UPGRADE, 35)
    assert upgraded.subscription.anchor_time.ToMicroseconds() == us(2026, 3, 31, 9)
    assert (await life.limit(), await life.charges()) == (1000, 50)
    await life.runs(30)
    await desk.pay_all()

    # 30 April, because April has no 31st: the next period, in advance, without anybody's call.
    await life.comes(4, 30, 9)
    assert await life.charges() == 50
    await desk.pay_all()

    # 5 May: a quiet summer is ahead. The downgrade waits for the period's end, and is thought better of once.
    await life.comes(5, 5)
    waiting = await desk.change("hobbyist")
    assert waiting.change.effective_time.ToMicroseconds() == us(2026, 5, 31, 9)
    await desk.revert()
    await desk.change("hobbyist")
    assert await life.limit() == 1000
    await life.comes(5, 31, 9)
    assert (await life.limit(), await life.charges()) == (200, 15)
    await desk.pay_all()

    # 2 July: the fee of 30 June is forgotten. Two weeks to pay, two weeks of grace, then no new sessions.
    await life.comes(6, 30, 9)
    await life.comes(7, 28, 9)
    assert (await desk.view()).subscription.payment_overdue
    await quota.until(lambda: quota.entitlements[desk.account_id].HasField("block"))
    await desk.pay_all()
    assert not quota.entitlements[desk.account_id].HasField("block")

    # 31 July and August go by, then Ada signs for ten thousand sessions from 15 September on.
    await life.comes(7, 31, 9)
    await desk.pay_all()
    await life.comes(8, 31, 9)
    await desk.pay_all()
    await desk.contract(pb.Contract(offer_id="volume-10k", effective_time=stamp(us(2026, 9, 15))))
    assert await life.limit() == 200
    await life.comes(9, 15)
    assert (await life.limit(), await life.charges()) == (10_000, 99)
    await life.runs(50)
    await desk.pay_all()

    # 30 September: an outage of ours in the month, and a credit of ten dollars for it.
    await life.comes(9, 30, 9)
    (october,) = await desk.invoices(states=[invoice_pb2.INVOICE_STATE_OPEN])
    credited = await desk.credit(october.invoice_id, 10, "outage of 24 September")
    assert (amount_of(credited.invoice.amount_due), await life.charges()) == (89, 89)
    await desk.pay_all()

    # 3 November: the contract is ended with December; nobody calls any more until the winter is over.
    await life.comes(11, 3)
    await desk.pay_all()
    await desk.contract(pb.Contract(offer_id="volume-10k", end_time=stamp(us(2026, 12, 31, 9))))
    await life.comes(1, 20, year=2027)
    await life.runs(1)
    await desk.pay_all()
    # The contract's plan holds again since, at its own price.
    assert (await life.limit(), await life.charges()) == (5000, 200)

    # 28 February: the end. Service goes on until the period's end, and no longer.
    await life.comes(2, 5, year=2027)
    await desk.pay_all()
    ending = await desk.cancel(reason="the project is over")
    assert ending.change.effective_time.ToMicroseconds() == us(2027, 2, 28, 9)
    await life.comes(3, 10, year=2027)
    assert (await desk.view()).subscription.state == pb.SUBSCRIPTION_STATE_ENDED

    # The year in its books: every invoice explains itself, adds up, and has its number.
    invoices = await desk.invoices()
    charged = [(one.kind, amount_of(one.total)) for one in invoices if one.kind != STATEMENT]
    assert charged == [
        (FEE, 15), (UPGRADE, 35), (FEE, 50), (FEE, 15), (FEE, 15), (FEE, 15), (FEE, 15), (UPGRADE, 84), (FEE, 99),
        (FEE, 99), (FEE, 99), (FEE, 200), (FEE, 200),
    ]  # fmt: skip
    assert [one.sequence_number for one in invoices] == list(range(1, len(invoices) + 1))
    assert {one.state for one in invoices} == {invoice_pb2.INVOICE_STATE_PAID}
    for one in invoices:
        assert amount_of(one.total) == sum(amount_of(line.amount) for line in one.lines)
    fees = [one for one in invoices if one.kind == FEE]
    for earlier, later in pairwise(fees):
        assert earlier.period_end_time == later.period_start_time
    stated = {
        one.period_start_time.ToDatetime().strftime("%d %B"): sum(line.quantity for line in one.lines)
        for one in invoices
        if one.kind == STATEMENT
    }
    # Each period that had sessions is stated once; the last one only when quota's watermark passes its end.
    assert stated == {"10 March": 20, "31 March": 30, "31 August": 50}

    # And the audit log knows who did it all.
    actions = {event.action for event in await desk.audit()}
    assert actions >= {
        "SubscriptionService.ChangePlan", "SubscriptionService.RevertPendingChange", "SubscriptionService.PutContract",
        "SubscriptionService.CancelSubscription", "InvoiceService.MarkInvoicePaid", "InvoiceService.CreateCreditNote",
        "renewal", "end of grace",
    }  # fmt: skip

    # At last the account is deleted, and after thirty days only its pseudonym is left in the books.
    request = account_pb.DeleteAccountRequest(account_id=desk.account_id)
    await service.accounts.DeleteAccount(request, metadata=ADMIN)
    clock.advance_us(30 * DAY_US)
    while any(one.customer_name for one in await desk.invoices()):
        pass
    assert sum(amount_of(one.total) for one in await desk.invoices()) == sum(amount for _, amount in charged)
