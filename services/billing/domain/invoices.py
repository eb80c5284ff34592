"""Invoices: made once from what is charged, immutable from then on; voided or credited instead of edited.

All money is integer micro-dollars, so that lines add up to totals exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.model import Account, Terms
from services.billing.domain.renewal import Charge, ChargeKind
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.periods import Period, time_from_us

DAY_US: Final = 24 * 3600 * 1_000_000

_NUMBER_DIGITS: Final = 10
"""Of an account's id, in a printed number: 50 bits, so that two accounts hardly ever print the same one."""


class InvoiceKind(IntEnum):
    """What an invoice is for. The numbers are the contract's, as everywhere here."""

    PERIOD_FEE = 1
    UPGRADE = 2
    USAGE_STATEMENT = 3


class InvoiceState(IntEnum):
    """Where an invoice stands."""

    DRAFT = 1
    OPEN = 2
    PAID = 3
    VOID = 4


class InvoiceLineKind(IntEnum):
    """What a line charges or states."""

    FEE = 1
    UPGRADE_DIFFERENCE = 2
    MANAGED_SESSIONS = 3
    BYOK_SESSIONS = 4


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """How long customers have to pay."""

    term_us: int = 14 * DAY_US
    """From an invoice's issue to its due time."""
    grace_us: int = 14 * DAY_US
    """From the due time until new sessions are refused with PAYMENT_OVERDUE."""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line. amount = quantity * unit price."""

    line_number: int
    kind: InvoiceLineKind
    description: str
    quantity: int
    unit_price_micro: int
    start_us: int
    end_us: int
    plan_id: str
    plan_version: int
    contract_id: str
    change_id: str

    @property
    def amount_micro(self) -> int:
        """For all of them."""
        return self.quantity * self.unit_price_micro


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice. After its issue only what stands behind `lines` changes, apart from the times of issue and due."""

    invoice_id: str
    account_id: str
    number: str
    sequence_number: int
    kind: InvoiceKind
    state: InvoiceState
    subscription_id: str
    period_start_us: int
    period_end_us: int
    cause: str
    """The change that caused it; empty for a renewal or a statement. One invoice for (subscription, period, kind,
    cause)."""
    customer_name: str
    customer_email: str
    lines: tuple[InvoiceLine, ...]
    issue_us: int
    due_us: int
    credited_micro: int = 0
    paid_micro: int = 0
    pay_us: int = 0
    payment_reference: str = ""
    payment_url: str = ""
    void_us: int = 0
    void_reason: str = ""

    @property
    def total_micro(self) -> int:
        """The sum of the lines."""
        return sum(line.amount_micro for line in self.lines)

    @property
    def due_micro(self) -> int:
        """What is still to be paid."""
        if self.state is InvoiceState.VOID:
            return 0
        return max(0, self.total_micro - self.credited_micro - self.paid_micro)


@dataclass(frozen=True, slots=True)
class CreditNoteLine:
    """A credit on one line of an invoice."""

    line_number: int
    amount_micro: int
    description: str


@dataclass(frozen=True, slots=True)
class CreditNote:
    """Takes back part or all of an invoice. Immutable."""

    credit_note_id: str
    account_id: str
    invoice_id: str
    number: str
    sequence_number: int
    lines: tuple[CreditNoteLine, ...]
    refund_micro: int
    """Of the total, what had been paid already."""
    reason: str
    issue_us: int

    @property
    def total_micro(self) -> int:
        """The sum of the lines."""
        return sum(line.amount_micro for line in self.lines)


class SessionCounts(NamedTuple):
    """Counted sessions of a period."""

    managed: int
    byok: int


class Draft(NamedTuple):
    """An invoice before it has a number."""

    kind: InvoiceKind
    subscription_id: str
    period: Period
    cause: str
    lines: tuple[InvoiceLine, ...]


