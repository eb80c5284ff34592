"""The tables. Times are microseconds since 1970, 0 where unset; money is micro-dollars; JSON is text.

A change here goes with a migration; a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

METADATA: Final = MetaData()


def _text(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=primary_key, nullable=False)


def _time(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    _text("account_id", primary_key=True),
    _text("display_name"),
    _text("email"),
    _text("email_folded"),
    _text("subscription_id"),
    _number("state"),
    _text("suspend_reason"),
    _time("suspend_us"),
    _time("suspend_until_us"),
    _time("create_us"),
    _time("update_us"),
    _time("delete_us"),
    _time("purge_us"),
    _number("version"),
    Index("accounts_by_age", "create_us", "account_id"),
    Index("accounts_by_email", "email_folded"),
)

API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    _text("api_key_id", primary_key=True),
    _text("account_id"),
    _text("display_name"),
    Column("digest", LargeBinary, nullable=False),
    _time("create_us"),
    _time("expire_us"),
    _time("revoke_us"),
    _time("last_use_us"),
    _text("rotated_from"),
    _text("rotated_to"),
    Index("api_keys_by_age", "account_id", "create_us", "api_key_id"),
)

SUBSCRIPTIONS: Final = Table(
    "subscriptions",
    METADATA,
    _text("subscription_id", primary_key=True),
    _text("account_id"),
    _text("plan_id"),
    _number("plan_version"),
    _text("terms"),
    _time("anchor_us"),
    _time("end_us"),
    _number("version"),
    _time("billed_us"),
    _time("stated_us"),
    _text("schedule"),
    _text("contract"),
    _text("cancel_change_id"),
    Index("subscriptions_by_account", "account_id"),
    Index("subscriptions_by_plan", "plan_id", "plan_version"),
)

SUBSCRIPTION_CHANGES: Final = Table(
    "subscription_changes",
    METADATA,
    _text("change_id", primary_key=True),
    _text("account_id"),
    _text("subscription_id"),
    _number("kind"),
    _number("state"),
    _text("from_terms"),
    _text("to_terms"),
    _time("request_us"),
    _time("effective_us"),
    _time("drop_us"),
    Column("amount_micro", BigInteger, nullable=False),
    _text("invoice_id"),
    _text("request_id"),
    # The change's place among its account's, from 1: times alone give two of one microsecond no order.
    _number("sequence"),
    Index("subscription_changes_by_age", "account_id", "request_us", "sequence"),
    Index("subscription_changes_by_sequence", "account_id", "sequence", unique=True),
    Index("subscription_changes_by_moment", "subscription_id", "effective_us", "sequence"),
)

ENTITLEMENT_OUTBOX: Final = Table(
    "entitlement_outbox",
    METADATA,
    # One row for each account: an entitlement is whole, so that a newer one takes the place of an older.
    _text("account_id", primary_key=True),
    _number("revision"),
    _text("entitlement"),
    Column("pending", Boolean, nullable=False),
    _number("attempts"),
    _time("next_attempt_us"),
    _time("update_us"),
    _time("applied_us"),
    Index("entitlement_outbox_by_due", "pending", "next_attempt_us"),
)

REQUESTS: Final = Table(
    "requests",
    METADATA,
    _text("method", primary_key=True),
    _text("scope", primary_key=True),
    _text("request_id", primary_key=True),
    _text("content"),
    _text("answer"),
    _time("create_us"),
)


def _entry_columns() -> list[Column[object]]:
    """The columns of a ledger entry, in the order of its fields."""
    tokens = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    columns = [
        _text("account_id", primary_key=True),
        _text("session_id", primary_key=True),
        Column("event", Integer, primary_key=True, nullable=False),
        _time("event_us"),
        _number("state"),
        _time("period_start_us"),
        _time("reserve_us"),
        _time("expire_us"),
        _time("resolve_us"),
        _number("credential_mode"),
        _text("served_provider"),
        _text("served_model"),
        _number("served_credential_mode"),
        # NULL where unknown: 0 is a number of tokens.
        *(Column(name, Integer, nullable=True) for name in tokens),
        Column("tokens_estimated", Boolean, nullable=False),
        _number("finish_reason"),
        _number("release_reason"),
        _text("api_key_id"),
        _text("request_id"),
        _text("labels"),
        _text("detail"),
        _number("entitlement_revision"),
        _time("insert_us"),
    ]
    return columns  # type: ignore[return-value]  # Column is invariant


_WITH_REQUEST_ID: Final[dict[str, Any]] = {
    f"{dialect}_where": text("request_id <> ''") for dialect in ("sqlite", "postgresql")
}

LEDGER: Final = Table(
    "ledger",
    METADATA,
    *_entry_columns(),
    # NULL where unknown: 0 is a cost.
    Column("provider_cost_micro", BigInteger, nullable=True),
    _text("price_table_version"),
    Index("ledger_by_time", "account_id", "reserve_us", "session_id"),
    Index("ledger_by_request", "account_id", "request_id", "reserve_us", "session_id", **_WITH_REQUEST_ID),
)

STRAY_EVENTS: Final = Table(
    "stray_events",
    METADATA,
    # Events of accounts that billing does not know: kept whole, so that they can be booked once that is explained.
    *_entry_columns(),
    _number("partition"),
    _text("cursor"),
)

PARTITION_CURSORS: Final = Table(
    "partition_cursors",
    METADATA,
    Column("partition", Integer, primary_key=True, autoincrement=False, nullable=False),
    _text("cursor"),
    _time("watermark_us"),
    _time("oldest_reserve_us"),
    # Raised whenever the partition changes hands; who writes with an older one is told that it lost it.
    Column("fence", BigInteger, nullable=False),
    # The replica that reads the partition, and until when others leave it alone; empty and 0 for none.
    _text("owner"),
    _time("lease_end_us"),
)

READER_REPLICAS: Final = Table(
    "reader_replicas",
    METADATA,
    # Replicas that read quota's events: how many are alive says what a fair share is.
    _text("replica", primary_key=True),
    _time("end_us"),
)
