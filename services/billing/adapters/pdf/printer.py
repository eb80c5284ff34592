"""Prints invoices and credit notes with reportlab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from threading import Lock
from typing import Any, Final

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import SimpleDocTemplate

from services.billing.adapters.pdf.fonts import Face, Typesetter
from services.billing.adapters.pdf.layout import credit_note_story, invoice_story, title_of
from services.billing.adapters.pdf.style import SOFT, Text
from services.billing.domain.invoices import CreditNote, Invoice

MARGIN: Final = 20 * mm
FRAME_PADDING: Final = 6
"""What reportlab leaves free inside of the margins, in points."""
FOOTER_SIZE: Final = 7.5
FOOTER_Y: Final = MARGIN - 4 * mm

_printing: Final = Lock()
"""reportlab keeps its fonts in the module: one document at a time."""


class PdfPrinter:
    """A printer for one issuer. The same values give the same bytes: no time of printing, no random name."""

    def __init__(self, issuer: str) -> None:
        """Takes the issuer's name and address, lines separated by `|`."""
        self._issuer = [line.strip() for line in issuer.split("|")]
        self._typesetter = Typesetter()

    def print(self, invoice: Invoice, credit_notes: Sequence[CreditNote], note: CreditNote | None) -> bytes:
        """Prints an invoice with a summary of its credit notes, or the one credit note `note`."""
        text = Text(self._typesetter)
        if note is None:
            title, number = title_of(invoice), invoice.number
            build = partial(invoice_story, text, self._issuer, invoice, credit_notes)
        else:
            title, number = "Credit note", note.number
            build = partial(credit_note_story, text, self._issuer, invoice, note)
        footer = f"{self._issuer[0]} · {title} {number}"
        # The footers' characters are known before the page count is.
        for piece in (footer, "Page 0123456789 of"):
            text.mark(piece)
        with _printing:
            # Twice, because the fonts are made of the characters that are used, and type is set with them after that.
            build()
            text.has_fonts = True
            with _registered(text.used):
                return _render(build(), text, f"{title} {number}", self._issuer[0], footer)


@contextmanager
def _registered(used: dict[Face, set[str]]) -> Iterator[None]:
    """Has reportlab know this document's fonts, and no others of their names."""
    fonts = [TTFont(face.name, BytesIO(face.subset(characters))) for face, characters in used.items()]
    for font in fonts:
        pdfmetrics.registerFont(font)
    try:
        yield
    finally:
        # reportlab registers for good, and passes over a second font of a name: it has no call for the opposite.
        for font in fonts:
            pdfmetrics._fonts.pop(font.fontName)
            pdfmetrics._dynFaceNames.pop(font.face.name)


def _render(story: list[Any], text: Text, title: str, author: str, footer: str) -> bytes:
    out = BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=MARGIN - FRAME_PADDING,
        rightMargin=MARGIN - FRAME_PADDING,
        topMargin=MARGIN,
        bottomMargin=MARGIN + 6 * mm,
        title=title,
        author=author,
        subject=title,
        invariant=1,
        lang="en",
    )
    document.build(story, canvasmaker=partial(_NumberedCanvas, text=text, footer=footer))
    return out.getvalue()


class _NumberedCanvas(Canvas):  # type: ignore[misc]  # reportlab has no types
    """Draws the footers at the end, when it is known how many pages there are."""

    def __init__(self, *arguments: Any, text: Text, footer: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._text = text
        self._footer = footer
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:
        """Keeps the page for later."""
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Draws the footers and writes the document."""
        for number, page in enumerate(self._pages, 1):
            self.__dict__.update(page)
            self.setFillColor(SOFT)
            width, _ = A4
            self._text.draw(self, MARGIN, FOOTER_Y, self._footer, FOOTER_SIZE)
            page_of = f"Page {number} of {len(self._pages)}"
            x = width - MARGIN - self._text.width(page_of, FOOTER_SIZE)
            self._text.draw(self, x, FOOTER_Y, page_of, FOOTER_SIZE)
            super().showPage()
        super().save()
