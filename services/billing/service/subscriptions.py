"""Subscriptions and the catalogue: reading and changing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

from services.billing.domain.audit import Action, Actor
from services.billing.domain.catalogue import Offer, Plan, plan_not_found
from services.billing.domain.changes import Changed, cancel, change_plan, check_etag, revert
from services.billing.domain.contracts import ContractWish, contract_of, put_contract
from services.billing.domain.entitlements import EntitlementStatus
from services.billing.domain.invoices import Invoice
from services.billing.domain.issuing import draft_of_charge, preview
from services.billing.domain.model import ChangeState, Subscription, SubscriptionChange, Terms
from services.billing.domain.renewal import next_step_us
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.open_account import OpenAccount, PaymentStatus, by_system
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.service.requests import Request, answer_once
from services.billing.store import Transaction


@dataclass(frozen=True, slots=True)
class PlansPage:
    """One page of the catalogue; the offers stand on the first."""

    plans: Page[Plan]
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subscription stands at a moment."""

    subscription: Subscription
    pending_change: SubscriptionChange | None
    payment: PaymentStatus
    as_of_us: int


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """A subscription with its plan, its entitlement's way and one page of the account's changes."""

    standing: Standing
    plan: Plan
    entitlement: EntitlementStatus
    changes: Page[SubscriptionChange]


@dataclass(frozen=True, slots=True)
class Wish:
    """Whose subscription is to be changed, by whom, and how."""

    account_id: str
    actor: Actor
    etag: str
    """Empty to go without the check."""
    request_id: str
    """Empty for none."""
    validate_only: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """What a change did, or would do. Kept with its request_id."""

    standing: Standing
    change: SubscriptionChange
    invoice: Invoice | None


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """What a change did, and how far the entitlement has come by now."""

    record: ChangeRecord
    entitlement: EntitlementStatus


