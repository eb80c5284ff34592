"""Suspending, deleting and overdue accounts, and the audit log of it all, on both stores."""

from __future__ import annotations

import json

import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as pb
from flowstack_protos.billing.v1 import audit_service_pb2 as audit_pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from sqlalchemy import create_engine, select

from services.billing.adapters.sql.tables import METADATA
from services.billing.config import BillingSettings
from tests.support.billing import ADMIN, BillingUnderTest, Customer, billing, failure_of, reason_of
from tests.support.clock import DAY_US, HOUR_US, ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents
from tests.support.plans import Desk, stamp


@pytest.fixture
def desk(service: BillingUnderTest, customer: Customer) -> Desk:
    return Desk(service, customer)


async def suspend(desk: Desk, **fields: object) -> pb.SuspendAccountResponse:
    request = pb.SuspendAccountRequest(account_id=desk.account_id, **fields)  # type: ignore[arg-type]
    response: pb.SuspendAccountResponse = await desk.service.accounts.SuspendAccount(request, metadata=ADMIN)
    return response


async def delete(desk: Desk, **fields: str) -> pb.DeleteAccountResponse:
    request = pb.DeleteAccountRequest(account_id=desk.account_id, **fields)
    response: pb.DeleteAccountResponse = await desk.service.accounts.DeleteAccount(request, metadata=ADMIN)
    return response


async def account(desk: Desk) -> pb.Account:
    request = pb.GetAccountRequest(account_id=desk.account_id)
    response: pb.GetAccountResponse = await desk.service.accounts.GetAccount(request, metadata=ADMIN)
    return response.account


async def test_a_suspension_blocks_and_is_lifted(desk: Desk, quota: FakeQuotaEvents) -> None:
    answer = await suspend(desk, reason="abuse")
    assert (answer.account.state, answer.account.suspend_reason) == (pb.ACCOUNT_STATE_SUSPENDED, "abuse")
    assert answer.entitlement_applied
    block = quota.entitlements[desk.account_id].block
    assert block.reason == quota_pb.BLOCK_REASON_ACCOUNT_SUSPENDED
    assert "abuse" in block.message
    # Everything else stays readable, with the customer's own key.
    assert (await desk.view()).subscription.plan_id == "starter"
    lifted = await suspend(desk, lift=True)
    assert lifted.account.state == pb.ACCOUNT_STATE_ACTIVE
    assert not quota.entitlements[desk.account_id].HasField("block")
    assert (await suspend(desk, lift=True)).account == lifted.account


async def test_a_suspension_ends_by_itself(desk: Desk, quota: FakeQuotaEvents, clock: ManualClock) -> None:
    until_us = clock.now_us() + HOUR_US
    await suspend(desk, reason="a review", until_time=stamp(until_us))
    assert quota.entitlements[desk.account_id].block.until_time == stamp(until_us)
    clock.advance_us(HOUR_US)
    await quota.until(lambda: not quota.entitlements[desk.account_id].HasField("block"))
    assert (await account(desk)).state == pb.ACCOUNT_STATE_ACTIVE
    _, error = await failure_of(suspend(desk, reason="late", until_time=stamp(clock.now_us())))
    assert [violation.field for violation in error.violations] == ["until_time"]


async def test_a_stale_etag_suspends_and_deletes_nothing(desk: Desk) -> None:
    etag = (await account(desk)).etag
    await suspend(desk, reason="abuse", etag=etag)
    assert await reason_of(suspend(desk, lift=True, etag=etag)) == "STALE_ETAG"
    assert await reason_of(delete(desk, etag=etag)) == "STALE_ETAG"
    assert (await account(desk)).state == pb.ACCOUNT_STATE_SUSPENDED


