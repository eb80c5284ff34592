"""The ledger is append-only by the database too, as invoices, credit notes and the audit log are."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

GUARDS = {"ledger_unchanged": "UPDATE", "ledger_kept": "DELETE"}


def upgrade() -> None:
    """Makes the guards. They look at what is changed or deleted alone, so appending costs what it did."""
    if op.get_bind().dialect.name == "postgresql":
        action = "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    else:
        action = "BEGIN SELECT RAISE(ABORT, 'ledger entries are immutable'); END"
    for name, event in GUARDS.items():
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON ledger {action}")


def downgrade() -> None:
    """Drops the guards."""
    on_table = " ON ledger" if op.get_bind().dialect.name == "postgresql" else ""
    for name in GUARDS:
        op.execute(f"DROP TRIGGER {name}{on_table}")
