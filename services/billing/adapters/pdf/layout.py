"""How invoices and credit notes look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from reportlab.lib.colors import HexColor, white
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, HRFlowable, KeepTogether, Spacer, Table, TableStyle

from services.billing.adapters.pdf.chart import UsageChart
from services.billing.adapters.pdf.style import ACCENT, RULE, SHADE, SOFT, WIDTH, Text
from services.billing.domain.invoices import CreditNote, Invoice, InvoiceKind, InvoiceState
from services.shared.periods import time_from_us

STATE_COLORS: Final = {
    InvoiceState.OPEN: HexColor("#9a6700"),
    InvoiceState.PAID: HexColor("#1a7f37"),
    InvoiceState.VOID: HexColor("#b42318"),
}
QUANTITY_WIDTH: Final = 22 * mm
MONEY_WIDTH: Final = 31 * mm
SUM_WIDTH: Final = 35 * mm

MICRO: Final = 1_000_000


def money(micro: int) -> str:
    """Dollars and cents, and as many places more as it takes to be exact."""
    dollars = Decimal(abs(micro)) / MICRO
    places = max(2, -int(dollars.normalize().as_tuple().exponent))
    return f"{'-' if micro < 0 else ''}${dollars:,.{places}f}"


def date(time_us: int) -> str:
    """A day in UTC, such as 1 March 2026."""
    time = time_from_us(time_us)
    return f"{time.day} {time:%B} {time.year}"


def title_of(invoice: Invoice) -> str:
    """What the document calls itself."""
    return "Usage statement" if invoice.kind is InvoiceKind.USAGE_STATEMENT else "Invoice"


def invoice_story(
    text: Text, issuer: Sequence[str], invoice: Invoice, credit_notes: Sequence[CreditNote]
) -> list[Flowable]:
    """An invoice from top to bottom."""
    facts = [("Number", invoice.number), ("Issued", date(invoice.issue_us))]
    if invoice.due_us:
        facts.append(("Due", date(invoice.due_us)))
    facts.append(("Period", f"{date(invoice.period_start_us)} to {date(invoice.period_end_us - 1)}"))
    story = _head(text, issuer, title_of(invoice))
    story += [_parties(text, invoice, facts), Spacer(0, 9 * mm), _lines(text, invoice), Spacer(0, 4 * mm)]
    story += [_totals(text, invoice), Spacer(0, 8 * mm), *_remarks(text, invoice)]
    if invoice.usage is not None:
        story += [Spacer(0, 8 * mm), UsageChart(text, invoice.usage, invoice.period_start_us)]
    for note in credit_notes:
        line = f"Credit note {note.number} of {date(note.issue_us)}: {money(note.total_micro)}. {note.reason}"
        story += [Spacer(0, 2 * mm), text.paragraph(line, 8.5, color=SOFT)]
    return story


def credit_note_story(text: Text, issuer: Sequence[str], invoice: Invoice, note: CreditNote) -> list[Flowable]:
    """A credit note from top to bottom."""
    facts = [("Number", note.number), ("Issued", date(note.issue_us)), ("For invoice", invoice.number)]
    rows = [[text.paragraph(line.description), text.figure(money(line.amount_micro), SUM_WIDTH)] for line in note.lines]
    totals = [("Total credited", money(note.total_micro), True)]
    if note.refund_micro:
        totals.append(("Of this refunded", money(note.refund_micro), False))
    return [
        *_head(text, issuer, "Credit note"),
        _parties(text, invoice, facts, "Credited to"),
        Spacer(0, 9 * mm),
        _table(text, ("Description", "Amount"), rows, (WIDTH - SUM_WIDTH, SUM_WIDTH)),
        Spacer(0, 4 * mm),
        _sums(text, totals),
        Spacer(0, 8 * mm),
        text.paragraph(f"Reason: {note.reason}", 8.5, color=SOFT),
    ]


def _head(text: Text, issuer: Sequence[str], title: str) -> list[Flowable]:
    name, *address = issuer
    left = [text.paragraph(name, 15, bold=True, color=ACCENT)]
    left += [text.paragraph(line, 8.5, color=SOFT) for line in address]
    right = [text.paragraph(title, 20, bold=True, right=True)]
    table = Table([[left, right]], colWidths=(WIDTH * 0.55, WIDTH * 0.45))
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_flush()]))
    return [table, Spacer(0, 4 * mm), HRFlowable(width=WIDTH, thickness=1.4, color=ACCENT), Spacer(0, 7 * mm)]


def _parties(text: Text, invoice: Invoice, facts: Sequence[tuple[str, str]], to: str = "Billed to") -> Flowable:
    customer = [text.paragraph(to, 8, color=SOFT)]
    # Blank once the account's personal data has been purged.
    customer.append(text.paragraph(invoice.customer_name or "Deleted customer", 11, bold=True))
    if invoice.customer_email:
        customer.append(text.paragraph(invoice.customer_email))
    customer.append(text.paragraph(f"Account {invoice.account_id}", 8, color=SOFT))
    rows = [[text.paragraph(label, 8.5, color=SOFT), text.paragraph(value, 9)] for label, value in facts]
    table = Table(rows, colWidths=(24 * mm, WIDTH * 0.5 - 24 * mm))
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_flush(bottom=2)]))
    both = Table([[customer, table]], colWidths=(WIDTH * 0.5, WIDTH * 0.5))
    style = [("VALIGN", (0, 0), (-1, -1), "TOP"), *_flush(), ("RIGHTPADDING", (0, 0), (0, 0), 8 * mm)]
    both.setStyle(TableStyle(style))
    return both


def _lines(text: Text, invoice: Invoice) -> Flowable:
    rows = [
        [
            text.paragraph(line.description),
            text.figure(f"{line.quantity:,}", QUANTITY_WIDTH),
            text.figure(money(line.unit_price_micro), MONEY_WIDTH),
            text.figure(money(line.amount_micro), MONEY_WIDTH),
        ]
        for line in invoice.lines
    ]
    widths = (WIDTH - QUANTITY_WIDTH - 2 * MONEY_WIDTH, QUANTITY_WIDTH, MONEY_WIDTH, MONEY_WIDTH)
    return _table(text, ("Description", "Quantity", "Unit price", "Amount"), rows, widths)


def _table(text: Text, heads: Sequence[str], rows: list[list[Flowable]], widths: Sequence[float]) -> Flowable:
    first = [text.paragraph(head, 8.5, bold=True, color=white, right=place > 0) for place, head in enumerate(heads)]
    table = Table([first, *rows], colWidths=widths, repeatRows=1)
    style = [
        ("BACKGROUND", (0, 0), (-1, 0), ACCENT),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 1), (-1, -1), 0.5, RULE),
        ("TOPPADDING", (0, 0), (-1, -1), 5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
    ]
    table.setStyle(TableStyle(style))
    return table


def _totals(text: Text, invoice: Invoice) -> Flowable:
    sums = [("Total", money(invoice.total_micro), False)]
    if invoice.credited_micro:
        sums.append(("Credited", money(-invoice.credited_micro), False))
    if invoice.paid_micro:
        sums.append(("Paid", money(-invoice.paid_micro), False))
    sums.append(("Amount due (USD)", money(invoice.due_micro), True))
    return _sums(text, sums)


def _sums(text: Text, sums: Sequence[tuple[str, str, bool]]) -> Flowable:
    rows = [
        [text.paragraph(label, bold=strong), text.figure(value, SUM_WIDTH, bold=strong)]
        for label, value, strong in sums
    ]
    table = Table(rows, colWidths=(45 * mm, SUM_WIDTH), hAlign="RIGHT")
    style: list[Any] = [("TOPPADDING", (0, 0), (-1, -1), 3), ("BOTTOMPADDING", (0, 0), (-1, -1), 4)]
    for place, (_, _, strong) in enumerate(sums):
        if strong:
            style.append(("BACKGROUND", (0, place), (-1, place), SHADE))
    table.setStyle(TableStyle(style))
    return KeepTogether([table])


def _remarks(text: Text, invoice: Invoice) -> Iterator[Flowable]:
    # A statement asks for nothing, so it is not paid either; VOID it can be.
    if invoice.kind is not InvoiceKind.USAGE_STATEMENT or invoice.state is InvoiceState.VOID:
        yield text.paragraph(f"Status: {invoice.state.name.title()}", 10, bold=True, color=STATE_COLORS[invoice.state])
    for remark in _sentences(invoice):
        yield text.paragraph(remark, 8.5, color=SOFT)


def _sentences(invoice: Invoice) -> Iterator[str]:
    if invoice.kind is InvoiceKind.USAGE_STATEMENT:
        yield "The fee of the period includes these sessions. Nothing has to be paid."
        return
    if invoice.state is InvoiceState.VOID:
        yield f"Voided on {date(invoice.void_us)}: {invoice.void_reason.rstrip('. ')}. Nothing has to be paid."
    elif invoice.state is InvoiceState.OPEN:
        yield f"Please pay {money(invoice.due_micro)} by {date(invoice.due_us)}, naming {invoice.number}."
        if invoice.payment_url:
            yield f"Pay online: {invoice.payment_url}"
    elif invoice.payment_reference:
        yield f"Paid on {date(invoice.pay_us)}, reference {invoice.payment_reference}."
    yield "Fees are for one month in advance. All times are UTC."


def _flush(bottom: float = 0) -> list[tuple[Any, ...]]:
    """A table without padding."""
    return [
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 0),
        ("BOTTOMPADDING", (0, 0), (-1, -1), bottom),
    ]
