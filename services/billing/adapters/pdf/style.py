"""Colours and measures of printed documents, and how their text is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_LEFT, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.platypus import Flowable, Paragraph, Spacer

from services.billing.adapters.pdf.fonts import Face, Typesetter

INK: Final = HexColor("#1a2233")
SOFT: Final = HexColor("#5b6577")
RULE: Final = HexColor("#d5dae3")
SHADE: Final = HexColor("#f3f5f9")
ACCENT: Final = HexColor("#2450a8")
WIDTH: Final = A4[0] - 40 * mm
CELL_PADDING: Final = 12.5
"""What reportlab's tables leave free at both sides of a cell, and half a point for rounding."""


class Text:
    """Makes paragraphs, each character in a face that has it, and remembers which characters were used."""

    def __init__(self, typesetter: Typesetter) -> None:
        self._typesetter = typesetter
        self.used: dict[Face, set[str]] = {}
        self.has_fonts = False
        """False while only characters are gathered."""

    def runs(self, text: str, *, bold: bool = False) -> Iterator[tuple[Face, str]]:
        """The text in pieces of one face each."""
        for face, run in self._typesetter.runs(text, bold=bold):
            self.used.setdefault(face, set()).update(run)
            yield face, run

    def mark(self, text: str, *, bold: bool = False) -> None:
        """Has the characters of `text` in the fonts."""
        for _ in self.runs(text, bold=bold):
            pass

    def draw(self, canvas: Any, x: float, y: float, text: str, size: float, *, bold: bool = False) -> None:
        """Writes one line on a canvas, from x on, in points."""
        for face, run in self.runs(text, bold=bold):
            canvas.setFont(face.name, size)
            canvas.drawString(x, y, run)
            x += canvas.stringWidth(run, face.name, size)

    def width(self, text: str, size: float, *, bold: bool = False) -> float:
        """How wide the text is, in points."""
        width: float = sum(pdfmetrics.stringWidth(run, face.name, size) for face, run in self.runs(text, bold=bold))
        return width

    def figure(self, text: str, width: float, size: float = 9.5, *, bold: bool = False) -> Flowable:
        """A figure at the right of a column: on one line whatever its length, smaller where it has to be."""
        if self.has_fonts:
            size = min(size, size * (width - CELL_PADDING) / self.width(text, size, bold=bold))
        return self.paragraph(text, size, bold=bold, right=True)

    def paragraph(
        self, text: str, size: float = 9.5, *, bold: bool = False, color: Any = INK, right: bool = False
    ) -> Flowable:
        """One paragraph; breaks between any two characters where it has CJK."""
        runs = list(self.runs(text, bold=bold))
        markup = "".join(f'<font name="{face.name}">{escape(run)}</font>' for face, run in runs)
        base = self._typesetter.bold if bold else self._typesetter.regular
        self.used.setdefault(base, set()).add(" ")
        if not self.has_fonts:
            return Spacer(0, 0)
        style = ParagraphStyle(
            "text",
            fontName=base.name,
            fontSize=size,
            leading=size * 1.4,
            textColor=color,
            alignment=TA_RIGHT if right else TA_LEFT,
            wordWrap="CJK" if any(face is self._typesetter.cjk for face, _ in runs) else None,
            splitLongWords=1,
        )
        return Paragraph(markup, style)
