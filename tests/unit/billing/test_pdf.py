"""Printed documents: reproducible, in every script, with every figure."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from pypdf import PdfReader

from services.billing.adapters.pdf.chart import axis_top
from services.billing.adapters.pdf.fonts import Typesetter
from services.billing.adapters.pdf.layout import money
from services.billing.adapters.pdf.printer import PdfPrinter
from services.billing.domain.invoices import (
    CreditNote,
    CreditNoteLine,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceLineKind,
    InvoiceState,
    StatedUsage,
)
from tests.support.clock import us

NAMES = {
    "latin": "Żółć & Söhne <AG>",
    "greek": "Αθήνα Ελλάς",
    "cyrillic": "Сыновья Київ",
    "chinese": "北京流程有限公司",
    "japanese": "株式会社フロー",
    "korean": "주식회사 흐름",
}
LINE = InvoiceLine(
    1, InvoiceLineKind.FEE, "Starter, 1 to 31 January 2026", 1, 50_000_000, us(2026, 1, 1), us(2026, 2, 1),
    "starter", 1, "", "",
)  # fmt: skip
INVOICE = Invoice(
    "inv_1", "acct_1", "INV-1-00001", 1, InvoiceKind.PERIOD_FEE, InvoiceState.OPEN, "sub_1", us(2026, 1, 1),
    us(2026, 2, 1), "", "Ada", "ada@example.org", (LINE,), us(2026, 1, 1), us(2026, 1, 15),
)  # fmt: skip
NOTE = CreditNote(
    "cn_1", "acct_1", "inv_1", "CN-1-00001", 1, (CreditNoteLine(1, 12_345_678, "An outage"),), 5_000_000, "An outage",
    us(2026, 1, 20),
)  # fmt: skip

STATEMENT = replace(
    INVOICE, kind=InvoiceKind.USAGE_STATEMENT, state=InvoiceState.PAID, due_us=0,
    usage=StatedUsage(1_000, tuple(day % 7 * 9 for day in range(31))),
)  # fmt: skip


@pytest.fixture(scope="module")
def printer() -> PdfPrinter:
    return PdfPrinter("FlowStack Inc. | 1 Session Street")


def text_of(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)


@pytest.mark.parametrize("script", NAMES)
def test_a_name_of_any_script_is_printed_and_embedded(printer: PdfPrinter, script: str) -> None:
    # After another document, whose fonts have other characters.
    printer.print(INVOICE, (), None)
    content = printer.print(replace(INVOICE, customer_name=NAMES[script]), (), None)
    assert NAMES[script] in text_of(content)
    for page in PdfReader(BytesIO(content)).pages:
        for font in page["/Resources"]["/Font"].values():
            described = font.get_object()
            if described["/BaseFont"] != "/Helvetica":
                assert "/FontFile2" in described["/FontDescriptor"]


def test_the_same_document_has_the_same_bytes_from_any_printer(printer: PdfPrinter) -> None:
    mixed = replace(INVOICE, customer_name=" · ".join(NAMES.values()))
    content = printer.print(mixed, (NOTE,), None)
    printer.print(INVOICE, (), None)
    assert printer.print(mixed, (NOTE,), None) == content
    assert PdfPrinter("FlowStack Inc. | 1 Session Street").print(mixed, (NOTE,), None) == content


def test_every_figure_is_on_it(printer: PdfPrinter) -> None:
    printed = text_of(printer.print(replace(INVOICE, credited_micro=12_345_678), (NOTE,), None))
    for piece in ("FlowStack Inc.", "1 Session Street", "INV-1-00001", "15 January 2026", "Starter, 1 to 31 January",
                  "$50.00", "-$12.345678", "$37.654322", "CN-1-00001", "Status: Open", "Page 1 of 1"):  # fmt: skip
        assert piece in printed, piece
    note = text_of(printer.print(INVOICE, (NOTE,), NOTE))
    for piece in ("Credit note", "CN-1-00001", "INV-1-00001", "$12.345678", "Of this refunded", "$5.00"):
        assert piece in note, piece


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"state": InvoiceState.VOID, "void_us": us(2026, 1, 3), "void_reason": "Twice"}, "Voided on 3 January 2026"),
        (
            {"state": InvoiceState.PAID, "paid_micro": 50_000_000, "pay_us": us(2026, 1, 4), "payment_reference": "w1"},
            "Paid on 4 January 2026, reference w1",
        ),
        ({"kind": InvoiceKind.USAGE_STATEMENT, "state": InvoiceState.PAID}, "Usage statement"),
        ({"customer_name": "", "customer_email": ""}, "Deleted customer"),
        ({"payment_url": "https://pay.example/x"}, "https://pay.example/x"),
    ],
)
def test_how_it_stands_is_on_it(printer: PdfPrinter, changes: dict[str, object], sentence: str) -> None:
    assert sentence in text_of(printer.print(replace(INVOICE, **changes), (), None))  # type: ignore[arg-type]


def test_a_figure_of_any_length_stands_on_one_line(printer: PdfPrinter) -> None:
    line = replace(LINE, quantity=2_147_483_647, unit_price_micro=1_000_000_000_000_001)
    printed = text_of(printer.print(replace(INVOICE, lines=(line,)), (NOTE,), None))
    for piece in ("2,147,483,647", "$1,000,000,000.000001", "$2,147,483,647,000,002,147.483647"):
        assert piece in printed, piece
    credited = replace(NOTE, lines=(CreditNoteLine(1, 1_000_000_000_999_999, "An outage"),))
    assert "$1,000,000,000.999999" in text_of(printer.print(INVOICE, (credited,), credited))


def test_a_statement_calls_itself_one_and_claims_no_payment(printer: PdfPrinter) -> None:
    content = printer.print(STATEMENT, (), None)
    assert "Usage statement INV-1-00001" in text_of(content)
    assert "Status" not in text_of(content)
    assert PdfReader(BytesIO(content)).metadata.title == "Usage statement INV-1-00001"  # type: ignore[union-attr]


def operators_of(content: bytes, operator: bytes) -> int:
    """How many times a page draws so."""
    (page,) = PdfReader(BytesIO(content)).pages
    return page.get_contents().get_data().split().count(operator)  # type: ignore[union-attr]


def test_a_statement_shows_its_sessions_by_day(printer: PdfPrinter) -> None:
    content = printer.print(STATEMENT, (), None)
    printed = text_of(content)
    for piece in ("Sessions by day", "783 of 1,000 sessions used", "limit 1,000", "1,200", "300", "1 Jan", "29 Jan"):
        assert piece in printed, piece
    assert PdfPrinter("FlowStack Inc. | 1 Session Street").print(STATEMENT, (), None) == content
    # A column and a piece of the line for each day; as vectors, not as an image.
    without = printer.print(replace(STATEMENT, usage=None), (), None)
    assert operators_of(content, b"re") - operators_of(without, b"re") == 31
    assert operators_of(content, b"l") - operators_of(without, b"l") >= 31
    assert list(PdfReader(BytesIO(content)).pages[0].images) == []


def test_what_has_no_usage_to_show_has_no_picture(printer: PdfPrinter) -> None:
    for content in (
        printer.print(INVOICE, (NOTE,), None),
        printer.print(STATEMENT, (NOTE,), NOTE),
        printer.print(replace(STATEMENT, usage=None), (), None),
    ):
        assert "Sessions by day" not in text_of(content)
        assert "limit" not in text_of(content)


@pytest.mark.parametrize("usage", [StatedUsage(0, (3,)), StatedUsage(25, (0,) * 32), StatedUsage(5, (2**31 - 1, 7))])
def test_any_usage_is_drawn(printer: PdfPrinter, usage: StatedUsage) -> None:
    assert f"limit {usage.session_limit}" in text_of(printer.print(replace(STATEMENT, usage=usage), (), None))


@pytest.mark.parametrize(
    ("most", "top"), [(0, 4), (1, 4), (9, 12), (25, 32), (200, 240), (1_000, 1_200), (5_000, 6_000), (25_000, 32_000)]
)
def test_an_axis_ends_above_in_round_quarters(most: int, top: int) -> None:
    assert axis_top(most) == top


def test_a_reason_that_is_a_sentence_ends_once(printer: PdfPrinter) -> None:
    void = replace(INVOICE, state=InvoiceState.VOID, void_us=us(2026, 1, 3), void_reason="It was a mistake.")
    assert "It was a mistake. Nothing has to be paid." in text_of(printer.print(void, (), None))


def test_many_lines_go_on_on_the_next_page(printer: PdfPrinter) -> None:
    lines = tuple(replace(LINE, line_number=number, description=f"Line {number}") for number in range(1, 81))
    content = printer.print(replace(INVOICE, lines=lines), (), None)
    assert len(PdfReader(BytesIO(content)).pages) > 2
    assert "$4,000.00" in text_of(content)


def test_what_no_font_has_is_told_apart_from_nothing() -> None:
    runs = list(Typesetter().runs("a\U0001f984"))
    assert "".join(run for _, run in runs) == "a\ufffd"


@pytest.mark.parametrize(
    ("micro", "printed"),
    [(0, "$0.00"), (1, "$0.000001"), (50_000_000, "$50.00"), (-1_234_500_000, "-$1,234.50"), (10_000, "$0.01")],
)
def test_money_is_exact(micro: int, printed: str) -> None:
    assert money(micro) == printed
