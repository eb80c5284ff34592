"""The printer, loaded when something is printed: reportlab and the fonts are a tenth of billing's start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from services.billing.domain.invoices import CreditNote, Invoice

if TYPE_CHECKING:
    from services.billing.adapters.pdf.printer import PdfPrinter


class LatePrinter:
    """A printer for one issuer; see PdfPrinter."""

    def __init__(self, issuer: str) -> None:
        """Takes the issuer's name and address, lines separated by `|`."""
        self._issuer = issuer

    def print(self, invoice: Invoice, credit_notes: Sequence[CreditNote], note: CreditNote | None) -> bytes:
        """Prints; to be called in a thread, which the first time takes a second more."""
        return self._printer.print(invoice, credit_notes, note)

    @cached_property
    def _printer(self) -> PdfPrinter:
        from services.billing.adapters.pdf.printer import PdfPrinter

        return PdfPrinter(self._issuer)
