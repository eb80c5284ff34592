"""InvoiceService of the fake. Invoices are made by `_settling`, where they are charged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as pb

from flowstack.testing._audit import NOTHING, action_of
from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._facts import facts_of_credit_note
from flowstack.testing._invoices import credited, draft_of_charge, paid, voided
from flowstack.testing._pdf import printed
from flowstack.testing._plans import plan_for_sale
from flowstack.testing._records import Account
from flowstack.testing._renewal import next_fee
from flowstack.testing._settling import addressed, note_payments, put_invoice
from flowstack.testing._terms import terms_of
from flowstack.testing._time import timestamp
from flowstack.testing._world import World

CHUNK_BYTES: Final = 64 * 1024


class Invoices:
    """The methods of InvoiceService."""

    def __init__(self, world: World) -> None:
        self._world = world

    def list_invoices(self, call: Call, request: pb.ListInvoicesRequest) -> pb.ListInvoicesResponse:
        """Lists invoices with their credit notes, newest first."""
        begin, end = request.start_time.ToMicroseconds(), request.end_time.ToMicroseconds()
        with self._world.lock:
            found = [
                invoice
                for invoice in reversed(self._world.account(call.account_id).invoices)
                if (not request.states or invoice.state in request.states)
                and (not request.kinds or invoice.kind in request.kinds)
                and (not begin or invoice.issue_time.ToMicroseconds() >= begin)
                and (not end or invoice.issue_time.ToMicroseconds() < end)
            ]
            page, token = page_of(found, call, request)
            return pb.ListInvoicesResponse(invoices=page, next_page_token=token)

    def get_invoice(self, call: Call, request: pb.GetInvoiceRequest) -> pb.GetInvoiceResponse:
        """Reads an invoice with its credit notes."""
        with self._world.lock:
            return pb.GetInvoiceResponse(invoice=_invoice_of(self._world.account(call.account_id), request.invoice_id))

    def preview_invoice(self, call: Call, request: pb.PreviewInvoiceRequest) -> pb.PreviewInvoiceResponse:
        """The next period's fee as it would be invoiced."""
        with self._world.lock:
            account = self._world.account(call.account_id)
            subscription = account.subscription
            fee = next_fee(subscription)
            if fee is None:
                raise FakeError(
                    "SUBSCRIPTION_ENDED", "The subscription ends before another period, so no fee will follow."
                )
            if request.plan_id:
                terms = terms_of(plan_for_sale(request.plan_id, request.plan_version))
                fee = fee._replace(terms=terms, amount_micro=terms.price_micro, change_id="")
            if fee.subscription_id != subscription.subscription_id:
                fee = fee._replace(subscription_id="")  # one that is to come has no id yet
            draft = addressed(draft_of_charge(fee), account)
        return pb.PreviewInvoiceResponse(invoice=draft, issue_time=timestamp(fee.start_us))

    def download_invoice(self, call: Call, request: pb.DownloadInvoiceRequest) -> Iterator[pb.DownloadInvoiceResponse]:
        """The invoice, or one of its credit notes, as PDF: what it is first, then its bytes."""
        with self._world.lock:
            invoice = _invoice_of(self._world.account(call.account_id), request.invoice_id)
            note = _note_of(invoice, request.credit_note_id) if request.credit_note_id else None
            content = printed(invoice, note)
        number = invoice.number if note is None else note.number
        document = pb.InvoiceDocument(
            file_name=f"{number}.pdf",
            content_type="application/pdf",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        yield pb.DownloadInvoiceResponse(document=document)
        for begin in range(0, len(content), CHUNK_BYTES):
            yield pb.DownloadInvoiceResponse(chunk=content[begin : begin + CHUNK_BYTES])

    def mark_invoice_paid(self, call: Call, request: pb.MarkInvoicePaidRequest) -> pb.MarkInvoicePaidResponse:
        """Records a payment in full."""

        def decide(invoice: invoice_pb2.Invoice, _: Account, now_us: int) -> invoice_pb2.Invoice:
            pay_us = request.pay_time.ToMicroseconds() or now_us
            if pay_us > now_us:
                raise invalid_field("pay_time", "must not be in the future")
            return paid(invoice, request.payment_reference, pay_us)

        def work() -> pb.MarkInvoicePaidResponse:
            invoice = self._correct(call, request, decide)
            return pb.MarkInvoicePaidResponse(invoice=invoice, entitlement_applied=True)

        return self._world.once(call.account_id, request, work)

    def void_invoice(self, call: Call, request: pb.VoidInvoiceRequest) -> pb.VoidInvoiceResponse:
        """Voids an invoice that was issued by mistake."""

        def work() -> pb.VoidInvoiceResponse:
            invoice = self._correct(call, request, lambda invoice, _, now_us: voided(invoice, request.reason, now_us))
            return pb.VoidInvoiceResponse(invoice=invoice, entitlement_applied=True)

        return self._world.once(call.account_id, request, work)

    def create_credit_note(self, call: Call, request: pb.CreateCreditNoteRequest) -> pb.CreateCreditNoteResponse:
        """Credits part or all of an invoice, line by line."""

        def decide(invoice: invoice_pb2.Invoice, account: Account, now_us: int) -> invoice_pb2.Invoice:
            after = credited(invoice, request, account.credit_notes + 1, now_us)
            account.credit_notes += 1
            note = after.credit_notes[-1]
            facts, note_id = facts_of_credit_note(note), note.credit_note_id
            account.log.note(action_of(call), account.account_id, "credit_note", note_id, NOTHING, facts, now_us)
            return after

        def work() -> pb.CreateCreditNoteResponse:
            invoice = self._correct(call, request, decide)
            note = invoice.credit_notes[-1]
            return pb.CreateCreditNoteResponse(credit_note=note, invoice=invoice, entitlement_applied=True)

        return self._world.once(call.account_id, request, work)

    def _correct(
        self,
        call: Call,
        request: Any,
        decide: Callable[[invoice_pb2.Invoice, Account, int], invoice_pb2.Invoice],
    ) -> invoice_pb2.Invoice:
        account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
        invoice = decide(_invoice_of(account, request.invoice_id), account, now_us)
        put_invoice(account, invoice, action_of(call), now_us)
        note_payments(account, action_of(call), now_us)
        self._world.changed.notify_all()
        return invoice


def _invoice_of(account: Account, invoice_id: str) -> invoice_pb2.Invoice:
    for invoice in account.invoices:
        if invoice.invoice_id == invoice_id:
            return invoice
    raise FakeError("INVOICE_NOT_FOUND", "The account has no such invoice. ListInvoices shows those that it has.")


def _note_of(invoice: invoice_pb2.Invoice, credit_note_id: str) -> invoice_pb2.CreditNote:
    for note in invoice.credit_notes:
        if note.credit_note_id == credit_note_id:
            return note
    raise FakeError("CREDIT_NOTE_NOT_FOUND", "The invoice has no such credit note. GetInvoice shows those that it has.")
