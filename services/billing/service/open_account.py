"""An account that a transaction has locked: the one way by which subscriptions, invoices and entitlements change.

open     the account is locked, and all that time has done to it is written: renewals, changes that were due,
         closing statements, the end of a suspension, the purge
apply    what a call decides on top
close    alerts and the budget, the entitlement for quota, where it is another one now, and when the account is next due
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from services.billing.alert_store import Watched
from services.billing.domain.alerts import BudgetStanding, budget_block
from services.billing.domain.audit import NOTHING, Action, Actor, ActorKind, Facts, audit_event
from services.billing.domain.entitlements import BlockReason, block_of, entitlement_of
from services.billing.domain.facts import facts_of_account, facts_of_invoice, facts_of_subscription
from services.billing.domain.invoices import Invoice
from services.billing.domain.issuing import Draft, draft_of_charge, draft_of_statement, issue
from services.billing.domain.ledger import partition_of
from services.billing.domain.model import (
    Account,
    AccountState,
    ChangeState,
    Subscription,
    SubscriptionChange,
)
from services.billing.domain.payments import PaymentErrandKind
from services.billing.domain.renewal import FOREVER_US, Outcome, advance, next_step_us, placements
from services.billing.domain.webhooks import WEBHOOKS_MAX
from services.billing.invoice_store import PaymentErrand
from services.billing.service.alerting import look_again
from services.billing.service.context import Context
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import Period, period_at

STATEMENT_RETRY_US: Final = 15_000_000
"""How long until it is looked again whether the ledger has all of a period that is over."""


def by_system(job: str) -> Action:
    """What billing does by itself."""
    return Action(Actor(ActorKind.SYSTEM, job), job)


class PaymentStatus(NamedTuple):
    """How an account stands with its payments."""

    overdue: bool
    """An invoice is unpaid past its grace."""
    grace_end_us: int
    """When the grace of the invoice that is due first ends; 0 where none is open."""


@dataclass(slots=True)
class OpenAccount:
    """An account that a transaction has locked."""

    context: Context
    transaction: Transaction
    now_us: int
    account: Account
    subscription: Subscription
    events: int = 0
    """How many audit events were written so far."""

    @staticmethod
    async def open(context: Context, transaction: Transaction, account_id: str) -> OpenAccount:
        """Locks an account and brings it up to date.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """
        return await OpenAccount.of(context, transaction, await transaction.accounts.lock(account_id))

    @staticmethod
    async def of(context: Context, transaction: Transaction, account: Account) -> OpenAccount:
        """Brings an account that is locked up to date."""
        subscription = await transaction.subscriptions.get(account.subscription_id)
        opened = OpenAccount(context, transaction, context.clock.now_us(), account, subscription)
        await opened._catch_up()
        return opened

    def refuse_deleted(self) -> None:
        """Refuses to change a deleted account.

        Raises:
            FlowStackError: ACCOUNT_DELETED.
        """
        if self.account.state is AccountState.DELETED:
            raise FlowStackError(
                Reason.ACCOUNT_DELETED, "The account is deleted and cannot be changed any more. Create another account."
            )

    async def apply(
        self, outcome: Outcome, action: Action, change: SubscriptionChange | None = None
    ) -> dict[str, Invoice]:
        """Writes what became of the subscription: history, invoices, audit.

        Returns:
            The invoices, by the change that caused each.
        """
        before, after = self.subscription, outcome.subscription
        subscriptions = self.transaction.subscriptions
        for subscription in (*outcome.retired, after):
            if subscription.subscription_id == before.subscription_id:
                await subscriptions.update(subscription)
            else:
                await subscriptions.insert(subscription)
        for entry in (*outcome.unasked, *([] if change is None else [change])):
            await subscriptions.insert_change(entry)
        for placement in (*outcome.begun, *placements(after)):
            await subscriptions.place_change(placement)
        if outcome.applied:
            await subscriptions.mark_changes(outcome.applied, ChangeState.APPLIED, 0)
        if outcome.dropped:
            await subscriptions.mark_changes(outcome.dropped, ChangeState.DROPPED, self.now_us)
        for change_id, subscription_id in outcome.started.items():
            await subscriptions.set_change_subscription(change_id, subscription_id)
        await self._audit_subscriptions(outcome, action)
        self.subscription = after
        if (after.subscription_id, after.terms.plan_id) != (self.account.subscription_id, self.account.plan_id):
            await self.write_account(
                replace(self.account, subscription_id=after.subscription_id, plan_id=after.terms.plan_id), action
            )
        return await self._charge(outcome, action)

    async def _audit_subscriptions(self, outcome: Outcome, action: Action) -> None:
        facts: Facts = facts_of_subscription(self.subscription)
        subscription_id = self.subscription.subscription_id
        for subscription in (*outcome.retired, outcome.subscription):
            before = facts if subscription.subscription_id == subscription_id else NOTHING
            await self.audit(
                action, "subscription", subscription.subscription_id, before, facts_of_subscription(subscription)
            )

    async def _charge(self, outcome: Outcome, action: Action) -> dict[str, Invoice]:
        invoices: dict[str, Invoice] = {}
        for charge in outcome.charges:
            if not charge.amount_micro:
                continue
            invoice = await self._issue(draft_of_charge(charge, self.context.catalogue), action)
            if charge.change_id:
                invoices[charge.change_id] = invoice
                await self.transaction.subscriptions.set_change_invoice(
                    charge.change_id, invoice.invoice_id, charge.amount_micro
                )
        return invoices

    async def _issue(self, draft: Draft, action: Action) -> Invoice:
        number = await self.transaction.invoices.next_number(self.account.account_id)
        context = self.context
        invoice = issue(
            draft,
            self.account,
            number,
            context.payment_terms,
            now_us=self.now_us,
            randomness=context.randomness,
        )
        await self.transaction.invoices.insert(invoice)
        if invoice.total_micro:
            await self.send(invoice, PaymentErrandKind.PUBLISH)
        await self.audit(action, "invoice", invoice.invoice_id, NOTHING, facts_of_invoice(invoice))
        return invoice

    async def send(self, invoice: Invoice, kind: PaymentErrandKind, credit_note_id: str = "") -> None:
        """Has something done at the payment provider, where there is one."""
        if self.context.has_payment_provider:
            errand = PaymentErrand(invoice.account_id, invoice.invoice_id, kind, credit_note_id, 0)
            await self.transaction.payments.add(errand, self.now_us)

    async def write_account(self, account: Account, action: Action) -> None:
        """Writes a changed account."""
        changed = replace(account, version=self.account.version + 1, update_us=self.now_us)
        await self.transaction.accounts.update(changed)
        await self.audit(
            action, "account", account.account_id, facts_of_account(self.account), facts_of_account(changed)
        )
        self.account = changed

    async def audit(self, action: Action, resource_type: str, resource_id: str, before: Facts, after: Facts) -> None:
        """Adds an audit event, where anything differs."""
        event = audit_event(
            action,
            self.account.account_id,
            resource_type,
            resource_id,
            before=before,
            after=after,
            now_us=self.now_us,
            place=self.events,
            randomness=self.context.randomness,
        )
        self.events += 1
        if event.changes:
            await self.transaction.audit.insert(event)

    async def payment_status(self) -> PaymentStatus:
        """How the account stands with its payments."""
        oldest_due_us = await self.transaction.invoices.oldest_due_us(self.account.account_id)
        if not oldest_due_us:
            return PaymentStatus(False, 0)
        grace_end_us = oldest_due_us + self.context.payment_terms.grace_us
        return PaymentStatus(grace_end_us <= self.now_us, grace_end_us)

    async def _catch_up(self) -> None:
        if next_step_us(self.subscription) <= self.now_us:
            outcome = advance(self.subscription, self.now_us, self.context.randomness)
            await self.apply(outcome, by_system("renewal"))
        account = self.account
        if account.state is AccountState.SUSPENDED and 0 < account.suspend_until_us <= self.now_us:
            await self.write_account(lifted(account), by_system("end of suspension"))
        if _is_to_be_purged(account) and account.purge_us <= self.now_us:
            await self.transaction.invoices.forget_customer(account.account_id)
            await self.transaction.requests.forget_customer(account.account_id)
            await forget_webhooks(self.transaction, account.account_id)
            await self.write_account(replace(self.account, display_name="", email=""), by_system("purge"))
            await self.audit(by_system("purge"), "account", account.account_id, NOTHING, {"purged": True})

    async def state_usage(self) -> int:
        """Makes the closing statements that can be made.

        Returns:
            When the next one is due; FOREVER_US for never.
        """
        next_us = FOREVER_US
        for subscription in await self.transaction.subscriptions.unstated(self.account.account_id):
            next_us = min(next_us, await self._state_usage_of(subscription))
        return next_us

    async def _state_usage_of(self, subscription: Subscription) -> int:
        partition = partition_of(self.account.account_id)
        stated_us = subscription.stated_us
        due_us = FOREVER_US
        while not subscription.end_us or stated_us < subscription.end_us:
            # To the period's natural end, also where the subscription ended before: quota may have learned it late.
            period = period_at(subscription.anchor_us, stated_us)
            if period.end_us > self.now_us:
                due_us = period.end_us
                break
            if not await self.transaction.invoices.is_complete_until(partition, period.end_us):
                due_us = self.now_us + STATEMENT_RETRY_US
                break
            await self._state_period(subscription, period)
            stated_us = period.end_us
        if stated_us != subscription.stated_us:
            changed = replace(subscription, stated_us=stated_us)
            await self.transaction.subscriptions.update(changed)
            if subscription.subscription_id == self.subscription.subscription_id:
                self.subscription = changed
        return due_us

    async def _state_period(self, subscription: Subscription, period: Period) -> None:
        """A period without a counted session gets no statement: there is nothing to state."""
        counts = await self.transaction.invoices.session_counts(self.account.account_id, period)
        if not any(counts):
            return
        subscription_id = subscription.subscription_id
        terms = await self.transaction.subscriptions.terms_before(subscription_id, period.end_us)
        catalogue = self.context.catalogue
        by_day = await self.transaction.rollups.committed_by_day(self.account.account_id, period.start_us)
        terms = terms or subscription.terms
        draft = draft_of_statement(subscription_id, terms, period, counts, catalogue, by_day=by_day)
        await self._issue(draft, by_system("closing statement"))

    async def close(self, action: Action) -> None:
        """Fires alerts, writes the entitlement, where it is another one now, and when the account is next due."""
        statement_us = await self.state_usage()
        payment = await self.payment_status()
        await self._put_entitlement(payment, await self._look_at_alerts(), action)
        moments = [next_step_us(self.subscription), statement_us]
        account = self.account
        if account.state is AccountState.SUSPENDED and account.suspend_until_us:
            moments.append(account.suspend_until_us)
        if payment.grace_end_us and not payment.overdue:
            moments.append(payment.grace_end_us)
        if _is_to_be_purged(account):
            moments.append(account.purge_us)
        await self.transaction.due_accounts.put(account.account_id, min(moments))
        self.transaction.after_commit(lambda: self.context.signals.usage.changed([account.account_id]))

    async def _look_at_alerts(self) -> BudgetStanding | None:
        """Fires what is due by now; answers how the budget stands."""
        account_id = self.account.account_id
        # Sessions that are being booked are waited for, and later ones see what is decided here. The order is the
        # account first, then its partition: who books entries holds the partition and never waits for an account.
        await self.transaction.partitions.lock([partition_of(account_id)])
        settings = await self.transaction.alerts.settings(account_id)
        watched = Watched(self.account.state, self.subscription, settings)
        return await look_again(self.context, self.transaction, watched, self.now_us)

    async def _put_entitlement(self, payment: PaymentStatus, budget: BudgetStanding | None, action: Action) -> None:
        entitlements = self.transaction.entitlements
        stored = await entitlements.find(self.account.account_id)
        revision = stored.revision if stored else 0
        block = block_of(self.account, payment_overdue=payment.overdue) or budget_block(budget)
        wanted = entitlement_of(self.subscription, self.context.catalogue, revision, block)
        if wanted == stored:
            return
        await entitlements.put(replace(wanted, revision=revision + 1), self.now_us)
        was_overdue = bool(stored and stored.block and stored.block.reason is BlockReason.PAYMENT_OVERDUE)
        if was_overdue != payment.overdue:
            by = by_system("end of grace") if payment.overdue else action
            before, after = {"payment_overdue": was_overdue}, {"payment_overdue": payment.overdue}
            await self.audit(by, "account", self.account.account_id, before, after)


def lifted(account: Account) -> Account:
    """The account without its suspension."""
    return replace(account, state=AccountState.ACTIVE, suspend_reason="", suspend_us=0, suspend_until_us=0)


def _is_to_be_purged(account: Account) -> bool:
    return bool(account.purge_us and account.display_name)


async def forget_webhooks(transaction: Transaction, account_id: str) -> None:
    """Deletes every webhook of an account, with its address and secrets."""
    webhooks = await transaction.webhooks.list(account_id, None, WEBHOOKS_MAX)
    await transaction.webhooks.delete(account_id, [webhook.webhook_id for webhook in webhooks])
