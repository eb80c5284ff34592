"""Invoices: how they come about, and how they are paid, voided and credited. Pure.

They are kept as the wire has them. What is kept is never changed in place: each step answers another invoice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flowstack_protos.billing.v1 import invoice_pb2 as pb
from flowstack_protos.billing.v1 import invoice_service_pb2 as requests

from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._ids import new_id
from flowstack.testing._plans import micro_of, money
from flowstack.testing._renewal import Charge
from flowstack.testing._terms import Terms
from flowstack.testing._time import DAY_US, Period, datetime_of, timestamp

PAYMENT_TERM_US: Final = 14 * DAY_US
"""From an invoice's issue until it is due."""
PAYMENT_GRACE_US: Final = 14 * DAY_US
"""From then until new sessions are refused with PAYMENT_OVERDUE."""

_NUMBER_DIGITS: Final = 10


def draft_of_charge(charge: Charge) -> pb.Invoice:
    """The invoice of a fee or of an upgrade, without what its issue gives it."""
    is_fee = charge.kind == pb.INVOICE_KIND_PERIOD_FEE
    span = span_of(charge.start_us, charge.period.end_us)
    draft = _draft(charge.kind, charge.subscription_id, charge.period)
    line = draft.lines.add(
        line_number=1,
        kind=pb.INVOICE_LINE_KIND_FEE if is_fee else pb.INVOICE_LINE_KIND_UPGRADE_DIFFERENCE,
        description=f"{charge.terms.name}, {span}" if is_fee else f"Upgrade to {charge.terms.name}, {span}",
        quantity=1,
        unit_price=money(charge.amount_micro),
        amount=money(charge.amount_micro),
        start_time=timestamp(charge.start_us),
        end_time=timestamp(charge.period.end_us),
        change_id=charge.change_id,
    )
    _name_terms(line, charge.terms)
    return _summed(draft)


def draft_of_statement(subscription_id: str, terms: Terms, period: Period, managed: int, byok: int) -> pb.Invoice:
    """A period's closing statement: its sessions, which the fee includes."""
    span = span_of(*period)
    draft = _draft(pb.INVOICE_KIND_USAGE_STATEMENT, subscription_id, period)
    for kind, text, quantity in (
        (pb.INVOICE_LINE_KIND_MANAGED_SESSIONS, f"Sessions on managed providers, {span}", managed),
        (pb.INVOICE_LINE_KIND_BYOK_SESSIONS, f"Sessions on your own provider keys, {span}", byok),
    ):
        if quantity:
            line = draft.lines.add(
                line_number=len(draft.lines) + 1,
                kind=kind,
                description=f"{text}, included in {terms.name}",
                quantity=quantity,
                unit_price=money(0),
                amount=money(0),
                start_time=timestamp(period.start_us),
                end_time=timestamp(period.end_us),
            )
            _name_terms(line, terms)
    return _summed(draft)


def issued(draft: pb.Invoice, sequence_number: int, now_us: int) -> pb.Invoice:
    """The invoice under the account's next number. One with nothing to pay is PAID from the start."""
    invoice = _copy(draft)
    invoice.invoice_id = new_id("inv_")
    invoice.number = printed_number("INV", invoice.account_id, sequence_number)
    invoice.sequence_number = sequence_number
    invoice.issue_time.CopyFrom(timestamp(now_us))
    if micro_of(invoice.total):
        invoice.state = pb.INVOICE_STATE_OPEN
        invoice.due_time.CopyFrom(timestamp(now_us + PAYMENT_TERM_US))
    else:
        invoice.state = pb.INVOICE_STATE_PAID
    return invoice


def paid(invoice: pb.Invoice, reference: str, pay_us: int) -> pb.Invoice:
    """Paid in full.

    Raises:
        FakeError: INVOICE_NOT_OPEN: void, or paid with another reference.
    """
    if invoice.state == pb.INVOICE_STATE_PAID and invoice.payment_reference == reference:
        return invoice
    _refuse_unless_open(invoice)
    after = _copy(invoice)
    after.state = pb.INVOICE_STATE_PAID
    after.amount_paid.CopyFrom(money(micro_of(invoice.amount_paid) + micro_of(invoice.amount_due)))
    after.pay_time.CopyFrom(timestamp(pay_us))
    after.payment_reference = reference
    return _summed(after)


def voided(invoice: pb.Invoice, reason: str, now_us: int) -> pb.Invoice:
    """Void, because it was issued by mistake.

    Raises:
        FakeError: INVOICE_NOT_OPEN: paid, partly credited or void already.
    """
    _refuse_unless_open(invoice)
    if invoice.credit_notes:
        raise FakeError(
            "INVOICE_NOT_OPEN",
            "The invoice is partly credited and cannot be voided any more. Credit the rest of it.",
            metadata={"state": _state(invoice)},
        )
    after = _copy(invoice)
    after.state = pb.INVOICE_STATE_VOID
    after.void_time.CopyFrom(timestamp(now_us))
    after.void_reason = reason
    return _summed(after)


