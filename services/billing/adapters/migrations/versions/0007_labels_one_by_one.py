"""Sums of the ledger by each label instead of by whole sets of labels, and sessions by their request_id."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COMMITTED, RELEASED, EXPIRED = 1, 2, 3
BYOK = 2
HOUR_US = 3_600_000_000
TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
SUMS = ("committed", "released", "expired", *TOKENS, "without_tokens", "cost_micro", "unpriced")
TYPES: Final[dict[str, Any]] = {
    "period_start_us": sa.BigInteger,
    "hour_us": sa.BigInteger,
    "credential_mode": sa.Integer,
    "served_credential_mode": sa.Integer,
}
SERVED = ("period_start_us", "provider", "model", "served_credential_mode", "credential_mode")
# A label may hold U+0000, as \\u0000, which PostgreSQL cannot store; two backslashes before it are one, and text.
STORABLE: Final = r"replace(replace(replace(labels, '\\', {one}), '\u0000', '\ufffd'), {one}, '\\')"


def upgrade() -> None:
    """Takes the sets of labels apart, and makes the index."""
    _create("usage_labels_new", "account_id", "label_key", "hour_us", "label_value", *SERVED)
    sums = ", ".join(f"SUM(s.{name})" for name in SUMS)
    key = f"s.account_id, e.key, s.hour_us, e.value, {', '.join(f's.{name}' for name in SERVED)}"
    labels = STORABLE.format(one="chr(1)" if _is_postgresql() else "char(1)")
    each = f"jsonb_each_text(({labels})::jsonb)" if _is_postgresql() else f"json_each({labels})"
    op.get_bind().exec_driver_sql(
        f"INSERT INTO usage_labels_new SELECT {key}, {sums} FROM usage_labels s CROSS JOIN {each} e GROUP BY {key}"  # noqa: S608  # names of ours
    )
    _replace_table()
    where: dict[str, Any] = {f"{dialect}_where": sa.text("request_id <> ''") for dialect in ("sqlite", "postgresql")}
    op.create_index("ledger_by_request", "ledger", ["account_id", "request_id", "reserve_us", "session_id"], **where)


def downgrade() -> None:
    """Sums the ledger up by sets of labels again."""
    op.drop_index("ledger_by_request", "ledger")
    _create("usage_labels_new", "account_id", "hour_us", *SERVED, "labels")
    counts = [f"SUM(CASE WHEN event = {event} THEN 1 ELSE 0 END)" for event in (COMMITTED, RELEASED, EXPIRED)]
    known = "input_tokens IS NOT NULL AND output_tokens IS NOT NULL"
    tokens = [f"SUM(CASE WHEN {known} THEN COALESCE({name}, 0) ELSE 0 END)" for name in TOKENS]
    without = f"SUM(CASE WHEN {known} THEN 0 ELSE 1 END)"
    unpriced = f"SUM(CASE WHEN credential_mode = {BYOK} AND provider_cost_micro IS NULL THEN 1 ELSE 0 END)"
    sums = ", ".join((*counts, *tokens, without, "COALESCE(SUM(provider_cost_micro), 0)", unpriced))
    key = (
        f"account_id, reserve_us - reserve_us % {HOUR_US}, period_start_us, served_provider, served_model, "
        "served_credential_mode, credential_mode, labels"
    )
    op.execute(f"INSERT INTO usage_labels_new SELECT {key}, {sums} FROM ledger WHERE labels <> '{{}}' GROUP BY {key}")  # noqa: S608  # names of ours
    _replace_table()


def _create(table: str, *key: str) -> None:
    op.create_table(
        table,
        *(sa.Column(name, TYPES.get(name, sa.Text), nullable=False, autoincrement=False) for name in key),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint(*key),
        sqlite_with_rowid=False,
    )


def _replace_table() -> None:
    op.drop_table("usage_labels")
    op.rename_table("usage_labels_new", "usage_labels")
    if _is_postgresql():
        op.execute("ALTER INDEX usage_labels_new_pkey RENAME TO usage_labels_pkey")


def _is_postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")
