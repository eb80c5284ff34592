"""Documents, their collections and accounts, and the indexes that queries ask for."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

# Other names than billing's revisions, so that neither takes the other's database for its own.
revision = "vault_0001"
down_revision = None
branch_labels = None
depends_on = None

BYTEWISE: sa.types.TypeEngine[str] = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ROW_ID: sa.types.TypeEngine[int] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, BYTEWISE, nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def upgrade() -> None:
    """Makes the tables."""
    _create_accounts()
    _create_documents()
    _create_indexes()


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        *_texts("account_id"),
        *_numbers("used_bytes", "check_us"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_index("accounts_by_check", "accounts", ["check_us"])
    op.create_table(
        "collections",
        *_texts("account_id", "collection"),
        *_numbers("document_count", "size_bytes", "update_us"),
        sa.PrimaryKeyConstraint("account_id", "collection"),
    )


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("document_id", ROW_ID, primary_key=True, autoincrement=True),
        *_texts("account_id", "collection", "key"),
        sa.Column("version", sa.Integer, nullable=False),
        *_numbers("create_us", "update_us", "expire_us", "size_bytes"),
        sa.Column("body", sa.Text().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    place = ["account_id", "collection"]
    op.create_index("documents_by_key", "documents", [*place, "key"], unique=True)
    op.create_index("documents_by_creation", "documents", [*place, "create_us", "key"])
    op.create_index("documents_by_update", "documents", [*place, "update_us", "key"])
    op.create_index(
        "documents_by_expiry",
        "documents",
        ["expire_us", *place, "size_bytes"],
        postgresql_where=sa.text("expire_us > 0"),
        sqlite_where=sa.text("expire_us > 0"),
    )


def _create_indexes() -> None:
    op.create_table(
        "sort_indexes",
        sa.Column("index_id", ROW_ID, primary_key=True, autoincrement=True),
        *_texts("account_id", "collection", "path"),
        sa.Column("state", sa.Integer, nullable=False),
        *_texts("built_key"),
        *_numbers("last_use_us"),
    )
    op.create_index("sort_indexes_by_path", "sort_indexes", ["account_id", "collection", "path"], unique=True)
    op.create_index("sort_indexes_by_state", "sort_indexes", ["state", "index_id"])
    op.create_table(
        "sort_entries",
        sa.Column("index_id", ROW_ID, sa.ForeignKey("sort_indexes.index_id"), nullable=False),
        *_texts("value", "key"),
        sa.Column("document_id", ROW_ID, sa.ForeignKey("documents.document_id", ondelete="CASCADE"), nullable=False),
        sa.PrimaryKeyConstraint("index_id", "value", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("sort_entries_by_document", "sort_entries", ["document_id", "index_id"], unique=True)


def downgrade() -> None:
    """Drops the tables."""
    for table in ("sort_entries", "sort_indexes", "documents", "collections", "accounts"):
        op.drop_table(table)
