"""ChangePlan, CancelSubscription, RevertPendingChange and PutContract, on both stores."""

from __future__ import annotations

import asyncio

import pytest
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb

from tests.support.billing import ADMIN, BillingUnderTest, Customer, failure_of, reason_of
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.fake_quota_events import FakeQuotaEvents
from tests.support.plans import Desk, amount_of, dollars, stamp


@pytest.fixture
def desk(service: BillingUnderTest, customer: Customer) -> Desk:
    return Desk(service, customer)


async def charges_of(desk: Desk) -> float:
    answer = await desk.service.usage.GetUsage(usage_pb.GetUsageRequest(), metadata=desk.customer.metadata)
    return amount_of(answer.usage.current_charges)


async def test_an_upgrade_is_applied_invoiced_and_at_quota_when_the_call_returns(
    desk: Desk, quota: FakeQuotaEvents
) -> None:
    anchor = (await desk.view()).subscription.anchor_time
    answer = await desk.change("professional")
    assert answer.entitlement_applied
    assert (answer.change.kind, answer.change.state) == (pb.CHANGE_KIND_UPGRADE, pb.CHANGE_STATE_APPLIED)
    assert answer.subscription.terms.session_limit == 5000
    assert answer.subscription.anchor_time == anchor
    assert answer.invoice.kind == invoice_pb2.INVOICE_KIND_UPGRADE
    assert amount_of(answer.invoice.total) == amount_of(answer.change.amount) == 150
    assert answer.change.invoice_id == answer.invoice.invoice_id
    (line,) = answer.invoice.lines
    assert (line.kind, line.change_id) == (
        invoice_pb2.INVOICE_LINE_KIND_UPGRADE_DIFFERENCE,
        answer.change.change_id,
    )
    assert quota.entitlements[desk.account_id].terms[-1].session_limit == 5000
    assert await charges_of(desk) == 200
    assert [one.sequence_number for one in await desk.invoices()] == [1, 2]


