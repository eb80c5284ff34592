"""Subscriptions and the catalogue: reading."""

from __future__ import annotations

from dataclasses import dataclass

from services.billing.domain.catalogue import Offer, Plan
from services.billing.domain.entitlements import EntitlementStatus
from services.billing.domain.model import Subscription, SubscriptionChange
from services.billing.service.context import Context
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import Transaction


@dataclass(frozen=True, slots=True)
class PlansPage:
    """One page of the catalogue; the offers stand on the first."""

    plans: Page[Plan]
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """A subscription with its plan, its entitlement's way and one page of the account's changes."""

    subscription: Subscription
    plan: Plan
    entitlement: EntitlementStatus
    changes: Page[SubscriptionChange]


class SubscriptionService:
    """Use cases of subscriptions."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list_plans(self, request: PageRequest, *, include_retired: bool) -> PlansPage:
        """Lists the catalogue, cheapest first.

        Raises:
            FlowStackError: INVALID_REQUEST: another call's page token.
        """
        catalogue = self._context.catalogue
        plans = catalogue.plans_at(self._context.clock.now_us(), include_retired=include_retired)

        async def read(after: tuple[int, str] | None, limit: int) -> list[Plan]:
            # The catalogue is short and in memory: the position is the last plan's version and id.
            places = [(plan.version, plan.plan_id) for plan in plans]
            begin = places.index(after) + 1 if after in places else 0
            return plans[begin : begin + limit]

        page = await read_page(
            self._context.page_tokens,
            ("ListPlans", str(include_retired)),
            request,
            read,
            lambda plan: (plan.version, plan.plan_id),
        )
        return PlansPage(page, () if request.token else catalogue.offers)

    async def get(self, account_id: str, request: PageRequest) -> SubscriptionView:
        """Reads an account's subscription and one page of its changes, newest first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND; INVALID_REQUEST: another call's page token.
        """

        async def read(transaction: Transaction) -> SubscriptionView:
            account = await transaction.accounts.get(account_id)
            subscription = await transaction.subscriptions.get(account.subscription_id)
            status = await transaction.entitlements.status(account_id)
            changes = await read_page(
                self._context.page_tokens,
                ("GetSubscription", account_id),
                request,
                lambda after, limit: transaction.subscriptions.changes(account_id, after, limit),
                lambda change: (change.request_us, change.change_id),
            )
            terms = subscription.terms
            plan = self._context.catalogue.plan(terms.plan_id, terms.plan_version)
            return SubscriptionView(subscription, plan, status, changes)

        return await self._context.store.transact(read)
