"""Several replicas share the reading of quota's partitions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Gives partitions an owner for a time. At first nobody has any."""
    op.add_column("partition_cursors", sa.Column("owner", sa.Text, nullable=False, server_default=""))
    op.add_column("partition_cursors", sa.Column("lease_end_us", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "reader_replicas",
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("replica"),
    )


def downgrade() -> None:
    """Back to one reader of all partitions: the cursors stay where they are."""
    op.drop_table("reader_replicas")
    op.drop_column("partition_cursors", "lease_end_us")
    op.drop_column("partition_cursors", "owner")
