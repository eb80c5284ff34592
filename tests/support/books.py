"""Billing's use cases on a database, without servers: for tests of what happens behind the calls."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Final

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.domain.audit import Actor, ActorKind
from services.billing.domain.entitlements import Entitlement
from services.billing.domain.invoices import Invoice
from services.billing.domain.ledger import EventBatch
from services.billing.domain.paging import PageTokens
from services.billing.domain.usage import QuotaReading
from services.billing.invoice_store import InvoiceFilter
from services.billing.service.accounts import AccountService, NewAccount
from services.billing.service.context import Context
from services.billing.service.corrections import Correction, CorrectionService
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.invoices import InvoiceService
from services.billing.service.scheduler import Scheduler
from services.billing.service.subscriptions import SubscriptionService, Wish
from services.billing.store import Store
from services.shared.background import Backoff
from services.shared.clock import Clock
from services.shared.secret import Secret

OPERATOR: Final = Actor(ActorKind.ADMIN)
CATALOGUE: Final = load_catalogue()


class TakingQuota:
    """A quota that takes every entitlement."""

    def __init__(self) -> None:
        self.taken: dict[str, Entitlement] = {}

    async def put_entitlement(self, entitlement: Entitlement, timeout_s: float) -> None:
        """Takes it."""
        self.taken[entitlement.account_id] = entitlement

    async def get_quota(self, account_id: str, timeout_s: float) -> QuotaReading:
        """Not asked for here."""
        raise NotImplementedError

    def read_session_events(self, after: Mapping[int, str]) -> AsyncIterator[EventBatch]:
        """Not asked for here."""
        raise NotImplementedError

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        """Not asked for here."""
        raise NotImplementedError


class NoPrinter:
    """Prints nothing."""

    def print(self, *_: object) -> bytes:
        """Not asked for here."""
        raise NotImplementedError


class Books:
    """One replica's use cases."""

    def __init__(self, database: Store, clock: Clock, *, payments: bool = False) -> None:
        self.quota = TakingQuota()
        self.context = Context(
            database,
            self.quota,
            CATALOGUE,
            PageTokens(Secret("key")),
            clock,
            secrets.token_bytes,
            has_payment_provider=payments,
        )
        self.dispatcher = EntitlementDispatcher(self.context, Backoff(0.01, 0.02, lambda: 1.0))
        self.accounts = AccountService(self.context, self.dispatcher)
        self.subscriptions = SubscriptionService(self.context, self.dispatcher)
        self.invoices = InvoiceService(self.context, NoPrinter())
        self.corrections = CorrectionService(self.context, self.dispatcher)
        self.scheduler = Scheduler(self.context, self.dispatcher)

    async def open_account(self, plan_id: str = "starter") -> str:
        """Creates an account."""
        created = await self.accounts.create(NewAccount("Ada", "ada@example.org", plan_id, ""), OPERATOR)
        return created.account.account_id

    def wish(self, account_id: str) -> Wish:
        """A change without conditions."""
        return Wish(account_id, OPERATOR, "", "", False)

    def correction(self, account_id: str, invoice_id: str) -> Correction:
        """A correction of an invoice."""
        return Correction(account_id, invoice_id, OPERATOR, "")

    async def invoices_of(self, account_id: str) -> list[Invoice]:
        """Every invoice, oldest first."""
        wanted = InvoiceFilter((), (), 0, 0)
        found = await self.context.store.transact(lambda t: t.invoices.list(account_id, wanted, None, 1000))
        return list(found)[::-1]

    async def settle(self) -> None:
        """Lets the scheduler do all that is due now."""
        while await self.context.store.transact(lambda t: t.due_accounts.due(self.context.clock.now_us(), 1)):
            await self.scheduler.run_once()
