"""Invoices and credit notes: immutable once issued; voided or credited instead of edited.

All money is integer micro-dollars, so that lines add up to totals exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

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
class StatedUsage:
    """What a closing statement's picture shows. Kept with it, so that it is printed alike for ever."""

    session_limit: int
    """Sessions that the period allowed at its end."""
    sessions: tuple[int, ...]
    """Counted ones, by day of UTC; the period begins within the first and ends within the last."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice. After its issue only what stands behind `usage` changes."""

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
    usage: StatedUsage | None = None
    """Of a usage statement; None for others, and for statements from before it was kept."""
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


def printed_number(prefix: str, account_id: str, sequence_number: int) -> str:
    """The number that stands on paper: INV or CN, part of the account's id, and its own place."""
    return f"{prefix}-{account_id.removeprefix('acct_')[:_NUMBER_DIGITS].upper()}-{sequence_number:05}"
