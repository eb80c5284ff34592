"""The tables of alerts, webhooks and deliveries. Conventions as in `tables`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from services.billing.adapters.sql.invoice_tables import bigs, numbers, texts
from services.billing.adapters.sql.tables import METADATA

ALERT_SETTINGS: Final = Table(
    "alert_settings",
    METADATA,
    # An account that never changed its settings has no row.
    Column("account_id", Text, primary_key=True, nullable=False),
    *texts("thresholds", "sinks", "budget"),
    *bigs("update_us"),
    *numbers("version"),
)

ALERTS: Final = Table(
    "alerts",
    METADATA,
    Column("alert_id", Text, primary_key=True, nullable=False),
    *texts("account_id"),
    *bigs("sequence"),
    *texts("once_key"),
    *numbers("kind", "severity"),
    *bigs("create_us"),
    *texts("message"),
    *bigs("period_start_us", "period_end_us"),
    *numbers("threshold", "sessions_used", "sessions_limit"),
    *texts("budget", "data_json"),
    # Once for good, whoever comes to think that it is due.
    Index("alerts_once", "account_id", "once_key", unique=True),
    Index("alerts_by_sequence", "account_id", "sequence", unique=True),
)

ALERT_CALLS: Final = Table(
    "alert_calls",
    METADATA,
    # When a method was called in the last minute, a JSON list.
    Column("account_id", Text, primary_key=True, nullable=False),
    Column("method", Text, primary_key=True, nullable=False),
    *texts("times"),
)

WEBHOOKS: Final = Table(
    "webhooks",
    METADATA,
    Column("webhook_id", Text, primary_key=True, nullable=False),
    *texts("account_id", "display_name", "redacted_url"),
    *numbers("format"),
    *(Column(name, LargeBinary, nullable=False) for name in ("sealed_url", "sealed_secret", "sealed_previous")),
    *bigs("previous_expire_us", "create_us", "rotate_us"),
    Index("webhooks_by_age", "account_id", "create_us", "webhook_id"),
)

ALERT_DELIVERIES: Final = Table(
    "alert_deliveries",
    METADATA,
    Column("alert_id", Text, primary_key=True, nullable=False),
    Column("webhook_id", Text, primary_key=True, nullable=False),
    *texts("account_id"),
    *numbers("state", "attempts", "tries"),
    *bigs("last_attempt_us", "next_attempt_us", "deliver_us"),
    *numbers("last_failure", "last_http_status"),
    *bigs("fence", "lease_end_us"),
    Index("alert_deliveries_by_due", "state", "next_attempt_us"),
    Index("alert_deliveries_by_webhook", "account_id", "webhook_id", "state"),
)
