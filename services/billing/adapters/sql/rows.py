"""Rows to values and back. A row is anything with the columns as its attributes."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.billing.domain.entitlements import Entitlement
from services.billing.domain.model import (
    Account,
    AccountState,
    ApiKey,
    ChangeKind,
    ChangeState,
    Contract,
    ScheduledTerms,
    Subscription,
    SubscriptionChange,
    Terms,
)

_NAMES: Final = frozenset({"display_name", "email", "customer_name", "customer_email"})
"""What names and addresses of customers are called in accounts and invoices."""


def without_names(answer: str) -> str:
    """An answer, as JSON, with customers' names and addresses blanked wherever they stand in it."""
    return msgspec.json.encode(_nameless(msgspec.json.decode(answer))).decode() if answer else ""


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "" if key in _NAMES else _nameless(inner) for key, inner in value.items()}
    return [_nameless(inner) for inner in value] if isinstance(value, list) else value


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


def account_to_row(account: Account) -> dict[str, Any]:
    """The columns of an account; its plan is its subscription's."""
    return {
        "account_id": account.account_id,
        "display_name": account.display_name,
        "email": account.email,
        "email_folded": account.email.casefold(),
        "subscription_id": account.subscription_id,
        "state": int(account.state),
        "suspend_reason": account.suspend_reason,
        "suspend_us": account.suspend_us,
        "suspend_until_us": account.suspend_until_us,
        "create_us": account.create_us,
        "update_us": account.update_us,
        "delete_us": account.delete_us,
        "purge_us": account.purge_us,
        "version": account.version,
    }


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
    return Subscription(
        row.subscription_id,
        row.account_id,
        msgspec.json.decode(row.terms, type=Terms),
        row.anchor_us,
        row.end_us,
        row.version,
        row.billed_us,
        row.stated_us,
        msgspec.json.decode(row.schedule, type=tuple[ScheduledTerms, ...]) if row.schedule else (),
        msgspec.json.decode(row.contract, type=Contract) if row.contract else None,
        row.cancel_change_id,
    )


def subscription_to_row(subscription: Subscription) -> dict[str, Any]:
    """The inverse of `subscription_from_row`."""
    return {
        "subscription_id": subscription.subscription_id,
        "account_id": subscription.account_id,
        "plan_id": subscription.terms.plan_id,
        "plan_version": subscription.terms.plan_version,
        "terms": terms_to_text(subscription.terms),
        "anchor_us": subscription.anchor_us,
        "end_us": subscription.end_us,
        "version": subscription.version,
        "billed_us": subscription.billed_us,
        "stated_us": subscription.stated_us,
        "schedule": msgspec.json.encode(subscription.schedule).decode() if subscription.schedule else "",
        "contract": "" if subscription.contract is None else msgspec.json.encode(subscription.contract).decode(),
        "cancel_change_id": subscription.cancel_change_id,
    }


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