async def test_a_downgrade_is_pending_at_quota_too_and_can_be_reverted(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    answer = await desk.change("hobbyist")
    assert answer.subscription.pending_change == answer.change
    assert answer.change.state == pb.CHANGE_STATE_PENDING
    assert answer.change.effective_time == answer.subscription.period_end_time
    assert not answer.HasField("invoice")
    now, later = quota.entitlements[desk.account_id].terms
    assert (now.session_limit, later.session_limit) == (1000, 200)
    assert later.effective_time == answer.change.effective_time
    reverted = await desk.revert()
    assert reverted.change.kind == pb.CHANGE_KIND_REVERT
    assert not reverted.subscription.HasField("pending_change")
    assert len(quota.entitlements[desk.account_id].terms) == 1
    states = [(change.kind, change.state) for change in (await desk.view()).changes]
    assert sorted(states) == sorted(
        [
            (pb.CHANGE_KIND_START, pb.CHANGE_STATE_APPLIED),
            (pb.CHANGE_KIND_DOWNGRADE, pb.CHANGE_STATE_DROPPED),
            (pb.CHANGE_KIND_REVERT, pb.CHANGE_STATE_APPLIED),
        ]
    )
    assert await reason_of(desk.revert()) == "NO_PENDING_CHANGE"


async def test_a_downgrade_comes_by_itself(desk: Desk, quota: FakeQuotaEvents, clock: ManualClock) -> None:
    await desk.change("hobbyist")
    clock.advance_us(us(2026, 4, 10, 12) - clock.now_us())
    await quota.until(lambda: len(quota.entitlements[desk.account_id].terms) == 1)
    view = await desk.view()
    assert view.subscription.plan_id == "hobbyist"
    assert {change.state for change in view.changes} == {pb.CHANGE_STATE_APPLIED}
    assert await desk.amounts() == [50, 15]
    account = await desk.service.open_account()
    assert account.account.plan_id == "free"


async def test_the_first_paid_plan_starts_a_subscription_of_its_own(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    desk = Desk(service, await service.new_customer("free"))
    before = (await desk.view()).subscription
    clock.advance_us(5 * DAY_US)
    answer = await desk.change("hobbyist")
    assert answer.change.kind == pb.CHANGE_KIND_START
    assert answer.subscription.subscription_id != before.subscription_id
    assert answer.subscription.anchor_time.ToMicroseconds() == clock.now_us()
    assert quota.entitlements[desk.account_id].subscription_id == answer.subscription.subscription_id
    assert answer.invoice.kind == invoice_pb2.INVOICE_KIND_PERIOD_FEE
    assert await charges_of(desk) == 15


async def test_a_cancellation_ends_service_with_the_period(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    answer = await desk.cancel(reason="too dear")
    assert answer.subscription.state == pb.SUBSCRIPTION_STATE_CANCELLING
    assert answer.subscription.pending_change.kind == pb.CHANGE_KIND_CANCELLATION
    assert quota.entitlements[desk.account_id].end_time == answer.change.effective_time
    again = await desk.cancel()
    assert (again.change, again.subscription.etag) == (answer.change, answer.subscription.etag)
    clock.advance_us(us(2026, 4, 10, 12) - clock.now_us())
    view = await desk.view()
    assert view.subscription.state == pb.SUBSCRIPTION_STATE_ENDED
    assert view.subscription.period_end_time == view.subscription.end_time
    assert await reason_of(desk.cancel()) == "SUBSCRIPTION_ENDED"
    assert await reason_of(desk.revert()) == "SUBSCRIPTION_ENDED"
    assert await desk.amounts() == [50]
    anew = await desk.change("starter")
    assert anew.change.kind == pb.CHANGE_KIND_START
    assert await desk.amounts() == [50, 50]


async def test_a_change_during_a_cancellation_takes_its_place(desk: Desk) -> None:
    await desk.cancel()
    down = await desk.change("hobbyist")
    assert down.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert down.subscription.pending_change.kind == pb.CHANGE_KIND_DOWNGRADE
    await desk.cancel()
    up = await desk.change("professional")
    assert not up.subscription.HasField("pending_change")
    assert not up.subscription.HasField("end_time")


async def test_a_stale_etag_changes_nothing(desk: Desk) -> None:
    etag = (await desk.view()).subscription.etag
    changed = await desk.change("hobbyist", etag=etag)
    assert changed.subscription.etag != etag
    for call in (desk.change("professional", etag=etag), desk.cancel(etag=etag), desk.revert(etag=etag)):
        assert await reason_of(call) == "STALE_ETAG"
    contract = pb.Contract(offer_id="volume-10k")
    assert await reason_of(desk.contract(contract, etag=etag)) == "STALE_ETAG"
    assert (await desk.view()).subscription.pending_change.change_id == changed.change.change_id


async def test_a_repeat_gets_the_first_answer_and_another_content_an_error(desk: Desk, clock: ManualClock) -> None:
    first = await desk.change("professional", request_id="r1")
    await desk.change("hobbyist")
    clock.advance_us(DAY_US)
    repeat = await desk.change("professional", request_id="r1", etag=first.subscription.etag)
    for answer in (first, repeat):
        answer.subscription.ClearField("entitlement_revision")
    assert repeat == first
    assert await reason_of(desk.change("starter", request_id="r1")) == "DUPLICATE_REQUEST"
    assert await desk.amounts() == [50, 150]
    cancelled = await desk.cancel(request_id="r1")
    assert (await desk.cancel(request_id="r1")).change == cancelled.change


async def test_a_preview_changes_nothing(desk: Desk, quota: FakeQuotaEvents) -> None:
    before = await desk.view()
    up = await desk.change("professional", validate_only=True, request_id="r1")
    assert (up.change.kind, up.change.state, up.change.change_id) == (
        pb.CHANGE_KIND_UPGRADE,
        pb.CHANGE_STATE_PREVIEW,
        "",
    )
    assert (amount_of(up.invoice.total), up.invoice.state) == (150, invoice_pb2.INVOICE_STATE_DRAFT)
    assert not up.entitlement_applied
    down = await desk.change("hobbyist", validate_only=True)
    assert down.subscription.pending_change.kind == pb.CHANGE_KIND_DOWNGRADE
    end = await desk.cancel(validate_only=True)
    assert end.change.effective_time == before.subscription.period_end_time
    await desk.contract(pb.Contract(offer_id="volume-10k"), validate_only=True)
    assert await reason_of(desk.revert(validate_only=True)) == "NO_PENDING_CHANGE"
    assert await desk.view() == before
    assert quota.entitlements[desk.account_id].revision == 1
    # The request_id of a preview is not kept.
    assert (await desk.change("hobbyist", request_id="r1")).change.kind == pb.CHANGE_KIND_DOWNGRADE


@pytest.mark.parametrize(
    ("plan_id", "version", "reason"),
    [
        ("gold", 0, "PLAN_NOT_FOUND"),
        ("starter", 9, "PLAN_NOT_FOUND"),
        ("enterprise", 0, "CONTRACT_REQUIRED"),
    ],
)
async def test_plans_that_are_not_to_be_had(desk: Desk, plan_id: str, version: int, reason: str) -> None:
    assert await reason_of(desk.change(plan_id, plan_version=version)) == reason
    assert await desk.amounts() == [50]


async def test_a_change_while_quota_is_down_arrives_later(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    await quota.set_unavailable(True)
    answer = await desk.change("professional")
    assert not answer.entitlement_applied
    assert answer.subscription.terms.session_limit == 5000
    assert quota.entitlements[desk.account_id].terms[0].session_limit == 1000
    await desk.cancel()
    await desk.revert()
    await quota.set_unavailable(False)
    clock.advance(1)
    await quota.until(lambda: quota.entitlements[desk.account_id].terms[0].session_limit == 5000)
    while not (subscription := (await desk.view()).subscription).entitlement_applied:
        pass
    # Of the revisions that were allotted meanwhile the last one alone is sent.
    revisions = [put.revision for put in quota.puts if put.account_id == desk.account_id]
    assert subscription.entitlement_revision == quota.entitlements[desk.account_id].revision == max(revisions) == 4
    assert not {2, 3}.intersection(revisions)


async def test_an_offer_becomes_a_contract(desk: Desk, quota: FakeQuotaEvents) -> None:
    answer = await desk.contract(pb.Contract(offer_id="volume-10k", reference="paper 7"))
    assert answer.change.kind == pb.CHANGE_KIND_UPGRADE
    assert amount_of(answer.invoice.total) == 49
    contract = answer.subscription.contract
    assert (contract.plan_id, contract.session_limit, contract.reference) == ("professional", 10000, "paper 7")
    assert answer.subscription.terms.contract_id == contract.contract_id
    assert "volume_pricing" in contract.features
    assert quota.entitlements[desk.account_id].terms[0].session_limit == 10000
    assert await reason_of(desk.change("professional")) == "CONTRACT_IN_FORCE"


async def test_a_contract_ends_when_it_is_put_again_with_an_end(desk: Desk, clock: ManualClock) -> None:
    await desk.contract(pb.Contract(offer_id="volume-10k"))
    end_us = us(2026, 4, 20)
    await desk.contract(pb.Contract(offer_id="volume-10k", end_time=stamp(end_us)))
    clock.advance_us(end_us - clock.now_us())
    view = await desk.view()
    assert (view.subscription.plan_id, view.subscription.terms.contract_id) == ("professional", "")
    assert view.subscription.terms.session_limit == 5000
    assert not view.subscription.HasField("contract")
    # 50, then 49 more for the contract; 99 for April, then the plan's own price.
    assert await desk.amounts() == [50, 49, 99, 101]


async def test_a_change_to_come_is_told_as_it_turns_out(desk: Desk, quota: FakeQuotaEvents, clock: ManualClock) -> None:
    put = await desk.contract(pb.Contract(offer_id="volume-10k", effective_time=stamp(us(2026, 3, 20))))
    assert (put.change.kind, put.change.effective_time) == (pb.CHANGE_KIND_UPGRADE, stamp(us(2026, 3, 20)))
    # Beside the higher price the contract's is the lower one, and waits for the period.
    await desk.change("professional")
    boundary_us = us(2026, 4, 10, 12)
    for state in (pb.CHANGE_STATE_PENDING, pb.CHANGE_STATE_APPLIED):
        (change,) = [one for one in (await desk.view()).changes if one.change_id == put.change.change_id]
        assert (change.kind, change.state) == (pb.CHANGE_KIND_DOWNGRADE, state)
        assert change.from_terms.plan_id == "professional"
        assert change.from_terms.contract_id == ""
        assert change.effective_time == stamp(boundary_us)
        await quota.resolve(desk.account_id, f"ses_{state}")
        await quota.drained()
        clock.advance_us(max(0, boundary_us + 60_000_000 - clock.now_us()))
    assert await desk.amounts() == [50, 150, 99]
    while not (found := await desk.invoices(kinds=[invoice_pb2.INVOICE_KIND_USAGE_STATEMENT])):
        await desk.pay((await desk.invoices())[0].invoice_id)
    assert [line.contract_id for line in found[0].lines] == [""]


@pytest.mark.parametrize(
    ("contract", "field"),
    [
        (pb.Contract(plan_id="starter", price=dollars(-5)), "contract.price"),
        (pb.Contract(plan_id="starter", session_limit=-1), "contract.session_limit"),
        (pb.Contract(plan_id="starter", max_concurrent_sessions=0), "contract.max_concurrent_sessions"),
        (pb.Contract(plan_id="starter", max_output_tokens=-1), "contract.max_output_tokens"),
        (pb.Contract(plan_id="enterprise", max_concurrent_sessions=1), "contract.price"),
        (pb.Contract(plan_id="starter", effective_time=stamp(us(2026, 3, 10, 11))), "contract.effective_time"),
        (pb.Contract(plan_id="starter", end_time=stamp(us(2026, 3, 10, 12))), "contract.end_time"),
    ],
)
async def test_contracts_that_are_refused(desk: Desk, contract: pb.Contract, field: str) -> None:
    _, error = await failure_of(desk.contract(contract))
    assert (error.reason.value, [violation.field for violation in error.violations]) == ("INVALID_REQUEST", [field])
    assert await desk.amounts() == [50]


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        (pb.Contract(offer_id="volume-99k"), "OFFER_NOT_FOUND"),
        (pb.Contract(plan_id="gold"), "PLAN_NOT_FOUND"),
    ],
)
async def test_contracts_on_nothing(desk: Desk, contract: pb.Contract, reason: str) -> None:
    assert await reason_of(desk.contract(contract)) == reason


async def test_concurrent_changes_are_one_after_the_other(desk: Desk, quota: FakeQuotaEvents) -> None:
    plans = ["professional", "hobbyist", "starter"] * 4
    await asyncio.gather(*(desk.change(plan_id) for plan_id in plans), return_exceptions=True)
    invoices = await desk.invoices()
    assert [one.sequence_number for one in invoices] == list(range(1, len(invoices) + 1))
    view = await desk.view()
    # However they interleaved, the period was charged up to the price that holds now.
    assert sum(amount_of(one.total) for one in invoices) == amount_of(view.subscription.terms.price) == 200
    revision = view.subscription.entitlement_revision
    await quota.until(lambda: quota.entitlements[desk.account_id].revision == revision)
    revisions = [put.revision for put in quota.puts if put.account_id == desk.account_id]
    assert len(set(revisions)) <= revision


async def test_one_of_two_changes_with_the_same_etag_is_refused(desk: Desk) -> None:
    etag = (await desk.view()).subscription.etag
    answers = await asyncio.gather(
        *(desk.change(plan_id, etag=etag) for plan_id in ("professional", "hobbyist")), return_exceptions=True
    )
    assert sum(isinstance(answer, BaseException) for answer in answers) == 1


async def test_a_deleted_account_is_not_changed(desk: Desk) -> None:
    from flowstack_protos.billing.v1 import account_service_pb2 as account_pb

    await desk.service.accounts.DeleteAccount(
        account_pb.DeleteAccountRequest(account_id=desk.account_id), metadata=ADMIN
    )
    request = pb.ChangePlanRequest(account_id=desk.account_id, plan_id="professional")
    assert await reason_of(desk.service.subscriptions.ChangePlan(request, metadata=ADMIN)) == "ACCOUNT_DELETED"