class SubscriptionService:
    """Use cases of subscriptions."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

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
            if next_step_us(subscription) <= self._context.clock.now_us():
                # What time has done to it is written first: nobody reads of yesterday's plan.
                opened = await OpenAccount.open(self._context, transaction, account_id)
                await opened.close(by_system("renewal"))
                account, subscription = opened.account, opened.subscription
            now_us = self._context.clock.now_us()
            opened = OpenAccount(self._context, transaction, now_us, account, subscription)
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
            return SubscriptionView(await _standing(opened), plan, status, changes)

        return await self._context.store.transact(read)

    async def change_plan(self, wish: Wish, plan_id: str, plan_version: int) -> ChangeAnswer:
        """Changes to a plan, in the direction that the prices decide.

        Args:
            wish: whose subscription, and how.
            plan_id: the plan.
            plan_version: its version; 0 for the newest on sale.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, DUPLICATE_REQUEST, STALE_ETAG, PLAN_NOT_FOUND,
                CONTRACT_REQUIRED, CONTRACT_IN_FORCE.
        """

        def decide(subscription: Subscription, now_us: int) -> Changed:
            plan = self._plan(subscription, plan_id, plan_version, now_us)
            randomness = self._context.randomness
            return change_plan(subscription, plan.terms(), now_us, randomness, request_id=wish.request_id)

        return await self._change(wish, "ChangePlan", (plan_id, plan_version), decide)

    def _plan(self, subscription: Subscription, plan_id: str, plan_version: int, now_us: int) -> Plan:
        """The plan that is asked for: on sale, or the one in force."""
        if not plan_version:
            return self._context.catalogue.newest(plan_id, now_us)
        plan = self._context.catalogue.plan(plan_id, plan_version)
        in_force = (subscription.terms.plan_id, subscription.terms.plan_version) == (plan_id, plan_version)
        if not plan.is_sold_at(now_us) and not in_force:
            raise plan_not_found()
        return plan

    async def cancel(self, wish: Wish) -> ChangeAnswer:
        """Ends the subscription with its period; a second cancellation is answered with the first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, DUPLICATE_REQUEST, STALE_ETAG, SUBSCRIPTION_ENDED.
        """
        return await self._change(
            wish,
            "CancelSubscription",
            (wish.reason,),
            lambda subscription, now_us: cancel(
                subscription, now_us, self._context.randomness, request_id=wish.request_id
            ),
        )

    async def revert(self, wish: Wish) -> ChangeAnswer:
        """Drops the pending downgrade or cancellation.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, DUPLICATE_REQUEST, STALE_ETAG, NO_PENDING_CHANGE,
                SUBSCRIPTION_ENDED.
        """
        return await self._change(
            wish,
            "RevertPendingChange",
            (),
            lambda subscription, now_us: revert(
                subscription, now_us, self._context.randomness, request_id=wish.request_id
            ),
        )

    async def put_contract(self, wish: Wish, contract: ContractWish) -> ChangeAnswer:
        """Sets the account's contract, from a time on.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, DUPLICATE_REQUEST, STALE_ETAG, PLAN_NOT_FOUND,
                OFFER_NOT_FOUND; INVALID_REQUEST, see `contracts.contract_of`.
        """

        def decide(subscription: Subscription, now_us: int) -> Changed:
            catalogue, randomness = self._context.catalogue, self._context.randomness
            agreed = contract_of(contract, catalogue, now_us, randomness)
            return put_contract(subscription, agreed, catalogue, now_us, randomness, request_id=wish.request_id)

        return await self._change(wish, "PutContract", astuple(contract), decide)

    async def _change(
        self, wish: Wish, method: str, content: tuple[object, ...], decide: Callable[[Subscription, int], Changed]
    ) -> ChangeAnswer:
        request = Request(method, wish.account_id, "" if wish.validate_only else wish.request_id, content)
        action = Action(wish.actor, f"SubscriptionService.{method}", wish.request_id, wish.reason)

        async def work(transaction: Transaction) -> ChangeRecord:
            opened = await OpenAccount.open(self._context, transaction, wish.account_id)

            async def change() -> ChangeRecord:
                opened.refuse_deleted()
                check_etag(opened.subscription, wish.etag)
                if method == "CancelSubscription" and opened.subscription.cancel_change_id:
                    return await _already_cancelled(opened)
                changed = decide(opened.subscription, opened.now_us)
                if wish.validate_only:
                    return await self._preview(opened, changed)
                return await _write(opened, changed, action)

            record = await answer_once(transaction, request, opened.now_us, ChangeRecord, change)
            await opened.close(action)
            return record

        record = await self._context.store.transact(work)
        if wish.validate_only:
            status = await self._context.store.transact(lambda t: t.entitlements.status(wish.account_id))
            return ChangeAnswer(record, EntitlementStatus(status.revision, False))
        return ChangeAnswer(record, await self._dispatcher.apply(wish.account_id))

    async def _preview(self, opened: OpenAccount, changed: Changed) -> ChangeRecord:
        """What would happen, without ids for what is not there yet, and with the etag by which it can be done."""
        before, after = opened.subscription, changed.outcome.subscription
        agreed = after.contract
        contract_id = "" if agreed is None or agreed == before.contract else agreed.contract_id
        after = replace(after, version=before.version, terms=_unnamed(after.terms, contract_id))
        if after.subscription_id != before.subscription_id:
            after = replace(after, subscription_id="")
        if agreed is not None and contract_id:
            after = replace(after, contract=replace(agreed, contract_id=""))
        to_terms = changed.change.to_terms and _unnamed(changed.change.to_terms, contract_id)
        change = replace(changed.change, change_id="", subscription_id=after.subscription_id, to_terms=to_terms)
        pending = replace(change, state=ChangeState.PREVIEW) if change.state is ChangeState.PENDING else None
        drafts = [
            draft_of_charge(charge._replace(subscription_id=after.subscription_id), self._context.catalogue)
            for charge in changed.outcome.charges
            if charge.change_id == changed.change.change_id and charge.amount_micro
        ]
        invoice = preview(drafts[0], opened.account) if drafts else None
        if invoice is not None:
            lines = (replace(line, change_id="", contract_id="") for line in invoice.lines)
            invoice = replace(invoice, lines=tuple(lines))
        standing = Standing(after, pending, await opened.payment_status(), opened.now_us)
        return ChangeRecord(standing, replace(change, state=ChangeState.PREVIEW), invoice)


def _unnamed(terms: Terms, contract_id: str) -> Terms:
    """Terms without the id of a contract that is only previewed."""
    return replace(terms, contract_id="") if terms.contract_id == contract_id else terms


async def _write(opened: OpenAccount, changed: Changed, action: Action) -> ChangeRecord:
    change = changed.change
    if not changed.is_new:
        return ChangeRecord(await _standing(opened), replace(change, change_id=""), None)
    invoices = await opened.apply(changed.outcome, action, change)
    written = await opened.transaction.subscriptions.find_change(change.change_id)
    assert written is not None
    return ChangeRecord(await _standing(opened), written, invoices.get(change.change_id))


async def _already_cancelled(opened: OpenAccount) -> ChangeRecord:
    change = await opened.transaction.subscriptions.find_change(opened.subscription.cancel_change_id)
    assert change is not None
    return ChangeRecord(await _standing(opened), change, None)


async def _standing(opened: OpenAccount) -> Standing:
    subscription = opened.subscription
    pending = None
    if subscription.pending_change_id:
        pending = await opened.transaction.subscriptions.find_change(subscription.pending_change_id)
    return Standing(subscription, pending, await opened.payment_status(), opened.now_us)
