"""What becomes of an invoice after its issue: it is paid, voided or credited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.invoices import CreditNote, CreditNoteLine, Invoice, InvoiceState, printed_number
from services.shared.errors import FlowStackError, Reason, invalid_request


def pay(invoice: Invoice, reference: str, pay_us: int) -> Invoice:
    """Records a payment in full.

    Raises:
        FlowStackError: INVOICE_NOT_OPEN: void, or paid with another reference.
    """
    if invoice.state is InvoiceState.PAID and invoice.payment_reference == reference:
        return invoice
    _refuse_unless_open(invoice)
    return replace(
        invoice,
        state=InvoiceState.PAID,
        paid_micro=invoice.paid_micro + invoice.due_micro,
        pay_us=pay_us,
        payment_reference=reference,
    )


def void(invoice: Invoice, reason: str, now_us: int) -> Invoice:
    """Voids an invoice that was issued by mistake.

    Raises:
        FlowStackError: INVOICE_NOT_OPEN: paid, partly credited or void already.
    """
    _refuse_unless_open(invoice)
    if invoice.credited_micro:
        raise FlowStackError(
            Reason.INVOICE_NOT_OPEN,
            "The invoice is partly credited and cannot be voided any more. Credit the rest of it.",
            metadata={"state": invoice.state.name},
        )
    return replace(invoice, state=InvoiceState.VOID, void_us=now_us, void_reason=reason)


def credit(
    invoice: Invoice,
    earlier: Sequence[CreditNote],
    lines: Sequence[CreditNoteLine],
    *,
    reason: str,
    sequence_number: int,
    now_us: int,
    randomness: Randomness,
) -> tuple[CreditNote, Invoice]:
    """Credits lines of an invoice; what had been paid beyond what is left is refunded.

    Raises:
        FlowStackError: INVOICE_NOT_OPEN: void; INVALID_REQUEST: an unknown line, or more than is left of one.
    """
    if invoice.state is InvoiceState.VOID:
        _refuse_unless_open(invoice)
    checked = tuple(_checked(invoice, earlier, index, line) for index, line in enumerate(lines))
    total_micro = sum(line.amount_micro for line in checked)
    refund_micro = max(0, total_micro - invoice.due_micro)
    note = CreditNote(
        new_id("cn_", randomness),
        invoice.account_id,
        invoice.invoice_id,
        printed_number("CN", invoice.account_id, sequence_number),
        sequence_number,
        checked,
        refund_micro,
        reason,
        now_us,
    )
    credited = replace(invoice, credited_micro=invoice.credited_micro + total_micro)
    # What is refunded is not paid any more: total = credited + paid + due holds throughout.
    credited = replace(credited, paid_micro=invoice.paid_micro - refund_micro)
    if invoice.state is InvoiceState.OPEN and not credited.due_micro:
        credited = replace(credited, state=InvoiceState.PAID, pay_us=now_us)
    return note, credited


def _checked(invoice: Invoice, earlier: Sequence[CreditNote], index: int, line: CreditNoteLine) -> CreditNoteLine:
    stored = [candidate for candidate in invoice.lines if candidate.line_number == line.line_number]
    if not stored:
        raise invalid_request(f"lines[{index}].line_number", "must be the number of a line of the invoice")
    credited_micro = sum(
        other.amount_micro for note in earlier for other in note.lines if other.line_number == line.line_number
    )
    if line.amount_micro > stored[0].amount_micro - credited_micro:
        raise invalid_request(
            f"lines[{index}].amount", "must be at most what is left of the line after earlier credits"
        )
    return replace(line, description=line.description or stored[0].description)


def _refuse_unless_open(invoice: Invoice) -> None:
    if invoice.state is not InvoiceState.OPEN:
        raise FlowStackError(
            Reason.INVOICE_NOT_OPEN,
            f"The invoice is {invoice.state.name} and not open. GetInvoice shows how it stands.",
            metadata={"state": invoice.state.name},
        )
