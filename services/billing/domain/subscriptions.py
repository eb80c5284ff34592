"""Subscriptions: how they start."""

from __future__ import annotations

from typing import NamedTuple

from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.model import ChangeKind, ChangeState, Subscription, SubscriptionChange, Terms


class Started(NamedTuple):
    """A new subscription, and the change that its history begins with."""

    subscription: Subscription
    change: SubscriptionChange


def start_subscription(
    account_id: str, terms: Terms, now_us: int, randomness: Randomness, *, request_id: str = ""
) -> Started:
    """Starts an account's first subscription at once, anchored at `now_us`; its first fee is due by then."""
    subscription = Subscription(new_id("sub_", randomness), account_id, terms, now_us, 0, 1, now_us, now_us)
    change = SubscriptionChange(
        new_id("chg_", randomness),
        account_id,
        subscription.subscription_id,
        ChangeKind.START,
        ChangeState.APPLIED,
        None,
        terms,
        now_us,
        now_us,
        0,
        terms.price_micro,
        "",
        request_id,
    )
    return Started(subscription, change)
