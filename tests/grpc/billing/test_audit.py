"""The audit log: whatever the operator does to customers, or looks at of theirs, is in it."""

from __future__ import annotations

import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import audit_service_pb2 as pb
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoice_pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb
from google.type.money_pb2 import Money

from tests.grpc.billing.test_access import ADMIN_ONLY, PACKAGE
from tests.support.billing import ADMIN, BillingUnderTest, Customer, reason_of
from tests.support.fake_quota_events import FakeQuotaEvents


async def events_of(service: BillingUnderTest, *actions: str, account_id: str = "") -> list[pb.AuditEvent]:
    request = pb.ListAuditEventsRequest(account_id=account_id, actions=actions, page_size=1000)
    return list((await service.audit.ListAuditEvents(request, metadata=ADMIN)).audit_events)


def changes_of(event: pb.AuditEvent) -> dict[str, tuple[str, str]]:
    return {change.field: (change.from_json, change.to_json) for change in event.changes}


async def test_every_method_of_the_operators_alone_is_in_the_log(service: BillingUnderTest) -> None:
    accounts, invoices = service.accounts, service.invoices
    mine = {"account_id": (await service.open_account("starter")).account.account_id}
    contract = subscription_pb.Contract(plan_id="starter", price=Money(currency_code="USD", units=60))
    await service.subscriptions.PutContract(
        subscription_pb.PutContractRequest(**mine, contract=contract), metadata=ADMIN
    )
    await service.usage.ReconcileUsage(usage_pb.ReconcileUsageRequest(**mine), metadata=ADMIN)
    listed = (await invoices.ListInvoices(invoice_pb.ListInvoicesRequest(**mine), metadata=ADMIN)).invoices
    upgrade, fee = ({**mine, "invoice_id": invoice.invoice_id} for invoice in listed)
    await invoices.VoidInvoice(invoice_pb.VoidInvoiceRequest(**upgrade, reason="r"), metadata=ADMIN)
    paid = invoice_pb.MarkInvoicePaidRequest(**fee, payment_reference="p")
    await invoices.MarkInvoicePaid(paid, metadata=ADMIN)
    line = invoice_pb.CreditNoteLineInput(line_number=1, amount=Money(currency_code="USD", units=1))
    credit = invoice_pb.CreateCreditNoteRequest(**fee, reason="r", request_id="r", lines=[line])
    await invoices.CreateCreditNote(credit, metadata=ADMIN)
    await accounts.ListAccounts(account_pb.ListAccountsRequest(), metadata=ADMIN)
    await accounts.SuspendAccount(account_pb.SuspendAccountRequest(**mine, reason="r"), metadata=ADMIN)
    await accounts.DeleteAccount(account_pb.DeleteAccountRequest(**mine), metadata=ADMIN)
    logged = {event.action for event in await events_of(service) if event.actor_kind == pb.ACTOR_KIND_ADMIN}
    assert {path.removeprefix(PACKAGE).replace("/", ".") for path in ADMIN_ONLY} <= logged


@pytest.mark.parametrize("named", [True, False])
async def test_a_comparison_is_logged_with_what_it_found(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, named: bool
) -> None:
    await quota.resolve(customer.account_id, "ses_1")
    await quota.drained()
    (key,) = [key for key in quota.committed if key[0] == customer.account_id]
    quota.committed[key] += 1
    account_id = customer.account_id if named else ""
    found = await service.usage.ReconcileUsage(usage_pb.ReconcileUsageRequest(account_id=account_id), metadata=ADMIN)
    (event,) = await events_of(service, "UsageService.ReconcileUsage")
    assert (event.account_id, event.resource_type, event.resource_id) == (account_id, "ledger", account_id)
    assert event.peer
    assert changes_of(event) == {"accounts_compared": ("", "1"), "drifts": ("", str(len(found.drifts)))}
    assert found.drifts


async def test_a_comparison_that_was_refused_is_not_logged(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    await quota.set_unavailable(True)
    await service.open_account()
    call = service.usage.ReconcileUsage(usage_pb.ReconcileUsageRequest(), metadata=ADMIN)
    assert await reason_of(call) == "QUOTA_UNAVAILABLE"
    assert await events_of(service, "UsageService.ReconcileUsage") == []


async def test_looking_at_all_accounts_is_logged_without_what_was_looked_for(
    service: BillingUnderTest, customer: Customer
) -> None:
    request = account_pb.ListAccountsRequest(email="Ada@example.org")
    await service.accounts.ListAccounts(request, metadata=ADMIN)
    (event,) = await events_of(service, "AccountService.ListAccounts")
    assert (event.account_id, event.resource_type, changes_of(event)) == ("", "account", {"listed": ("", "1")})
    assert "example" not in str(event)
    own = await service.audit.ListAuditEvents(pb.ListAuditEventsRequest(page_size=1000), metadata=customer.metadata)
    assert "AccountService.ListAccounts" not in {event.action for event in own.audit_events}
