"""Alerts, their settings, webhooks and deliveries."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _bigs(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, autoincrement=False, nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "alert_settings",
        *_texts("account_id", "thresholds", "sinks", "budget"),
        *_bigs("update_us"),
        *_numbers("version"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    _create_alerts()
    _create_webhooks()


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        *_texts("alert_id", "account_id"),
        *_bigs("sequence"),
        *_texts("once_key"),
        *_numbers("kind", "severity"),
        *_bigs("create_us"),
        *_texts("message"),
        *_bigs("period_start_us", "period_end_us"),
        *_numbers("threshold", "sessions_used", "sessions_limit"),
        *_texts("budget", "data_json"),
        sa.PrimaryKeyConstraint("alert_id"),
    )
    op.create_index("alerts_once", "alerts", ["account_id", "once_key"], unique=True)
    op.create_index("alerts_by_sequence", "alerts", ["account_id", "sequence"], unique=True)
    op.create_table(
        "alert_calls", *_texts("account_id", "method", "times"), sa.PrimaryKeyConstraint("account_id", "method")
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        *_texts("webhook_id", "account_id", "display_name", "redacted_url"),
        *_numbers("format"),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("sealed_url", "sealed_secret")),
        sa.Column("sealed_previous", sa.LargeBinary, nullable=False),
        *_bigs("previous_expire_us", "create_us", "rotate_us"),
        sa.PrimaryKeyConstraint("webhook_id"),
    )
    op.create_index("webhooks_by_age", "webhooks", ["account_id", "create_us", "webhook_id"])
    op.create_table(
        "alert_deliveries",
        *_texts("alert_id", "webhook_id", "account_id"),
        *_numbers("state", "attempts", "tries"),
        *_bigs("last_attempt_us", "next_attempt_us", "deliver_us"),
        *_numbers("last_failure", "last_http_status"),
        *_bigs("fence", "lease_end_us"),
        sa.PrimaryKeyConstraint("alert_id", "webhook_id"),
    )
    op.create_index("alert_deliveries_by_due", "alert_deliveries", ["state", "next_attempt_us"])
    op.create_index("alert_deliveries_by_webhook", "alert_deliveries", ["account_id", "webhook_id", "state"])


def downgrade() -> None:
    """Drops the tables, with all that is in them."""
    for table in ("alert_deliveries", "webhooks", "alert_calls", "alerts", "alert_settings"):
        op.drop_table(table)
