"""Changes of subscriptions numbered in the order in which they were made: two of one microsecond have no other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Of changes that are there and share a microsecond nothing tells the order any more; it becomes a fixed one.
NUMBERED = """
UPDATE subscription_changes SET sequence = numbered.sequence FROM (
    SELECT
        change_id,
        ROW_NUMBER() OVER (PARTITION BY account_id ORDER BY request_us, effective_us, change_id) AS sequence
    FROM subscription_changes
) AS numbered WHERE numbered.change_id = subscription_changes.change_id
"""


def upgrade() -> None:
    """Numbers each account's changes, and indexes them by what they are read by."""
    op.add_column("subscription_changes", sa.Column("sequence", sa.Integer, nullable=False, server_default="0"))
    op.execute(NUMBERED)
    op.drop_index("subscription_changes_by_age", "subscription_changes")
    op.create_index("subscription_changes_by_age", "subscription_changes", ["account_id", "request_us", "sequence"])
    op.create_index("subscription_changes_by_sequence", "subscription_changes", ["account_id", "sequence"], unique=True)
    op.create_index(
        "subscription_changes_by_moment", "subscription_changes", ["subscription_id", "effective_us", "sequence"]
    )


def downgrade() -> None:
    """Drops the numbers."""
    for name in ("by_moment", "by_sequence", "by_age"):
        op.drop_index(f"subscription_changes_{name}", "subscription_changes")
    op.drop_column("subscription_changes", "sequence")
    op.create_index("subscription_changes_by_age", "subscription_changes", ["account_id", "request_us", "change_id"])
