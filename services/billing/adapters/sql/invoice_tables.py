"""The tables of invoices, the audit log, what is due, and the way to the payment provider. Conventions as in `tables`.

Triggers, made by the migration, refuse to change an invoice's content, a credit note or an audit event, and to delete
any of them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from services.billing.adapters.sql.tables import METADATA


def texts(*names: str) -> list[Column[str]]:
    """Columns of text."""
    return [Column(name, Text, nullable=False) for name in names]


def bigs(*names: str) -> list[Column[int]]:
    """Columns of times and money."""
    return [Column(name, BigInteger, nullable=False) for name in names]


def numbers(*names: str) -> list[Column[int]]:
    """Columns of small numbers."""
    return [Column(name, Integer, nullable=False) for name in names]


INVOICES: Final = Table(
    "invoices",
    METADATA,
    Column("invoice_id", Text, primary_key=True, nullable=False),
    *texts("account_id", "number"),
    *numbers("sequence_number", "kind", "state"),
    *texts("subscription_id"),
    *bigs("period_start_us", "period_end_us"),
    *texts("cause", "customer_name", "customer_email", "lines"),
    *bigs("total_micro", "issue_us", "due_us", "credited_micro", "paid_micro", "pay_us"),
    *texts("payment_reference", "payment_url"),
    *bigs("void_us"),
    *texts("void_reason", "usage"),
    # Without gaps, because the account is locked while a number is allotted.
    Index("invoices_by_number", "account_id", "sequence_number", unique=True),
    # A fee is invoiced once, whoever comes to think that it is due.
    Index("invoices_by_cause", "subscription_id", "period_start_us", "kind", "cause", unique=True),
    Index("invoices_by_due", "account_id", "state", "due_us"),
    Index("invoices_by_period", "account_id", "period_start_us"),
)

CREDIT_NOTES: Final = Table(
    "credit_notes",
    METADATA,
    Column("credit_note_id", Text, primary_key=True, nullable=False),
    *texts("account_id", "invoice_id", "number"),
    *numbers("sequence_number"),
    *texts("lines"),
    *bigs("total_micro", "refund_micro"),
    *texts("reason"),
    *bigs("issue_us"),
    Index("credit_notes_by_number", "account_id", "sequence_number", unique=True),
    Index("credit_notes_by_invoice", "invoice_id"),
)

AUDIT_EVENTS: Final = Table(
    "audit_events",
    METADATA,
    Column("audit_event_id", Text, primary_key=True, nullable=False),
    *texts("account_id"),
    *bigs("event_us"),
    *numbers("actor_kind"),
    *texts("actor_id", "peer", "trace_id", "action", "resource_type", "resource_id", "changes"),
    *texts("request_id", "reason"),
    Index("audit_events_by_account", "account_id", "event_us", "audit_event_id"),
    Index("audit_events_by_time", "event_us", "audit_event_id"),
)

DUE_ACCOUNTS: Final = Table(
    "due_accounts",
    METADATA,
    Column("account_id", Text, primary_key=True, nullable=False),
    *bigs("due_us"),
    Index("due_accounts_by_time", "due_us"),
)

PAYMENT_ERRANDS: Final = Table(
    "payment_errands",
    METADATA,
    Column("invoice_id", Text, primary_key=True, nullable=False),
    Column("kind", Integer, primary_key=True, autoincrement=False, nullable=False),
    Column("credit_note_id", Text, primary_key=True, nullable=False),
    *texts("account_id"),
    Column("pending", Boolean, nullable=False),
    *numbers("place", "attempts"),
    *bigs("next_attempt_us", "update_us"),
    Index("payment_errands_by_due", "pending", "next_attempt_us"),
)

PROVIDER_IDS: Final = Table(
    "provider_ids",
    METADATA,
    Column("resource_id", Text, primary_key=True, nullable=False),
    *texts("provider_id"),
)