def credited(
    invoice: pb.Invoice, request: requests.CreateCreditNoteRequest, sequence_number: int, now_us: int
) -> pb.Invoice:
    """With one more credit note, its last; what had been paid beyond what is left is refunded.

    Raises:
        FakeError: INVOICE_NOT_OPEN: void; INVALID_REQUEST: an unknown line, or more than is left of one.
    """
    if invoice.state == pb.INVOICE_STATE_VOID:
        _refuse_unless_open(invoice)
    after = _copy(invoice)
    note = after.credit_notes.add(
        credit_note_id=new_id("cn_"),
        account_id=invoice.account_id,
        invoice_id=invoice.invoice_id,
        number=printed_number("CN", invoice.account_id, sequence_number),
        sequence_number=sequence_number,
        reason=request.reason,
        issue_time=timestamp(now_us),
    )
    for index, line in enumerate(request.lines):
        note.lines.add().CopyFrom(_credit_line(invoice, index, line))
    total_micro = sum(micro_of(line.amount) for line in note.lines)
    refund_micro = max(0, total_micro - micro_of(invoice.amount_due))
    note.total.CopyFrom(money(total_micro))
    note.refund_amount.CopyFrom(money(refund_micro))
    # What is refunded is not paid any more: total = credited + paid + due holds throughout.
    after.amount_paid.CopyFrom(money(micro_of(invoice.amount_paid) - refund_micro))
    after = _summed(after)
    if invoice.state == pb.INVOICE_STATE_OPEN and not micro_of(after.amount_due):
        after.state = pb.INVOICE_STATE_PAID
        after.pay_time.CopyFrom(timestamp(now_us))
    return after


def _credit_line(invoice: pb.Invoice, index: int, line: requests.CreditNoteLineInput) -> pb.CreditNoteLine:
    stored = [one for one in invoice.lines if one.line_number == line.line_number]
    if not stored:
        raise invalid_field(f"lines[{index}].line_number", "must be the number of a line of the invoice")
    earlier = [one for note in invoice.credit_notes for one in note.lines if one.line_number == line.line_number]
    left_micro = micro_of(stored[0].amount) - sum(micro_of(one.amount) for one in earlier)
    if micro_of(line.amount) > left_micro:
        raise invalid_field(f"lines[{index}].amount", "must be at most what is left of the line after earlier credits")
    description = line.description or stored[0].description
    return pb.CreditNoteLine(line_number=line.line_number, amount=line.amount, description=description)


def forgotten(invoice: pb.Invoice) -> pb.Invoice:
    """Without the customer's name and address."""
    after = _copy(invoice)
    after.customer_name = after.customer_email = ""
    return after


def oldest_due_us(invoices: Sequence[pb.Invoice]) -> int:
    """When the open invoice that is due first is; 0 where none is open."""
    opened = [one.due_time.ToMicroseconds() for one in invoices if one.state == pb.INVOICE_STATE_OPEN]
    return min(opened, default=0)


def charged_micro(invoices: Sequence[pb.Invoice], period_start_us: int) -> int:
    """What the period that starts then has been invoiced, credits taken off."""
    return sum(
        micro_of(one.total) - micro_of(one.amount_credited)
        for one in invoices
        if one.period_start_time.ToMicroseconds() == period_start_us and one.state != pb.INVOICE_STATE_VOID
    )


def printed_number(prefix: str, account_id: str, sequence_number: int) -> str:
    """The number that stands on paper: INV or CN, part of the account's id, and its own place."""
    return f"{prefix}-{account_id.removeprefix('acct_')[:_NUMBER_DIGITS].upper()}-{sequence_number:05}"


def span_of(start_us: int, end_us: int) -> str:
    """A half-open interval by its first and last day, such as `1 to 31 January 2026`."""
    first, last = datetime_of(start_us), datetime_of(end_us - 1)
    begin = str(first.day)
    if (first.year, first.month) != (last.year, last.month):
        begin += f" {first:%B}"
    if first.year != last.year:
        begin += f" {first.year}"
    return f"{begin} to {last.day} {last:%B} {last.year}"


def _draft(kind: pb.InvoiceKind.ValueType, subscription_id: str, period: Period) -> pb.Invoice:
    return pb.Invoice(
        kind=kind,
        state=pb.INVOICE_STATE_DRAFT,
        subscription_id=subscription_id,
        period_start_time=timestamp(period.start_us),
        period_end_time=timestamp(period.end_us),
    )


def _name_terms(line: pb.InvoiceLine, terms: Terms) -> None:
    line.plan_id, line.plan_version, line.contract_id = terms.plan_id, 1, terms.contract_id


def _summed(invoice: pb.Invoice) -> pb.Invoice:
    """Its sums as they follow from its lines, credit notes and payment."""
    total = sum(micro_of(line.amount) for line in invoice.lines)
    credit = sum(micro_of(note.total) for note in invoice.credit_notes)
    left = 0 if invoice.state == pb.INVOICE_STATE_VOID else max(0, total - credit - micro_of(invoice.amount_paid))
    invoice.total.CopyFrom(money(total))
    invoice.amount_credited.CopyFrom(money(credit))
    invoice.amount_paid.CopyFrom(money(micro_of(invoice.amount_paid)))
    invoice.amount_due.CopyFrom(money(left))
    return invoice


def _refuse_unless_open(invoice: pb.Invoice) -> None:
    if invoice.state != pb.INVOICE_STATE_OPEN:
        state = _state(invoice)
        raise FakeError(
            "INVOICE_NOT_OPEN",
            f"The invoice is {state} and not open. GetInvoice shows how it stands.",
            metadata={"state": state},
        )


def _state(invoice: pb.Invoice) -> str:
    return pb.InvoiceState.Name(invoice.state).removeprefix("INVOICE_STATE_")


def _copy(invoice: pb.Invoice) -> pb.Invoice:
    copied = pb.Invoice()
    copied.CopyFrom(invoice)
    return copied