def draft_of_charge(charge: Charge, catalogue: Catalogue) -> Draft:
    """The invoice of a fee or of an upgrade."""
    is_fee = charge.kind is ChargeKind.PERIOD_FEE
    name = name_of(charge.terms, catalogue)
    span = span_of(charge.start_us, charge.period.end_us)
    line = InvoiceLine(
        1,
        InvoiceLineKind.FEE if is_fee else InvoiceLineKind.UPGRADE_DIFFERENCE,
        f"{name}, {span}" if is_fee else f"Upgrade to {name}, {span}",
        1,
        charge.amount_micro,
        charge.start_us,
        charge.period.end_us,
        charge.terms.plan_id,
        charge.terms.plan_version,
        charge.terms.contract_id,
        charge.change_id,
    )
    # A period has one fee, whatever began it.
    cause = "" if is_fee else charge.change_id
    return Draft(InvoiceKind(charge.kind), charge.subscription_id, charge.period, cause, (line,))


def draft_of_statement(
    subscription_id: str, terms: Terms, period: Period, counts: SessionCounts, catalogue: Catalogue
) -> Draft:
    """A period's closing statement: its sessions, which the fee includes."""
    span = span_of(*period)
    stated = [
        (InvoiceLineKind.MANAGED_SESSIONS, f"Sessions on managed providers, {span}", counts.managed),
        (InvoiceLineKind.BYOK_SESSIONS, f"Sessions on your own provider keys, {span}", counts.byok),
    ]
    lines = [
        InvoiceLine(
            0,
            kind,
            f"{text}, included in {name_of(terms, catalogue)}",
            quantity,
            0,
            *period,
            terms.plan_id,
            terms.plan_version,
            terms.contract_id,
            "",
        )
        for kind, text, quantity in stated
        if quantity
    ]
    numbered = tuple(replace(line, line_number=number) for number, line in enumerate(lines, 1))
    return Draft(InvoiceKind.USAGE_STATEMENT, subscription_id, period, "", numbered)


def issue(
    draft: Draft, account: Account, sequence_number: int, payment: PaymentTerms, *, now_us: int, randomness: Randomness
) -> Invoice:
    """Makes an invoice under the account's next number. One with nothing to pay is PAID from the start."""
    total_micro = sum(line.amount_micro for line in draft.lines)
    return Invoice(
        new_id("inv_", randomness),
        account.account_id,
        _printed("INV", account.account_id, sequence_number),
        sequence_number,
        draft.kind,
        InvoiceState.OPEN if total_micro else InvoiceState.PAID,
        draft.subscription_id,
        *draft.period,
        draft.cause,
        account.display_name,
        account.email,
        draft.lines,
        now_us,
        now_us + payment.term_us if total_micro else 0,
    )


def preview(draft: Draft, account: Account) -> Invoice:
    """The invoice as it would be: DRAFT, without id, number and times."""
    return Invoice(
        "",
        account.account_id,
        "",
        0,
        draft.kind,
        InvoiceState.DRAFT,
        draft.subscription_id,
        *draft.period,
        draft.cause,
        account.display_name,
        account.email,
        draft.lines,
        0,
        0,
    )


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
        _printed("CN", invoice.account_id, sequence_number),
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


def _printed(prefix: str, account_id: str, sequence_number: int) -> str:
    return f"{prefix}-{account_id.removeprefix('acct_')[:_NUMBER_DIGITS].upper()}-{sequence_number:05}"


def name_of(terms: Terms, catalogue: Catalogue) -> str:
    """What the terms are called on an invoice."""
    name = catalogue.plan(terms.plan_id, terms.plan_version).display_name
    return f"{name} (contract)" if terms.contract_id else name


def span_of(start_us: int, end_us: int) -> str:
    """A half-open interval by its first and last day, such as `1 to 31 January 2026`."""
    first, last = time_from_us(start_us), time_from_us(end_us - 1)
    begin = str(first.day)
    if (first.year, first.month) != (last.year, last.month):
        begin += f" {first:%B}"
    if first.year != last.year:
        begin += f" {first.year}"
    return f"{begin} to {last.day} {last:%B} {last.year}"
