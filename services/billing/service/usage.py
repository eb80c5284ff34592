"""Live usage."""

from __future__ import annotations

from dataclasses import replace

from services.billing.domain.forecast import Projection, projected, projected_cost_micro
from services.billing.domain.ledger import partition_of
from services.billing.domain.usage import LedgerUsage, QuotaReading, Usage, day_start_us, usage_of
from services.billing.service.alerting import budget_standing
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import Period


class UsageService:
    """Use cases of usage."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

    async def get(self, account_id: str, timeout_s: float) -> Usage:
        """Reads an account's usage: counts and refusal live from quota, today's sessions and money from the ledger.

        Today begins at 00:00 UTC. The ledger follows quota within a second or so.

        Args:
            account_id: the account.
            timeout_s: how long quota may take to answer.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, QUOTA_UNAVAILABLE, ENTITLEMENT_MISSING.
        """
        return await self.usage_at(account_id, await self.quota_of(account_id, timeout_s))

    async def quota_of(self, account_id: str, timeout_s: float) -> QuotaReading:
        """Reads an account's counts from quota.

        Args:
            account_id: the account.
            timeout_s: how long quota may take to answer.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, QUOTA_UNAVAILABLE, ENTITLEMENT_MISSING.
        """
        await self._context.store.transact(lambda transaction: transaction.accounts.get(account_id))
        try:
            return await self._context.quota.get_quota(account_id, timeout_s)
        except FlowStackError as error:
            if error.reason is Reason.ENTITLEMENT_MISSING:
                # It was acknowledged, perhaps, by a store that quota has no more.
                await self._dispatcher.renew(account_id)
            raise

    async def usage_at(self, account_id: str, quota: QuotaReading) -> Usage:
        """An account's usage with what quota said just now.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """
        now_us = self._context.clock.now_us()

        async def read(transaction: Transaction) -> Usage:
            account = await transaction.accounts.get(account_id)
            cost = await transaction.rollups.provider_cost(account_id, quota.period_start_us)
            today = await transaction.rollups.committed_since(account_id, day_start_us(now_us))
            projection = await project(transaction, account_id, quota, now_us)
            projected_micro = projected_cost_micro(cost.known_micro, quota.sessions_committed, projection.sessions)
            ledger = LedgerUsage(today, cost, projected_micro)
            watermark_us = await transaction.partitions.watermark_us(partition_of(account_id))
            # Before the first watermark the ledger is known to be complete up to the account's own beginning.
            charges_micro = await transaction.invoices.charged_micro(account_id, quota.period_start_us)
            subscription = await transaction.subscriptions.get(account.subscription_id)
            settings = await transaction.alerts.settings(account_id)
            usage = usage_of(
                account_id,
                quota,
                ledger,
                charges_micro=charges_micro,
                costs_as_of_us=max(watermark_us, account.create_us),
                now_us=now_us,
            )
            return replace(usage, budget=await budget_standing(transaction, subscription, settings, now_us))

        # Of one moment, so that the sums are not older than the time that they are said to be of.
        return await self._context.store.transact(read, snapshot=True)


async def project(transaction: Transaction, account_id: str, quota: QuotaReading, now_us: int) -> Projection:
    """Projects the current period from the ledger's days."""
    by_day = await transaction.rollups.committed_by_day(account_id, quota.period_start_us)
    period = Period(quota.period_start_us, quota.period_end_us)
    return projected(by_day, period, used=quota.sessions_committed, limit=quota.session_limit, now_us=now_us)
