"""Which alerts fire and which budgets block: decided where the ledger, a limit, a charge or the settings change.

Every transaction that decides holds the lock of the account's partition to its end, as whoever books entries does
anyway. So of a session and a change of the limit that come together, one sees the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.billing.alert_store import AccountPeriod, Watched
from services.billing.domain.alerts import (
    Alert,
    AlertSettings,
    BudgetStanding,
    Firing,
    PeriodSums,
    budget_firing,
    budget_key,
    usage_firings,
)
from services.billing.domain.ids import base32, new_id
from services.billing.domain.ledger import LedgerEntry
from services.billing.domain.model import AccountState, Subscription
from services.billing.domain.renewal import terms_at
from services.billing.service.context import Context
from services.billing.store import Transaction
from services.shared.periods import Period, period_at

ALERT_TIME_DIGITS: Final = 11
"""Of an alert_id: microseconds since 1970 in base 32, enough until the year 3111."""


class Alerting:
    """Decides alerts and budgets as a consequence of new ledger entries."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def follow(self, transaction: Transaction, entries: Sequence[LedgerEntry], now_us: int) -> None:
        """What follows from new entries, which the rollups have already: alerts, and budgets that begin to block."""
        added = {AccountPeriod(entry.account_id, entry.period_start_us) for entry in entries}
        watched = await transaction.alerts.watched({period.account_id for period in added})
        sums = await transaction.alerts.sums(added)
        with_budget = [p for p in added if p.account_id in watched and watched[p.account_id].settings.budget]
        charged = await transaction.alerts.charged(with_budget)
        firings: list[Firing] = []
        for place in sorted(added):
            account = watched.get(place.account_id)
            if account is None or account.state is AccountState.DELETED:
                continue
            found = await _period_of(transaction, account.subscription, place.period_start_us, now_us)
            if found is None:
                continue
            period, limit = found
            firings += usage_firings(account.settings, period, limit, sums[place].committed)
            standing = _standing(account, period, sums[place], charged.get(place, 0), now_us)
            if standing is not None and (firing := budget_firing(place.account_id, standing)):
                firings.append(firing)
                if standing.blocking:
                    await self._have_blocked(transaction, place.account_id, now_us)
        await fire(self._context, transaction, firings, watched, now_us)

    async def _have_blocked(self, transaction: Transaction, account_id: str, now_us: int) -> None:
        """Has the account's entitlement made anew, unless it blocks already.

        Its row is not locked here: who books entries never waits for an account. That it is due is in the store, so
        that it is done by another replica where this one ends.
        """
        stored = await transaction.entitlements.find(account_id)
        # A block of the period before stands there until the account is renewed, and refuses nothing any more.
        if stored is not None and (stored.block is None or 0 < stored.block.until_us <= now_us):
            await transaction.due_accounts.put(account_id, now_us)
            transaction.after_commit(lambda: self._context.signals.urgent.put_nowait(account_id))


async def _period_of(
    transaction: Transaction, subscription: Subscription, period_start_us: int, now_us: int
) -> tuple[Period, int] | None:
    """A period of a subscription with its limit, now or when it ended; None for one of an earlier subscription.

    A late session of a period that a new subscription has cut off tells nobody anything: its limit is no more.
    """
    if period_start_us < subscription.anchor_us:
        return None
    period = period_at(subscription.anchor_us, period_start_us)
    if now_us < period.end_us:
        return period, terms_at(subscription, max(now_us, period.start_us)).session_limit
    terms = await transaction.subscriptions.terms_before(subscription.subscription_id, period.end_us)
    return period, (terms or subscription.terms).session_limit


def _standing(
    account: Watched, period: Period, sums: PeriodSums, charged_micro: int, now_us: int
) -> BudgetStanding | None:
    """How the present period stands against the budget; None where there is none, or for another period."""
    ended_us = account.subscription.end_us
    budget = account.settings.budget
    if budget is None or not period.start_us <= now_us < period.end_us or 0 < ended_us <= now_us:
        return None
    return BudgetStanding(budget, period, charged_micro + sums.byok_micro, sums.unpriced)


async def budget_standing(
    transaction: Transaction, subscription: Subscription, settings: AlertSettings, now_us: int
) -> BudgetStanding | None:
    """How an account's present period stands against its budget; None where it has none."""
    if settings.budget is None:
        return None
    period = period_at(subscription.anchor_us, now_us)
    place = AccountPeriod(settings.account_id, period.start_us)
    sums = (await transaction.alerts.sums([place])).get(place, PeriodSums())
    charged_micro = (await transaction.alerts.charged([place])).get(place, 0)
    account = Watched(AccountState.ACTIVE, subscription, settings)
    standing = _standing(account, period, sums, charged_micro, now_us)
    if standing is None or not standing.exceeded:
        return standing
    key = budget_key(standing.budget, period)
    return standing._replace(exceed_us=await transaction.alerts.fire_us(settings.account_id, key) or now_us)


async def look_again(
    context: Context, transaction: Transaction, watched: Watched, now_us: int
) -> BudgetStanding | None:
    """Fires what is due after an account's limit, charges or settings may have changed; answers how its budget stands.

    The transaction holds the lock of the account's partition.
    """
    if watched.state is AccountState.DELETED:
        return None
    subscription, settings = watched.subscription, watched.settings
    account_id = settings.account_id
    firings: list[Firing] = []
    if not 0 < subscription.end_us <= now_us:
        period = period_at(subscription.anchor_us, now_us)
        place = AccountPeriod(account_id, period.start_us)
        used = (await transaction.alerts.sums([place])).get(place, PeriodSums()).committed
        firings += usage_firings(settings, period, terms_at(subscription, now_us).session_limit, used)
    standing = await budget_standing(transaction, subscription, settings, now_us)
    if standing is not None and (firing := budget_firing(account_id, standing)):
        firings.append(firing)
    await fire(context, transaction, firings, {account_id: watched}, now_us)
    return standing


async def fire(
    context: Context, transaction: Transaction, firings: Sequence[Firing], watched: Mapping[str, Watched], now_us: int
) -> None:
    """Writes those of `firings` that have not fired yet, with their deliveries."""
    if not firings:
        return
    fired = await transaction.alerts.fired({f.account_id for f in firings}, {f.once_key for f in firings})
    fresh = [firing for firing in firings if (firing.account_id, firing.once_key) not in fired]
    if not fresh:
        return
    places = dict(await transaction.alerts.last_sequences({firing.account_id for firing in fresh}))
    for firing in fresh:
        account_id = firing.account_id
        places[account_id] = places.get(account_id, 0) + 1
        alert_id = new_alert_id(context, now_us)
        alert = Alert(
            alert_id,
            account_id,
            places[account_id],
            firing.once_key,
            firing.kind,
            firing.severity,
            now_us,
            firing.message,
            firing.period,
            firing.threshold,
            firing.sessions_used,
            firing.sessions_limit,
            firing.budget,
        )
        if await transaction.alerts.insert(alert):
            sinks = watched[account_id].settings.sinks
            await transaction.webhooks.add_deliveries(alert, [s.webhook_id for s in sinks if s.takes(alert.kind)])
    transaction.after_commit(lambda: context.signals.alerted(places))


def new_alert_id(context: Context, now_us: int) -> str:
    """The id of a new alert. Ids rise with time."""
    return new_id(f"alert_{base32(now_us, ALERT_TIME_DIGITS)}", context.randomness)
