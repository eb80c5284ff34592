"""Sessions by day, kept with the closing statement that shows them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TRIGGER = "CREATE TRIGGER invoices_usage BEFORE UPDATE OF usage ON invoices"


def upgrade() -> None:
    """Adds the column and its guard. Statements that are there stay as they were issued, without a picture."""
    op.add_column("invoices", sa.Column("usage", sa.Text, nullable=False, server_default=""))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"{TRIGGER} FOR EACH ROW EXECUTE FUNCTION refuse_change()")
    else:
        op.execute(f"{TRIGGER} BEGIN SELECT RAISE(ABORT, 'an issued invoice is immutable'); END")


def downgrade() -> None:
    """Drops the column, and with it what statements' pictures are drawn from."""
    on_table = " ON invoices" if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(f"DROP TRIGGER invoices_usage{on_table}")
    op.drop_column("invoices", "usage")
