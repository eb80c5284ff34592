"""Accounts: creating, reading, listing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import msgspec

from services.billing.domain.catalogue import FREE
from services.billing.domain.entitlements import EntitlementStatus, entitlement_of
from services.billing.domain.ids import new_id
from services.billing.domain.model import Account, AccountState, Subscription
from services.billing.domain.subscriptions import start_subscription
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import AccountFilter, Transaction

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
    entitlement: EntitlementStatus


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a request_id was answered with."""

    account: Account
    subscription: Subscription


class AccountService:
    """Use cases of accounts."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

    async def create(self, new: NewAccount) -> CreatedAccount:
        """Creates an account with a subscription, and waits a moment for quota to have its entitlement.

        A repeat of a request_id answers the account and subscription as they were created; how far the entitlement
        has come is answered as of now.

        Raises:
            FlowStackError: PLAN_NOT_FOUND, CONTRACT_REQUIRED, DUPLICATE_REQUEST.
        """
        answer = await self._context.store.transact(lambda transaction: self._create_once(transaction, new))
        status = await self._dispatcher.apply(answer.account.account_id)
        return CreatedAccount(answer.account, answer.subscription, status)

    async def _create_once(self, transaction: Transaction, new: NewAccount) -> _Answer:
        now_us = self._context.clock.now_us()
        if new.request_id:
            earlier = await transaction.requests.begin(_CREATE, "", new.request_id, _content(new), now_us)
            if earlier is not None:
                return msgspec.json.decode(earlier, type=_Answer)
        answer = await self._create(transaction, new, now_us)
        if new.request_id:
            kept = msgspec.json.encode(answer).decode()
            await transaction.requests.finish(_CREATE, "", new.request_id, kept)
        return answer

    async def _create(self, transaction: Transaction, new: NewAccount, now_us: int) -> _Answer:
        randomness = self._context.randomness
        catalogue = self._context.catalogue
        account_id = new_id("acct_", randomness)
        terms = catalogue.newest(new.plan_id or FREE, now_us).terms()
        started = start_subscription(account_id, terms, now_us, randomness, request_id=new.request_id)
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
        await transaction.subscriptions.insert_change(started.change)
        await transaction.entitlements.put(entitlement_of(subscription, catalogue, 1), now_us)
        return _Answer(account, subscription)

    async def get(self, account_id: str) -> Account:
        """Reads an account.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """
        return await self._context.store.transact(lambda transaction: transaction.accounts.get(account_id))

    async def list(self, wanted: AccountFilter, request: PageRequest) -> Page[Account]:
        """Lists accounts, newest first.

        Raises:
            FlowStackError: INVALID_REQUEST: another call's page token.
        """
        states = ",".join(str(int(state)) for state in sorted(wanted.states))
        scope = ("ListAccounts", states, wanted.plan_id, wanted.email.casefold())
        return await self._context.store.transact(
            lambda transaction: read_page(
                self._context.page_tokens,
                scope,
                request,
                lambda after, limit: transaction.accounts.list(wanted, after, limit),
                lambda account: (account.create_us, account.account_id),
            )
        )


def _content(new: NewAccount) -> str:
    content = json.dumps([new.display_name, new.email, new.plan_id or FREE])
    return hashlib.sha256(content.encode()).hexdigest()