async def test_a_deleted_account_has_no_keys_and_no_service(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    answer = await delete(desk, reason="asked for")
    assert answer.account.state == pb.ACCOUNT_STATE_DELETED
    assert answer.account.purge_time.ToMicroseconds() == clock.now_us() + 30 * DAY_US
    assert await reason_of(desk.view()) == "API_KEY_REVOKED"
    assert quota.entitlements[desk.account_id].end_time.ToMicroseconds() == clock.now_us()
    clock.advance_us(DAY_US)
    assert (await delete(desk)).account == answer.account
    assert await reason_of(suspend(desk, reason="late")) == "ACCOUNT_DELETED"
    key = pb.CreateApiKeyRequest(account_id=desk.account_id)
    assert await reason_of(desk.service.accounts.CreateApiKey(key, metadata=ADMIN)) == "ACCOUNT_DELETED"


async def test_a_deleted_accounts_personal_data_is_purged_and_its_books_stay(desk: Desk, clock: ManualClock) -> None:
    await delete(desk)
    clock.advance_us(30 * DAY_US - 1)
    request = subscription_pb.GetSubscriptionRequest(account_id=desk.account_id)
    await desk.service.subscriptions.GetSubscription(request, metadata=ADMIN)
    assert (await account(desk)).display_name == "Ada"
    clock.advance_us(1)
    while (await account(desk)).display_name:
        pass
    purged = await account(desk)
    assert (purged.email, purged.account_id) == ("", desk.account_id)
    (invoice,) = await desk.invoices()
    assert (invoice.customer_name, invoice.customer_email) == ("", "")
    assert invoice.total.units == 50
    events = await desk.audit()
    assert "Ada" not in str(events)
    assert "purge" in {event.action for event in events}


async def test_after_the_purge_the_name_is_nowhere_in_the_database(
    settings: BillingSettings, clock: ManualClock
) -> None:
    person = {"display_name": "Zuckmayer", "email": "zuckmayer@example.org"}
    async with billing(settings, clock) as service:
        opened = await service.open_account("starter", request_id="c1", **person)
        desk = Desk(service, await service.new_key(opened.account.account_id))
        await desk.change("professional", request_id="c2")
        first, second = await desk.invoices()
        await desk.credit(first.invoice_id, 1, "c3")
        await desk.void(second.invoice_id, request_id="c4")
        await delete(desk)
    assert texts_of(settings, "zuckmayer")
    async with billing(settings, clock) as service:
        desk = Desk(service, desk.customer)
        clock.advance_us(30 * DAY_US)
        while (await account(desk)).display_name:
            pass
        # Who repeats a request gets the first answer still, without the name.
        again = await service.open_account("starter", request_id="c1", **person)
        assert (again.account.account_id, again.account.display_name) == (desk.account_id, "")
        assert (await desk.void(second.invoice_id, request_id="c4")).invoice.void_reason == "a mistake"
    assert texts_of(settings, "zuckmayer") == []


def texts_of(settings: BillingSettings, name: str) -> list[str]:
    """Where the database holds a name, letter case aside."""
    engine = create_engine(settings.database_url().replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        found = [
            f"{table.name}: {row}"
            for table in METADATA.sorted_tables
            for row in connection.execute(select(table))
            if name.casefold() in str(row).casefold()
        ]
    engine.dispose()
    return found


async def test_an_unpaid_invoice_blocks_after_its_grace_and_its_payment_lifts_it(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    (invoice,) = await desk.invoices()
    subscription = (await desk.view()).subscription
    grace_end_us = invoice.due_time.ToMicroseconds() + 14 * DAY_US
    assert subscription.payment_grace_end_time.ToMicroseconds() == grace_end_us
    clock.advance_us(grace_end_us - 1 - clock.now_us())
    assert not (await desk.view()).subscription.payment_overdue
    clock.advance_us(1)
    await quota.until(lambda: quota.entitlements[desk.account_id].HasField("block"))
    assert quota.entitlements[desk.account_id].block.reason == quota_pb.BLOCK_REASON_PAYMENT_OVERDUE
    assert (await desk.view()).subscription.payment_overdue
    clock.advance(1)
    paid = await desk.pay(invoice.invoice_id)
    assert paid.entitlement_applied
    assert not quota.entitlements[desk.account_id].HasField("block")
    overdue = [
        (event.action, change.to_json)
        for event in await desk.audit()
        for change in event.changes
        if change.field == "payment_overdue"
    ]
    assert overdue == [("end of grace", "true"), ("InvoiceService.MarkInvoicePaid", "false")]


@pytest.mark.parametrize("way", ["void", "credit"])
async def test_a_void_or_credited_invoice_lifts_the_block_too(
    desk: Desk, quota: FakeQuotaEvents, clock: ManualClock, way: str
) -> None:
    (invoice,) = await desk.invoices()
    clock.advance_us(28 * DAY_US)
    await quota.until(lambda: quota.entitlements[desk.account_id].HasField("block"))
    await (desk.void(invoice.invoice_id) if way == "void" else desk.credit(invoice.invoice_id, 50, "c1"))
    assert not quota.entitlements[desk.account_id].HasField("block")


async def test_the_audit_log_says_who_changed_what_from_what_to_what(desk: Desk, clock: ManualClock) -> None:
    await desk.change("professional", request_id="r1")
    clock.advance(1)
    await suspend(desk, reason="abuse")
    events = await desk.audit()
    (changed,) = [
        event
        for event in events
        if event.action == "SubscriptionService.ChangePlan" and event.resource_type == "subscription"
    ]
    assert (changed.actor_kind, changed.actor_id) == (audit_pb.ACTOR_KIND_CUSTOMER, desk.customer.api_key_id)
    assert changed.request_id == "r1"
    assert changed.peer.startswith("127.0.0.1:")
    values = {change.field: (json.loads(change.from_json), json.loads(change.to_json)) for change in changed.changes}
    assert values["terms.plan_id"] == ("starter", "professional")
    assert values["terms.price_micro"] == (50_000_000, 200_000_000)
    suspended = events[-1]
    assert (suspended.actor_kind, suspended.reason) == (audit_pb.ACTOR_KIND_ADMIN, "abuse")
    assert suspended.resource_id == desk.account_id
    by_admin = {event.action for event in events if event.actor_kind == audit_pb.ACTOR_KIND_ADMIN}
    assert by_admin >= {"AccountService.CreateAccount", "AccountService.CreateApiKey"}
    assert desk.customer.secret not in str(events)


async def test_audit_events_have_filters_and_pages(
    service: BillingUnderTest, desk: Desk, settings: BillingSettings
) -> None:
    other = Desk(service, await service.new_customer("free"))
    await desk.change("professional")
    assert {event.account_id for event in await desk.audit()} == {desk.account_id}
    assert {event.action for event in await desk.audit(actions=["AccountService.CreateApiKey"])} == {
        "AccountService.CreateApiKey"
    }
    assert len(await desk.audit(actor_kinds=[audit_pb.ACTOR_KIND_CUSTOMER])) == 3
    assert {event.resource_id for event in await desk.audit(resource_id=desk.account_id)} == {desk.account_id}
    everything, token = [], ""
    while True:
        request = audit_pb.ListAuditEventsRequest(page_size=2, page_token=token)
        page = await service.audit.ListAuditEvents(request, metadata=ADMIN)
        everything += page.audit_events
        token = page.next_page_token
        if not token:
            break
        last = token
    assert {event.account_id for event in everything} == {desk.account_id, other.account_id}
    assert len({event.audit_event_id for event in everything}) == len(everything)
    mine = audit_pb.ListAuditEventsRequest(page_token=last)
    assert await reason_of(service.audit.ListAuditEvents(mine, metadata=desk.customer.metadata)) == "INVALID_REQUEST"
