"""Provider costs in the ledger, and its rollups."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COMMITTED, RELEASED, EXPIRED = 1, 2, 3
BYOK = 2
HOUR_US = 3_600_000_000
TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
HOUR_KEY = ("period_start_us", "served_provider", "served_model", "served_credential_mode", "credential_mode")


def upgrade() -> None:
    """Adds the columns, makes the tables, and sums up what the ledger has. Costs of old entries stay unknown."""
    op.add_column("ledger", sa.Column("provider_cost_micro", sa.BigInteger, nullable=True))
    op.add_column("ledger", sa.Column("price_table_version", sa.Text, nullable=False, server_default=""))
    _create("usage_periods", "account_id", "period_start_us", "credential_mode")
    hours = ("account_id", "hour_us", "period_start_us", "provider", "model", "served_credential_mode")
    _create("usage_hours", *hours, "credential_mode")
    _create("usage_labels", *hours, "credential_mode", "labels")
    hour = f"reserve_us - reserve_us % {HOUR_US}"
    _fill("usage_periods", "account_id, period_start_us, credential_mode", "")
    key = f"account_id, {hour}, {', '.join(HOUR_KEY)}"
    _fill("usage_hours", key, "")
    _fill("usage_labels", f"{key}, labels", "WHERE labels <> '{}'")


def _create(table: str, *key: str) -> None:
    types: dict[str, Any] = {
        "period_start_us": sa.BigInteger,
        "hour_us": sa.BigInteger,
        "credential_mode": sa.Integer,
        "served_credential_mode": sa.Integer,
    }
    sums = ("committed", "released", "expired", *TOKENS, "without_tokens", "cost_micro", "unpriced")
    op.create_table(
        table,
        *(sa.Column(name, types.get(name, sa.Text), nullable=False, autoincrement=False) for name in key),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in sums),
        sa.PrimaryKeyConstraint(*key),
    )


def _fill(table: str, key: str, where: str) -> None:
    counts = [f"SUM(CASE WHEN event = {event} THEN 1 ELSE 0 END)" for event in (COMMITTED, RELEASED, EXPIRED)]
    known = "input_tokens IS NOT NULL AND output_tokens IS NOT NULL"
    tokens = [f"SUM(CASE WHEN {known} THEN COALESCE({name}, 0) ELSE 0 END)" for name in TOKENS]
    without = f"SUM(CASE WHEN {known} THEN 0 ELSE 1 END)"
    unpriced = f"SUM(CASE WHEN credential_mode = {BYOK} AND provider_cost_micro IS NULL THEN 1 ELSE 0 END)"
    sums = ", ".join((*counts, *tokens, without, "COALESCE(SUM(provider_cost_micro), 0)", unpriced))
    op.execute(f"INSERT INTO {table} SELECT {key}, {sums} FROM ledger {where} GROUP BY {key}")  # noqa: S608  # names of ours


def downgrade() -> None:
    """Drops the tables and columns."""
    for table in ("usage_labels", "usage_hours", "usage_periods"):
        op.drop_table(table)
    for name in ("price_table_version", "provider_cost_micro"):
        op.drop_column("ledger", name)
