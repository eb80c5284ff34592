"""The part of the store's port that holds invoices, the audit log, what is due, and the way to the payment provider."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.billing.domain.audit import ActorKind, AuditEvent
from services.billing.domain.invoices import CreditNote, Invoice, InvoiceKind, InvoiceState, SessionCounts
from services.billing.domain.paging import Position
from services.billing.domain.payments import PaymentErrandKind
from services.shared.periods import Period


@dataclass(frozen=True, slots=True)
class InvoiceFilter:
    """Which invoices of an account are listed."""

    states: tuple[InvoiceState, ...]
    """Empty for all; so with the others."""
    kinds: tuple[InvoiceKind, ...]
    start_us: int
    """Issued at or after; 0 for all."""
    end_us: int
    """Issued before; 0 for all."""


class Invoices(Protocol):
    """Invoices and credit notes."""

    async def next_number(self, account_id: str) -> int:
        """The account's next invoice number; the transaction has the account locked, so that there is no gap."""
        ...

    async def next_credit_number(self, account_id: str) -> int:
        """The account's next credit note number, likewise."""
        ...

    async def insert(self, invoice: Invoice) -> None:
        """Adds an invoice."""

    async def update(self, invoice: Invoice) -> None:
        """Writes an invoice's state, payment and credits. Nothing else of it can be written."""

    async def get(self, account_id: str, invoice_id: str) -> Invoice:
        """Reads an invoice.

        Raises:
            FlowStackError: INVOICE_NOT_FOUND, also for another account's.
        """
        ...

    async def find_of(self, subscription_id: str, period_start_us: int, kind: InvoiceKind, cause: str) -> str:
        """The id of the invoice for that; empty for none. There is at most one."""
        ...

    async def list(
        self, account_id: str, wanted: InvoiceFilter, after: Position | None, limit: int
    ) -> Sequence[Invoice]:
        """Invoices of an account, newest first."""
        ...

    async def oldest_due_us(self, account_id: str) -> int:
        """The due time of the account's open invoice that is due first; 0 for none."""
        ...

    async def charged_micro(self, account_id: str, period_start_us: int) -> int:
        """What the period that starts then has been invoiced so far, credits taken off, void ones left out."""
        ...

    async def insert_credit_note(self, note: CreditNote) -> None:
        """Adds a credit note."""

    async def credit_notes(self, invoice_ids: Collection[str]) -> Sequence[CreditNote]:
        """Credit notes of invoices, in the order in which they were issued."""
        ...

    async def forget_customer(self, account_id: str) -> None:
        """Blanks the customer's name and address on every invoice of an account."""

    async def session_counts(self, account_id: str, period: Period) -> SessionCounts:
        """Counted sessions of a period, from the ledger."""
        ...

    async def is_complete_until(self, partition: int, moment_us: int) -> bool:
        """Whether the ledger has the resolution of every session of the partition reserved before `moment_us`."""
        ...


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audit events are listed. What is empty or 0 lets everything through."""

    account_id: str
    start_us: int
    end_us: int
    actions: tuple[str, ...]
    actor_kinds: tuple[ActorKind, ...]
    resource_id: str


class Audit(Protocol):
    """The audit log, append-only."""

    async def insert(self, event: AuditEvent) -> None:
        """Adds an event."""

    async def list(self, wanted: AuditFilter, after: Position | None, limit: int) -> Sequence[AuditEvent]:
        """Events, newest first."""
        ...


class PaymentErrand(NamedTuple):
    """Something to be done at the payment provider."""

    account_id: str
    invoice_id: str
    kind: PaymentErrandKind
    credit_note_id: str
    """Empty but for a credit note's."""
    attempts: int


class Payments(Protocol):
    """The outbox to the payment provider, and what things are called there."""

    async def add(self, errand: PaymentErrand, now_us: int) -> None:
        """Adds an errand, to be done at once. Each is there once for good."""

    async def due(self, now_us: int, limit: int) -> Sequence[PaymentErrand]:
        """Errands to be done by now, in the order in which they were added; of each invoice the first one only."""
        ...

    async def finish(self, errand: PaymentErrand, now_us: int) -> None:
        """The errand is done."""

    async def postpone(self, errand: PaymentErrand, next_attempt_us: int) -> None:
        """The errand was in vain, and is to be tried again then."""

    async def provider_id(self, resource_id: str) -> str:
        """What an account or an invoice is called at the provider; empty where it is not there yet."""
        ...

    async def put_provider_id(self, resource_id: str, provider_id: str) -> None:
        """Remembers what an account or an invoice is called at the provider."""

    async def put_payment_url(self, invoice_id: str, payment_url: str) -> None:
        """Remembers where an invoice can be paid."""


class DueAccounts(Protocol):
    """When something is next due in each account: a renewal, a change, the end of a grace or of a suspension."""

    async def due(self, now_us: int, limit: int) -> Sequence[str]:
        """Accounts in which something is due by now, the longest due first."""
        ...

    async def next_us(self) -> int | None:
        """When something is next due in any account; None for never."""
        ...

    async def put(self, account_id: str, due_us: int) -> None:
        """Sets when something is next due in an account."""
