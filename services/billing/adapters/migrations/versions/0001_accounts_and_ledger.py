"""Accounts, API keys, subscriptions, the entitlement outbox and the ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PARTITIONS = 64


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _times(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def upgrade() -> None:
    """Makes the tables."""
    _create_accounts()
    _create_subscriptions()
    _create_ledger()


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        *_texts("account_id", "display_name", "email", "email_folded", "subscription_id"),
        *_numbers("state"),
        *_texts("suspend_reason"),
        *_times("suspend_us", "suspend_until_us", "create_us", "update_us", "delete_us", "purge_us"),
        *_numbers("version"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_index("accounts_by_age", "accounts", ["create_us", "account_id"])
    op.create_index("accounts_by_email", "accounts", ["email_folded"])
    op.create_table(
        "api_keys",
        *_texts("api_key_id", "account_id", "display_name"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        *_times("create_us", "expire_us", "revoke_us", "last_use_us"),
        *_texts("rotated_from", "rotated_to"),
        sa.PrimaryKeyConstraint("api_key_id"),
    )
    op.create_index("api_keys_by_age", "api_keys", ["account_id", "create_us", "api_key_id"])
    op.create_table(
        "requests",
        *_texts("method", "scope", "request_id", "content", "answer"),
        *_times("create_us"),
        sa.PrimaryKeyConstraint("method", "scope", "request_id"),
    )


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        *_texts("subscription_id", "account_id", "plan_id"),
        *_numbers("plan_version"),
        *_texts("terms"),
        *_times("anchor_us", "end_us"),
        *_numbers("version"),
        sa.PrimaryKeyConstraint("subscription_id"),
    )
    op.create_index("subscriptions_by_account", "subscriptions", ["account_id"])
    op.create_index("subscriptions_by_plan", "subscriptions", ["plan_id", "plan_version"])
    op.create_table(
        "subscription_changes",
        *_texts("change_id", "account_id", "subscription_id"),
        *_numbers("kind", "state"),
        *_texts("from_terms", "to_terms"),
        *_times("request_us", "effective_us", "drop_us"),
        sa.Column("amount_micro", sa.BigInteger, nullable=False),
        *_texts("invoice_id", "request_id"),
        sa.PrimaryKeyConstraint("change_id"),
    )
    op.create_index("subscription_changes_by_age", "subscription_changes", ["account_id", "request_us", "change_id"])
    op.create_table(
        "entitlement_outbox",
        *_texts("account_id"),
        *_numbers("revision"),
        *_texts("entitlement"),
        sa.Column("pending", sa.Boolean, nullable=False),
        *_numbers("attempts"),
        *_times("next_attempt_us", "update_us", "applied_us"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_index("entitlement_outbox_by_due", "entitlement_outbox", ["pending", "next_attempt_us"])


def _entry_columns() -> list[sa.Column[Any]]:
    tokens = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    return [
        *_texts("account_id", "session_id"),
        *_numbers("event"),
        *_times("event_us"),
        *_numbers("state"),
        *_times("period_start_us", "reserve_us", "expire_us", "resolve_us"),
        *_numbers("credential_mode"),
        *_texts("served_provider", "served_model"),
        *_numbers("served_credential_mode"),
        *(sa.Column(name, sa.Integer, nullable=True) for name in tokens),
        sa.Column("tokens_estimated", sa.Boolean, nullable=False),
        *_numbers("finish_reason", "release_reason"),
        *_texts("api_key_id", "request_id", "labels", "detail"),
        *_numbers("entitlement_revision"),
        *_times("insert_us"),
    ]


def _create_ledger() -> None:
    op.create_table("ledger", *_entry_columns(), sa.PrimaryKeyConstraint("account_id", "session_id", "event"))
    op.create_index("ledger_by_time", "ledger", ["account_id", "reserve_us", "session_id"])
    op.create_table(
        "stray_events",
        *_entry_columns(),
        *_numbers("partition"),
        *_texts("cursor"),
        sa.PrimaryKeyConstraint("account_id", "session_id", "event"),
    )
    cursors = op.create_table(
        "partition_cursors",
        sa.Column("partition", sa.Integer, autoincrement=False, nullable=False),
        *_texts("cursor"),
        *_times("watermark_us", "oldest_reserve_us"),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("partition"),
    )
    start = {"cursor": "", "watermark_us": 0, "oldest_reserve_us": 0, "fence": 0}
    op.bulk_insert(cursors, [{"partition": partition, **start} for partition in range(PARTITIONS)])


def downgrade() -> None:
    """Drops the tables, with all that is in them."""
    for table in (
        "partition_cursors",
        "stray_events",
        "ledger",
        "entitlement_outbox",
        "subscription_changes",
        "subscriptions",
        "requests",
        "api_keys",
        "accounts",
    ):
        op.drop_table(table)
