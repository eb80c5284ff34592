"""Where a period will end, what it costs, and what would cost less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.billing.domain.advice import Recommendation, Situation, recommendations
from services.billing.domain.estimates import (
    OUTPUT_SHARE,
    SEED_EXAMPLE,
    SEED_EXAMPLE_VERSION,
    TOKENS_DEFAULT,
    Estimate,
    Workload,
    current_cost,
    estimates,
    seed_example_cost,
)
from services.billing.domain.forecast import Projection, projected_cost_micro
from services.billing.domain.ledger import partition_of
from services.billing.domain.model import Subscription, SubscriptionState
from services.billing.domain.prices import ProviderCost, Rates
from services.billing.domain.renewal import final_end_us, terms_at
from services.billing.domain.usage import QuotaReading, percentage
from services.billing.prices import ListedModel
from services.billing.service.context import Context
from services.billing.service.usage import UsageService, project
from services.billing.store import Transaction
from services.billing.usage_store import CostItems
from services.shared.errors import FlowStackError, Reason

ITEMS_MAX: Final = 100
CURRENT: Final = "current"
PROVIDERS_FILE: Final = "providers-file"
"""The version of prices that stand in the operator's list of models alone, which has none."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A period so far and at its end. Money is micro-dollars."""

    account_id: str
    quota: QuotaReading
    subscription: Subscription
    as_of_us: int
    charges_micro: int
    provider_cost: ProviderCost
    projection: Projection

    @property
    def costs_micro(self) -> tuple[int, int, int]:
        """Charges and provider cost at the period's end: most likely, low and high."""
        most_likely, low, high = (
            self.charges_micro
            + projected_cost_micro(self.provider_cost.known_micro, self.quota.sessions_committed, sessions)
            for sessions in (self.projection.sessions, self.projection.low, self.projection.high)
        )
        return most_likely, low, high


@dataclass(frozen=True, slots=True)
class CostAnalysis:
    """A period's costs and what to do about them."""

    outlook: Outlook
    usage_percentage: float
    items: CostItems
    recommendations: tuple[Recommendation, ...]


@dataclass(frozen=True, slots=True)
class CostEstimates:
    """What sessions cost on each plan and offer, and what that rests on."""

    estimates: tuple[Estimate, ...]
    workload: Workload
    served_model: str
    """The provider's own name of the model."""
    price_table: str
    price_table_version: str
    price_us: int


class OutlookService:
    """Use cases of what is to come."""

    def __init__(self, context: Context, usage: UsageService) -> None:
        self._context = context
        self._usage = usage

    async def forecast(self, account_id: str, timeout_s: float) -> Outlook:
        """Projects sessions and costs to the period's end.

        Args:
            account_id: the account.
            timeout_s: how long quota may take to answer.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, QUOTA_UNAVAILABLE, ENTITLEMENT_MISSING.
        """
        quota = await self._usage.quota_of(account_id, timeout_s)
        return await self._context.store.transact(
            lambda transaction: self._outlook(transaction, account_id, quota), snapshot=True
        )

    async def analyze(self, account_id: str, timeout_s: float) -> CostAnalysis:
        """Breaks the period's costs down and says what would cost less.

        Args:
            account_id: the account.
            timeout_s: how long quota may take to answer.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, QUOTA_UNAVAILABLE, ENTITLEMENT_MISSING.
        """
        quota = await self._usage.quota_of(account_id, timeout_s)

        async def read(transaction: Transaction) -> CostAnalysis:
            outlook = await self._outlook(transaction, account_id, quota)
            items = await transaction.rollups.costs(account_id, quota.period_start_us, ITEMS_MAX)
            share = percentage(quota.sessions_committed, quota.session_limit)
            return CostAnalysis(outlook, share, items, tuple(self._advice(outlook)))

        return await self._context.store.transact(read, snapshot=True)

    def estimate(self, workload: Workload, price_table: str) -> CostEstimates:
        """Estimates what sessions cost on each plan and offer that fits.

        Args:
            workload: the sessions.
            price_table: empty for current prices, or `seed-example`.

        Raises:
            FlowStackError: PRICE_TABLE_NOT_FOUND.
        """
        now_us, served_model = self._context.clock.now_us(), workload.model
        if price_table == SEED_EXAMPLE:
            cost, version, price_us = seed_example_cost(workload), SEED_EXAMPLE_VERSION, 0
        elif price_table in ("", CURRENT):
            price_table, listed = CURRENT, self._context.models.find(workload.provider, workload.model)
            served_model = listed.name
            rates, version, price_us = self._current_rates(workload, listed, now_us)
            cost = current_cost(workload, rates)
        else:
            raise FlowStackError(
                Reason.PRICE_TABLE_NOT_FOUND,
                f"There is no such price table. Leave price_table empty for current prices, or name {SEED_EXAMPLE}.",
            )
        found = estimates(self._context.catalogue, now_us, workload.sessions, cost)
        return CostEstimates(tuple(found), workload, served_model, price_table, version, price_us)

    def _current_rates(self, workload: Workload, listed: ListedModel, now_us: int) -> tuple[Rates | None, str, int]:
        """What a session of the model that would run costs, by which version, from when.

        The price table's come first, because sessions are priced by them; then what ListModels shows.
        """
        prices = self._context.prices
        price = prices.price_of(workload.provider, listed.name, now_us)
        if price is not None:
            return price.rates_at(workload.input_tokens), price.version, prices.price_us
        if listed.rates is not None:
            return listed.rates, PROVIDERS_FILE, 0
        return None, prices.version, prices.price_us

    def _advice(self, outlook: Outlook) -> list[Recommendation]:
        now_us, quota, subscription = self._context.clock.now_us(), outlook.quota, outlook.subscription
        if subscription.state_at(now_us) is SubscriptionState.ENDED:
            return []
        end_us = final_end_us(subscription)
        is_last = 0 < end_us <= quota.period_end_us
        pending = "downgrade" if subscription.pending_change_id else ""
        situation = Situation(
            subscription.terms,
            None if is_last else terms_at(subscription, quota.period_end_us),
            quota.sessions_committed,
            quota.session_limit,
            outlook.projection.sessions,
            outlook.projection.high,
            outlook.projection.method,
            quota.managed_sessions,
            quota.byok_sessions,
            outlook.provider_cost,
            "cancellation" if subscription.cancel_change_id else pending,
        )
        return recommendations(situation, self._context.catalogue, now_us)

    async def _outlook(self, transaction: Transaction, account_id: str, quota: QuotaReading) -> Outlook:
        account = await transaction.accounts.get(account_id)
        subscription = await transaction.subscriptions.get(account.subscription_id)
        watermark_us = await transaction.partitions.watermark_us(partition_of(account_id))
        return Outlook(
            account_id,
            quota,
            subscription,
            max(watermark_us, account.create_us),
            await transaction.invoices.charged_micro(account_id, quota.period_start_us),
            await transaction.rollups.provider_cost(account_id, quota.period_start_us),
            await project(transaction, account_id, quota, self._context.clock.now_us()),
        )


def workload_of(sessions: int, provider: str, model: str, tokens: int, output_tokens: int | None) -> Workload:
    """A workload, with what is assumed of it where nobody says."""
    tokens = tokens or TOKENS_DEFAULT
    return Workload(
        sessions, provider, model, tokens, tokens // OUTPUT_SHARE if output_tokens is None else output_tokens
    )
