"""The port to the printer of documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.billing.domain.invoices import CreditNote, Invoice


class Printer(Protocol):
    """Prints invoices. Called in a thread of its own."""

    def print(self, invoice: Invoice, credit_notes: Sequence[CreditNote], note: CreditNote | None) -> bytes:
        """Prints an invoice with a summary of its credit notes, or the one credit note `note`, as PDF.

        The same values give the same bytes.
        """
        ...
