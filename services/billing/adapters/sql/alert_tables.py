"""The tables of alerts, webhooks and deliveries. Conventions as in `tables`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from services.billing.adapters.sql.tables import METADATA


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


def _bigs(*names: str) -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in names]


def _numbers(*names: str) -> list[Column[int]]:
    return [Column(name, Integer, nullable=False) for name in names]


ALERT_SETTINGS: Final = Table(
    "alert_settings",
    METADATA,
    # An account that never changed its settings has no row.
    Column("account_id", Text, primary_key=True, nullable=False),
    *_texts("thresholds", "sinks", "budget"),
    *_bigs("update_us"),
    *_numbers("version"),
)

ALERTS: Final = Table(
    "alerts",
    METADATA,
    Column("alert_id", Text, primary_key=True, nullable=False),
    *_texts("account_id"),
    *_bigs("sequence"),
    *_texts("once_key"),
    *_numbers("kind", "severity"),
    *_bigs("create_us"),
    *_texts("message"),
    *_bigs("period_start_us", "period_end_us"),
    *_numbers("threshold", "sessions_used", "sessions_limit"),
    *_texts("budget", "data_json"),
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
    *_texts("times"),
)

WEBHOOKS: Final = Table(
    "webhooks",
    METADATA,
    Column("webhook_id", Text, primary_key=True, nullable=False),
    *_texts("account_id", "display_name", "redacted_url"),
    *_numbers("format"),
    *(Column(name, LargeBinary, nullable=False) for name in ("sealed_url", "sealed_secret", "sealed_previous")),
    *_bigs("previous_expire_us", "create_us", "rotate_us"),
    Index("webhooks_by_age", "account_id", "create_us", "webhook_id"),
)

ALERT_DELIVERIES: Final = Table(
    "alert_deliveries",
    METADATA,
    Column("alert_id", Text, primary_key=True, nullable=False),
    Column("webhook_id", Text, primary_key=True, nullable=False),
    *_texts("account_id"),
    *_numbers("state", "attempts", "tries"),
    *_bigs("last_attempt_us", "next_attempt_us", "deliver_us"),
    *_numbers("last_failure", "last_http_status"),
    *_bigs("fence", "lease_end_us"),
    Index("alert_deliveries_by_due", "state", "next_attempt_us"),
    Index("alert_deliveries_by_webhook", "account_id", "webhook_id", "state"),
)
