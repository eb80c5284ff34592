"""Invoices and credit notes."""

from __future__ import annotations

from collections.abc import Iterator

from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as pb

from services.billing.convert.money import micro_from_money, money_to_proto
from services.billing.domain.invoices import (
    CreditNote,
    CreditNoteLine,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceState,
)
from services.billing.invoice_store import InvoiceFilter
from services.billing.service.corrections import CorrectedInvoice
from services.billing.service.invoices import Document, InvoicePreview, InvoiceView
from services.shared.times import optional_time_to_proto, time_to_proto, us_from_proto

CHUNK_BYTES = 64 * 1024
"""The most that one message of a download carries, by the contract."""


def filter_from_proto(request: pb.ListInvoicesRequest) -> InvoiceFilter:
    """The filters of a ListInvoicesRequest."""
    return InvoiceFilter(
        tuple(InvoiceState(state) for state in request.states),
        tuple(InvoiceKind(kind) for kind in request.kinds),
        us_from_proto(request.start_time),
        us_from_proto(request.end_time),
    )


def credit_lines_from_proto(request: pb.CreateCreditNoteRequest) -> list[CreditNoteLine]:
    """The lines of a CreateCreditNoteRequest."""
    return [CreditNoteLine(line.line_number, micro_from_money(line.amount), line.description) for line in request.lines]


def view_to_proto(view: InvoiceView) -> invoice_pb2.Invoice:
    """An invoice with its credit notes to Invoice."""
    invoice = invoice_to_proto(view.invoice)
    invoice.credit_notes.extend(credit_note_to_proto(note) for note in view.credit_notes)
    return invoice


def invoice_to_proto(invoice: Invoice) -> invoice_pb2.Invoice:
    """Domain to Invoice, without credit notes."""
    return invoice_pb2.Invoice(
        invoice_id=invoice.invoice_id,
        account_id=invoice.account_id,
        number=invoice.number,
        sequence_number=invoice.sequence_number,
        kind=invoice.kind.value,  # type: ignore[arg-type]  # the numbers are the contract's
        state=invoice.state.value,  # type: ignore[arg-type]  # as above
        subscription_id=invoice.subscription_id,
        period_start_time=time_to_proto(invoice.period_start_us),
        period_end_time=time_to_proto(invoice.period_end_us),
        customer_name=invoice.customer_name,
        customer_email=invoice.customer_email,
        lines=[_line_to_proto(line) for line in invoice.lines],
        total=money_to_proto(invoice.total_micro),
        amount_credited=money_to_proto(invoice.credited_micro),
        amount_paid=money_to_proto(invoice.paid_micro),
        amount_due=money_to_proto(invoice.due_micro),
        issue_time=optional_time_to_proto(invoice.issue_us),
        due_time=optional_time_to_proto(invoice.due_us),
        pay_time=optional_time_to_proto(invoice.pay_us),
        payment_reference=invoice.payment_reference,
        payment_url=invoice.payment_url,
        void_time=optional_time_to_proto(invoice.void_us),
        void_reason=invoice.void_reason,
    )


def _line_to_proto(line: InvoiceLine) -> invoice_pb2.InvoiceLine:
    return invoice_pb2.InvoiceLine(
        line_number=line.line_number,
        kind=line.kind.value,  # type: ignore[arg-type]  # as above
        description=line.description,
        quantity=line.quantity,
        unit_price=money_to_proto(line.unit_price_micro),
        amount=money_to_proto(line.amount_micro),
        start_time=time_to_proto(line.start_us),
        end_time=time_to_proto(line.end_us),
        plan_id=line.plan_id,
        plan_version=line.plan_version,
        contract_id=line.contract_id,
        change_id=line.change_id,
    )


def credit_note_to_proto(note: CreditNote) -> invoice_pb2.CreditNote:
    """Domain to CreditNote."""
    return invoice_pb2.CreditNote(
        credit_note_id=note.credit_note_id,
        account_id=note.account_id,
        invoice_id=note.invoice_id,
        number=note.number,
        sequence_number=note.sequence_number,
        lines=[
            invoice_pb2.CreditNoteLine(
                line_number=line.line_number,
                amount=money_to_proto(line.amount_micro),
                description=line.description,
            )
            for line in note.lines
        ],
        total=money_to_proto(note.total_micro),
        refund_amount=money_to_proto(note.refund_micro),
        reason=note.reason,
        issue_time=time_to_proto(note.issue_us),
    )


def preview_to_proto(preview: InvoicePreview) -> pb.PreviewInvoiceResponse:
    """Domain to PreviewInvoiceResponse."""
    return pb.PreviewInvoiceResponse(
        invoice=invoice_to_proto(preview.invoice), issue_time=time_to_proto(preview.issue_us)
    )


def paid_to_proto(paid: CorrectedInvoice) -> pb.MarkInvoicePaidResponse:
    """Domain to MarkInvoicePaidResponse."""
    return pb.MarkInvoicePaidResponse(invoice=view_to_proto(paid.view), entitlement_applied=paid.entitlement.applied)


def voided_to_proto(voided: CorrectedInvoice) -> pb.VoidInvoiceResponse:
    """Domain to VoidInvoiceResponse."""
    return pb.VoidInvoiceResponse(invoice=view_to_proto(voided.view), entitlement_applied=voided.entitlement.applied)


def credited_to_proto(note: CreditNote, credited: CorrectedInvoice) -> pb.CreateCreditNoteResponse:
    """Domain to CreateCreditNoteResponse."""
    return pb.CreateCreditNoteResponse(
        credit_note=credit_note_to_proto(note),
        invoice=view_to_proto(credited.view),
        entitlement_applied=credited.entitlement.applied,
    )


def document_to_proto(document: Document) -> Iterator[pb.DownloadInvoiceResponse]:
    """A document's description, then its bytes."""
    yield pb.DownloadInvoiceResponse(
        document=pb.InvoiceDocument(
            file_name=document.file_name,
            content_type="application/pdf",
            size_bytes=len(document.content),
            sha256=document.sha256,
        )
    )
    for begin in range(0, len(document.content), CHUNK_BYTES):
        yield pb.DownloadInvoiceResponse(chunk=document.content[begin : begin + CHUNK_BYTES])
