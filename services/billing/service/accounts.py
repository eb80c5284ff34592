"""Accounts: creating, reading, listing, suspending, deleting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.billing.domain.audit import NOTHING, Action, Actor, audit_event
from services.billing.domain.catalogue import FREE
from services.billing.domain.changes import end_now
from services.billing.domain.entitlements import EntitlementStatus
from services.billing.domain.facts import facts_of_account, facts_of_subscription
from services.billing.domain.ids import new_id
from services.billing.domain.model import Account, AccountState, Subscription
from services.billing.domain.renewal import begin
from services.billing.domain.subscriptions import start_subscription
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.open_account import OpenAccount, PaymentStatus, lifted
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.service.requests import Request, answer_once
from services.billing.store import AccountFilter, Transaction
from services.shared.errors import FlowStackError, Reason, invalid_request

PURGE_DELAY_US: Final = 30 * 24 * 3600 * 1_000_000
"""From an account's deletion until its personal data and documents are purged."""

_CREATE = "CreateAccount"


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What a new account is made from."""

    display_name: str
    email: str
    plan_id: str
    """Empty for the free plan."""
    request_id: str
    """Empty for none."""


@dataclass(frozen=True, slots=True)
class CreatedAccount:
    """A new account, its subscription, and how far the entitlement has come."""

    account: Account
    subscription: Subscription
    payment: PaymentStatus
    entitlement: EntitlementStatus


@dataclass(frozen=True, slots=True)
class ChangedAccount:
    """An account after a change, and how far its entitlement has come."""

    account: Account
    entitlement: EntitlementStatus


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a request_id was answered with."""

    account: Account
    subscription: Subscription
    payment: PaymentStatus


