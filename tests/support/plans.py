"""Calls about plans, invoices and the audit log, as customers and the operator make them."""

from __future__ import annotations

from typing import Any

from flowstack_protos.billing.v1 import audit_service_pb2 as audit_pb
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoice_pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from tests.support.billing import ADMIN, BillingUnderTest, Customer


def stamp(time_us: int) -> Timestamp:
    """A Timestamp."""
    made = Timestamp()
    made.FromMicroseconds(time_us)
    return made


def dollars(amount: float) -> money_pb2.Money:
    """Dollars as Money."""
    micro = round(amount * 1_000_000)
    return money_pb2.Money(currency_code="USD", units=micro // 1_000_000, nanos=micro % 1_000_000 * 1000)


def amount_of(money: money_pb2.Money) -> float:
    """Money as dollars."""
    assert money.currency_code == "USD"
    return float(money.units) + float(money.nanos) / 1e9


class Desk:
    """One customer's calls, and the operator's about it."""

    def __init__(self, service: BillingUnderTest, customer: Customer) -> None:
        self.service = service
        self.customer = customer
        self.account_id = customer.account_id

    async def change(self, plan_id: str, **fields: Any) -> pb.ChangePlanResponse:
        """ChangePlan."""
        request = pb.ChangePlanRequest(plan_id=plan_id, **fields)
        response: pb.ChangePlanResponse = await self.service.subscriptions.ChangePlan(
            request, metadata=self.customer.metadata
        )
        return response

    async def cancel(self, **fields: Any) -> pb.CancelSubscriptionResponse:
        """CancelSubscription."""
        request = pb.CancelSubscriptionRequest(**fields)
        response: pb.CancelSubscriptionResponse = await self.service.subscriptions.CancelSubscription(
            request, metadata=self.customer.metadata
        )
        return response

    async def revert(self, **fields: Any) -> pb.RevertPendingChangeResponse:
        """RevertPendingChange."""
        request = pb.RevertPendingChangeRequest(**fields)
        response: pb.RevertPendingChangeResponse = await self.service.subscriptions.RevertPendingChange(
            request, metadata=self.customer.metadata
        )
        return response

    async def contract(self, contract: pb.Contract, **fields: Any) -> pb.PutContractResponse:
        """PutContract, by the operator."""
        request = pb.PutContractRequest(account_id=self.account_id, contract=contract, **fields)
        response: pb.PutContractResponse = await self.service.subscriptions.PutContract(request, metadata=ADMIN)
        return response

    async def view(self) -> pb.GetSubscriptionResponse:
        """GetSubscription."""
        response: pb.GetSubscriptionResponse = await self.service.subscriptions.GetSubscription(
            pb.GetSubscriptionRequest(), metadata=self.customer.metadata
        )
        return response

    async def invoices(self, **fields: Any) -> list[invoice_pb2.Invoice]:
        """Every invoice, oldest first."""
        request = invoice_pb.ListInvoicesRequest(account_id=self.account_id, page_size=1000, **fields)
        response: invoice_pb.ListInvoicesResponse = await self.service.invoices.ListInvoices(request, metadata=ADMIN)
        assert not response.next_page_token
        return list(response.invoices)[::-1]

    async def amounts(self) -> list[float]:
        """What every invoice but statements charges, oldest first."""
        found = await self.invoices()
        return [amount_of(one.total) for one in found if one.kind != invoice_pb2.INVOICE_KIND_USAGE_STATEMENT]

    async def pay(
        self, invoice_id: str, reference: str = "wire 1", **fields: Any
    ) -> invoice_pb.MarkInvoicePaidResponse:
        """MarkInvoicePaid."""
        request = invoice_pb.MarkInvoicePaidRequest(
            account_id=self.account_id, invoice_id=invoice_id, payment_reference=reference, **fields
        )
        response: invoice_pb.MarkInvoicePaidResponse = await self.service.invoices.MarkInvoicePaid(
            request, metadata=ADMIN
        )
        return response

    async def pay_all(self) -> None:
        """Pays every open invoice."""
        for invoice in await self.invoices(states=[invoice_pb2.INVOICE_STATE_OPEN]):
            await self.pay(invoice.invoice_id, f"wire {invoice.number}")

    async def void(self, invoice_id: str, **fields: Any) -> invoice_pb.VoidInvoiceResponse:
        """VoidInvoice."""
        request = invoice_pb.VoidInvoiceRequest(
            account_id=self.account_id, invoice_id=invoice_id, reason="a mistake", **fields
        )
        response: invoice_pb.VoidInvoiceResponse = await self.service.invoices.VoidInvoice(request, metadata=ADMIN)
        return response

    async def credit(
        self, invoice_id: str, amount: float, request_id: str, line: int = 1
    ) -> invoice_pb.CreateCreditNoteResponse:
        """CreateCreditNote of one line."""
        request = invoice_pb.CreateCreditNoteRequest(
            account_id=self.account_id,
            invoice_id=invoice_id,
            lines=[invoice_pb.CreditNoteLineInput(line_number=line, amount=dollars(amount))],
            reason="an outage",
            request_id=request_id,
        )
        response: invoice_pb.CreateCreditNoteResponse = await self.service.invoices.CreateCreditNote(
            request, metadata=ADMIN
        )
        return response

    async def audit(self, **fields: Any) -> list[audit_pb.AuditEvent]:
        """The account's audit events, oldest first."""
        request = audit_pb.ListAuditEventsRequest(account_id=self.account_id, page_size=1000, **fields)
        response: audit_pb.ListAuditEventsResponse = await self.service.audit.ListAuditEvents(request, metadata=ADMIN)
        return list(response.audit_events)[::-1]
