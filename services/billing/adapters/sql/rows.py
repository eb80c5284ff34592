"""Rows to values and back. A row is anything with the columns as its attributes."""

from __future__ import annotations

from typing import Any

import msgspec

from services.billing.domain.entitlements import Entitlement
from services.billing.domain.model import (
    Account,
    AccountState,
    ApiKey,
    ChangeKind,
    ChangeState,
    Subscription,
    SubscriptionChange,
    Terms,
)


def terms_to_text(terms: Terms | None) -> str:
    """Terms as JSON; empty for none."""
    return "" if terms is None else msgspec.json.encode(terms).decode()


def terms_from_text(text: str) -> Terms | None:
    """The inverse of `terms_to_text`."""
    return msgspec.json.decode(text, type=Terms) if text else None


def entitlement_to_text(entitlement: Entitlement) -> str:
    """An entitlement as JSON."""
    return msgspec.json.encode(entitlement).decode()


def entitlement_from_text(text: str) -> Entitlement:
    """The inverse of `entitlement_to_text`."""
    return msgspec.json.decode(text, type=Entitlement)


def account_from_row(row: Any) -> Account:
    """An account from its row joined with its subscription's."""
    return Account(
        row.account_id,
        row.display_name,
        row.email,
        row.subscription_id,
        row.plan_id,
        AccountState(row.state),
        row.suspend_reason,
        row.suspend_us,
        row.suspend_until_us,
        row.create_us,
        row.update_us,
        row.delete_us,
        row.purge_us,
        row.version,
    )


def api_key_from_row(row: Any) -> ApiKey:
    """An API key."""
    return ApiKey(
        row.api_key_id,
        row.account_id,
        row.display_name,
        row.digest,
        row.create_us,
        row.expire_us,
        row.revoke_us,
        row.last_use_us,
        row.rotated_from,
        row.rotated_to,
    )


def subscription_from_row(row: Any) -> Subscription:
    """A subscription."""
    terms = msgspec.json.decode(row.terms, type=Terms)
    return Subscription(row.subscription_id, row.account_id, terms, row.anchor_us, row.end_us, row.version)


def change_from_row(row: Any) -> SubscriptionChange:
    """A change of a subscription."""
    return SubscriptionChange(
        row.change_id,
        row.account_id,
        row.subscription_id,
        ChangeKind(row.kind),
        ChangeState(row.state),
        terms_from_text(row.from_terms),
        terms_from_text(row.to_terms),
        row.request_us,
        row.effective_us,
        row.drop_us,
        row.amount_micro,
        row.invoice_id,
        row.request_id,
    )