class AccountService:
    """Use cases of accounts."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

    async def create(self, new: NewAccount, actor: Actor) -> CreatedAccount:
        """Creates an account with a subscription, and waits a moment for quota to have its entitlement.

        The first fee, if any, is invoiced in the same transaction. A repeat of a request_id answers the account and
        subscription as they were created; how far the entitlement has come is answered as of now.

        Raises:
            FlowStackError: PLAN_NOT_FOUND, CONTRACT_REQUIRED, DUPLICATE_REQUEST.
        """
        now_us = self._context.clock.now_us()
        request = Request(_CREATE, "", new.request_id, (new.display_name, new.email, new.plan_id or FREE))
        action = Action(actor, "AccountService.CreateAccount", new.request_id)
        answer = await self._context.store.transact(
            lambda transaction: answer_once(
                transaction, request, now_us, _Answer, lambda: self._create(transaction, new, now_us, action)
            )
        )
        status = await self._dispatcher.apply(answer.account.account_id)
        return CreatedAccount(answer.account, answer.subscription, answer.payment, status)

    async def _create(self, transaction: Transaction, new: NewAccount, now_us: int, action: Action) -> _Answer:
        context = self._context
        account_id = new_id("acct_", context.randomness)
        terms = context.catalogue.newest(new.plan_id or FREE, now_us).terms()
        started = start_subscription(account_id, terms, now_us, context.randomness, request_id=new.request_id)
        subscription = started.subscription
        account = Account(
            account_id,
            new.display_name,
            new.email,
            subscription.subscription_id,
            terms.plan_id,
            AccountState.ACTIVE,
            "",
            0,
            0,
            now_us,
            now_us,
            0,
            0,
            1,
        )
        await transaction.accounts.insert(account)
        await transaction.subscriptions.insert(subscription)
        opened = OpenAccount(context, transaction, now_us, account, subscription)
        facts = facts_of_account(account)
        await opened.audit(action, "account", account_id, NOTHING, facts)
        await opened.audit(
            action, "subscription", subscription.subscription_id, NOTHING, facts_of_subscription(subscription)
        )
        await opened.apply(begin(subscription, started.change.change_id), action, started.change)
        await opened.close(action)
        return _Answer(account, opened.subscription, await opened.payment_status())

    async def suspend(
        self, account_id: str, reason: str, until_us: int, etag: str, actor: Actor, *, lift: bool
    ) -> ChangedAccount:
        """Suspends an account, until `until_us` where that is not 0, or lifts its suspension.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, STALE_ETAG; INVALID_REQUEST for an end that is not in
                the future.
        """
        action = Action(actor, "AccountService.SuspendAccount", reason=reason)

        async def suspend(transaction: Transaction) -> Account:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            opened.refuse_deleted()
            _check_etag(opened.account, etag)
            if until_us and until_us <= opened.now_us:
                raise invalid_request("until_time", "must be in the future")
            changed = opened.account
            if not lift:
                changed = replace(
                    changed,
                    state=AccountState.SUSPENDED,
                    suspend_reason=reason,
                    suspend_us=changed.suspend_us or opened.now_us,
                    suspend_until_us=until_us,
                )
            elif changed.state is AccountState.SUSPENDED:
                changed = lifted(changed)
            if changed != opened.account:
                await opened.write_account(changed, action)
            await opened.close(action)
            return opened.account

        account = await self._context.store.transact(suspend)
        return ChangedAccount(account, await self._dispatcher.apply(account_id))

    async def delete(self, account_id: str, reason: str, etag: str, actor: Actor) -> ChangedAccount:
        """Deletes an account: its keys are revoked and its subscription ends at once, running sessions finish.

        Its name and address are blanked after 30 days, here and on its invoices; everything else stays under its
        account_id, which is a pseudonym then.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, STALE_ETAG.
        """
        action = Action(actor, "AccountService.DeleteAccount", reason=reason)

        async def delete(transaction: Transaction) -> Account:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            if opened.account.state is AccountState.DELETED:
                return opened.account
            _check_etag(opened.account, etag)
            now_us = opened.now_us
            await transaction.api_keys.revoke_all(account_id, now_us)
            ended = end_now(opened.subscription, now_us, self._context.randomness)
            await opened.apply(ended.outcome, action, ended.change if ended.is_new else None)
            deleted = replace(
                lifted(opened.account), state=AccountState.DELETED, delete_us=now_us, purge_us=now_us + PURGE_DELAY_US
            )
            await opened.write_account(deleted, action)
            await opened.close(action)
            return opened.account

        account = await self._context.store.transact(delete)
        return ChangedAccount(account, await self._dispatcher.apply(account_id))

    async def get(self, account_id: str) -> Account:
        """Reads an account.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """
        return await self._context.store.transact(lambda transaction: transaction.accounts.get(account_id))

    async def list(self, wanted: AccountFilter, request: PageRequest, actor: Actor) -> Page[Account]:
        """Lists accounts, newest first. Whoever looks at all customers' names is in the audit log.

        Raises:
            FlowStackError: INVALID_REQUEST: another call's page token.
        """
        states = ",".join(str(int(state)) for state in sorted(wanted.states))
        scope = ("ListAccounts", states, wanted.plan_id, wanted.email.casefold())

        async def read(transaction: Transaction) -> Page[Account]:
            page = await read_page(
                self._context.page_tokens,
                scope,
                request,
                lambda after, limit: transaction.accounts.list(wanted, after, limit),
                lambda account: (account.create_us, account.account_id),
            )
            event = audit_event(
                Action(actor, "AccountService.ListAccounts"),
                "",
                "account",
                "",
                before=NOTHING,
                after={"listed": len(page.items)},
                now_us=self._context.clock.now_us(),
                randomness=self._context.randomness,
            )
            await transaction.audit.insert(event)
            return page

        return await self._context.store.transact(read)


def _check_etag(account: Account, etag: str) -> None:
    if etag and etag != account.etag:
        raise FlowStackError(
            Reason.STALE_ETAG,
            "The account has changed since it was read. Read it again, and decide again.",
            metadata={"etag": account.etag},
        )
