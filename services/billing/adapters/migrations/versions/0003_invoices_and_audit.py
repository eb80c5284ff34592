"""Scheduled terms, invoices, credit notes, the audit log, what is due, and the outbox to the payment provider."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CONTENT = (
    "invoice_id",
    "account_id",
    "number",
    "sequence_number",
    "kind",
    "subscription_id",
    "period_start_us",
    "period_end_us",
    "cause",
    "lines",
    "total_micro",
    "issue_us",
    "due_us",
)
"""What of an invoice never changes."""
CUSTOMER = ("customer_name", "customer_email")
"""What of an invoice is only ever blanked."""
GUARDED = ("invoices", "credit_notes", "audit_events")


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _bigs(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def upgrade() -> None:
    """Makes the tables and their guards."""
    for name in ("billed_us", "stated_us"):
        op.add_column("subscriptions", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    for name in ("schedule", "contract", "cancel_change_id"):
        op.add_column("subscriptions", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE subscriptions SET billed_us = anchor_us, stated_us = anchor_us")
    _create_invoices()
    _create_audit()
    _create_payments()
    op.execute("INSERT INTO due_accounts (account_id, due_us) SELECT account_id, 0 FROM accounts")
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _create_invoices() -> None:
    op.create_table(
        "invoices",
        *_texts("invoice_id", "account_id", "number"),
        *_numbers("sequence_number", "kind", "state"),
        *_texts("subscription_id"),
        *_bigs("period_start_us", "period_end_us"),
        *_texts("cause", "customer_name", "customer_email", "lines"),
        *_bigs("total_micro", "issue_us", "due_us", "credited_micro", "paid_micro", "pay_us"),
        *_texts("payment_reference", "payment_url"),
        *_bigs("void_us"),
        *_texts("void_reason"),
        sa.PrimaryKeyConstraint("invoice_id"),
    )
    op.create_index("invoices_by_number", "invoices", ["account_id", "sequence_number"], unique=True)
    cause = ["subscription_id", "period_start_us", "kind", "cause"]
    op.create_index("invoices_by_cause", "invoices", cause, unique=True)
    op.create_index("invoices_by_due", "invoices", ["account_id", "state", "due_us"])
    op.create_index("invoices_by_period", "invoices", ["account_id", "period_start_us"])
    op.create_table(
        "credit_notes",
        *_texts("credit_note_id", "account_id", "invoice_id", "number"),
        *_numbers("sequence_number"),
        *_texts("lines"),
        *_bigs("total_micro", "refund_micro"),
        *_texts("reason"),
        *_bigs("issue_us"),
        sa.PrimaryKeyConstraint("credit_note_id"),
    )
    op.create_index("credit_notes_by_number", "credit_notes", ["account_id", "sequence_number"], unique=True)
    op.create_index("credit_notes_by_invoice", "credit_notes", ["invoice_id"])


def _create_audit() -> None:
    op.create_table(
        "audit_events",
        *_texts("audit_event_id", "account_id"),
        *_bigs("event_us"),
        *_numbers("actor_kind"),
        *_texts("actor_id", "peer", "trace_id", "action", "resource_type", "resource_id", "changes"),
        *_texts("request_id", "reason"),
        sa.PrimaryKeyConstraint("audit_event_id"),
    )
    op.create_index("audit_events_by_account", "audit_events", ["account_id", "event_us", "audit_event_id"])
    op.create_index("audit_events_by_time", "audit_events", ["event_us", "audit_event_id"])
    op.create_table("due_accounts", *_texts("account_id"), *_bigs("due_us"), sa.PrimaryKeyConstraint("account_id"))
    op.create_index("due_accounts_by_time", "due_accounts", ["due_us"])


def _create_payments() -> None:
    op.create_table(
        "payment_errands",
        *_texts("invoice_id"),
        sa.Column("kind", sa.Integer, autoincrement=False, nullable=False),
        *_texts("credit_note_id", "account_id"),
        sa.Column("pending", sa.Boolean, nullable=False),
        *_numbers("place", "attempts"),
        *_bigs("next_attempt_us", "update_us"),
        sa.PrimaryKeyConstraint("invoice_id", "kind", "credit_note_id"),
    )
    op.create_index("payment_errands_by_due", "payment_errands", ["pending", "next_attempt_us"])
    op.create_table("provider_ids", *_texts("resource_id", "provider_id"), sa.PrimaryKeyConstraint("resource_id"))


def _guard_sqlite() -> None:
    op.execute(
        f"CREATE TRIGGER invoices_unchanged BEFORE UPDATE OF {', '.join(CONTENT)} ON invoices "
        "BEGIN SELECT RAISE(ABORT, 'an issued invoice is immutable'); END"
    )
    kept = " OR ".join(f"(NEW.{name} <> '' AND NEW.{name} <> OLD.{name})" for name in CUSTOMER)
    op.execute(
        f"CREATE TRIGGER invoices_customer BEFORE UPDATE OF {', '.join(CUSTOMER)} ON invoices WHEN {kept} "
        "BEGIN SELECT RAISE(ABORT, 'an issued invoice is immutable'); END"
    )
    for table in ("credit_notes", "audit_events"):
        op.execute(
            f"CREATE TRIGGER {table}_unchanged BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
        )
    for table in GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, '{table} are kept'); END"
        )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% are immutable', TG_TABLE_NAME; END $$"
    )
    refuse = "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    op.execute(f"CREATE TRIGGER invoices_unchanged BEFORE UPDATE OF {', '.join(CONTENT)} ON invoices {refuse}")
    kept = " OR ".join(f"(NEW.{name} <> '' AND NEW.{name} <> OLD.{name})" for name in CUSTOMER)
    when = "FOR EACH ROW WHEN (" + kept + ") EXECUTE FUNCTION refuse_change()"
    op.execute(f"CREATE TRIGGER invoices_customer BEFORE UPDATE OF {', '.join(CUSTOMER)} ON invoices {when}")
    for table in ("credit_notes", "audit_events"):
        op.execute(f"CREATE TRIGGER {table}_unchanged BEFORE UPDATE ON {table} {refuse}")
    for table in GUARDED:
        op.execute(f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} {refuse}")


def downgrade() -> None:
    """Drops the tables, with all that is in them."""
    for table in (
        "provider_ids",
        "payment_errands",
        "due_accounts",
        "audit_events",
        "credit_notes",
        "invoices",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
    for name in ("cancel_change_id", "contract", "schedule", "stated_us", "billed_us"):
        op.drop_column("subscriptions", name)
