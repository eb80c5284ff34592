"""The port to billing's store. A use case runs in a transaction: it reads, decides and writes; it all holds or none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from services.billing.domain.audit import ActorKind, AuditEvent
from services.billing.domain.entitlements import Entitlement, EntitlementStatus
from services.billing.domain.invoices import CreditNote, Invoice, InvoiceKind, InvoiceState, SessionCounts
from services.billing.domain.model import (
    Account,
    AccountState,
    ApiKey,
    ChangeState,
    Subscription,
    SubscriptionChange,
    Terms,
)
from services.billing.domain.paging import Position
from services.billing.domain.payments import PaymentErrandKind
from services.billing.ledger_store import Ledger, Partitions
from services.shared.periods import Period

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Which accounts are listed."""

    states: tuple[AccountState, ...]
    """Empty for all but deleted ones."""
    plan_id: str
    email: str
    """Letter case aside."""


class KeyOwner(NamedTuple):
    """An API key with the account and the subscription that it acts for."""

    key: ApiKey
    account: Account
    subscription: Subscription


class PendingEntitlement(NamedTuple):
    """An entitlement on its way to quota."""

    entitlement: Entitlement
    attempts: int
    """How often it was sent in vain."""


class Accounts(Protocol):
    """Accounts."""

    async def insert(self, account: Account) -> None:
        """Adds an account."""

    async def get(self, account_id: str) -> Account:
        """Reads an account.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """
        ...

    async def lock(self, account_id: str) -> Account:
        """Reads an account and makes other writers of it wait for this transaction's end.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """
        ...

    async def try_lock(self, account_id: str) -> Account | None:
        """The same, without waiting: None where another transaction has the account, or it is not there."""
        ...

    async def update(self, account: Account) -> None:
        """Writes an account that this transaction has locked."""

    async def list(self, wanted: AccountFilter, after: Position | None, limit: int) -> Sequence[Account]:
        """Accounts, newest first."""
        ...


class ApiKeys(Protocol):
    """API keys."""

    async def insert(self, key: ApiKey) -> None:
        """Adds a key."""

    async def find(self, account_id: str, api_key_id: str) -> ApiKey | None:
        """One key of an account."""
        ...

    async def find_owner(self, api_key_id: str) -> KeyOwner | None:
        """A key with whom it acts for, in one read."""
        ...

    async def list(
        self, account_id: str, now_us: int, after: Position | None, limit: int, *, include_inactive: bool
    ) -> Sequence[ApiKey]:
        """Keys of an account, newest first."""
        ...

    async def count_active(self, account_id: str, now_us: int) -> int:
        """How many keys of an account are neither revoked nor expired."""
        ...

    async def revoke(self, api_key_id: str, now_us: int) -> None:
        """Revokes a key for good."""

    async def revoke_all(self, account_id: str, now_us: int) -> None:
        """Revokes every key of an account for good."""

    async def note_uses(self, uses: Mapping[str, int]) -> None:
        """Sets when keys were last used, where that is later than what is stored."""


class Subscriptions(Protocol):
    """Subscriptions and their history."""

    async def insert(self, subscription: Subscription) -> None:
        """Adds a subscription."""

    async def update(self, subscription: Subscription) -> None:
        """Writes a subscription whose account this transaction has locked."""

    async def unstated(self, account_id: str) -> Sequence[Subscription]:
        """Subscriptions of an account that lack a closing statement, now or once a period is over."""
        ...

    async def insert_change(self, change: SubscriptionChange) -> None:
        """Adds a change to the history."""

    async def get(self, subscription_id: str) -> Subscription:
        """Reads a subscription that is known to exist."""
        ...

    async def find_change(self, change_id: str) -> SubscriptionChange | None:
        """One change."""
        ...

    async def mark_changes(self, change_ids: Sequence[str], state: ChangeState, drop_us: int) -> None:
        """Says that changes came into force, or at `drop_us` that they never will."""

    async def set_change_subscription(self, change_id: str, subscription_id: str) -> None:
        """Says which new subscription a change began."""

    async def terms_before(self, subscription_id: str, moment_us: int) -> Terms | None:
        """The terms that a subscription had just before a time, by its history."""
        ...

    async def set_change_invoice(self, change_id: str, invoice_id: str, amount_micro: int) -> None:
        """Says what a change was invoiced with."""

    async def changes(self, account_id: str, after: Position | None, limit: int) -> Sequence[SubscriptionChange]:
        """Changes of all subscriptions of an account, newest first."""
        ...

    async def versions_sold(self) -> Collection[tuple[str, int]]:
        """Every plan_id and version that a subscription has."""
        ...


class Entitlements(Protocol):
    """The outbox of entitlements: of each account the newest, and whether quota has it."""

    async def status(self, account_id: str) -> EntitlementStatus:
        """How far an account's entitlement has come; revision 0 where it has none yet."""
        ...

    async def find(self, account_id: str) -> Entitlement | None:
        """The account's newest entitlement, whether quota has it or not."""
        ...

    async def put(self, entitlement: Entitlement, now_us: int) -> None:
        """Replaces an account's entitlement by one with a higher revision, to be sent at once."""

    async def find_pending(self, account_id: str) -> PendingEntitlement | None:
        """The account's entitlement, where quota does not have it yet."""
        ...

    async def due(self, now_us: int, limit: int) -> Sequence[PendingEntitlement]:
        """Entitlements that are to be sent by now, the longest due first."""
        ...

    async def next_due_us(self) -> int | None:
        """When the next one is to be sent; None where nothing is pending."""
        ...

    async def mark_applied(self, account_id: str, revision: int, now_us: int) -> None:
        """Quota has the revision. Changes nothing where there is a newer one meanwhile."""

    async def mark_failed(self, account_id: str, revision: int, next_attempt_us: int) -> None:
        """Quota was not reached: the revision is to be sent again then."""

    async def renew(self, now_us: int, account_id: str = "") -> None:
        """Has what quota acknowledged sent again: of one account, or of all. Quota's store was replaced."""


class Requests(Protocol):
    """Requests that carried a request_id, and what they were answered with, for good."""

    async def begin(self, method: str, scope: str, request_id: str, content: str, now_us: int) -> str | None:
        """Remembers a request; answers what the same one was answered with before, None for a new one.

        Raises:
            FlowStackError: DUPLICATE_REQUEST: the request_id came with other content.
        """
        ...

    async def finish(self, method: str, scope: str, request_id: str, answer: str) -> None:
        """Keeps the answer of a request that was begun in this transaction."""


@dataclass(frozen=True, slots=True)
class InvoiceFilter:
    """Which invoices of an account are listed."""

    states: tuple[InvoiceState, ...]
    """Empty for all; so with the others."""
    kinds: tuple[InvoiceKind, ...]
    start_us: int
    """Issued at or after; 0 for all."""
    end_us: int
    """Issued before; 0 for all."""


class Invoices(Protocol):
    """Invoices and credit notes."""

    async def next_number(self, account_id: str) -> int:
        """The account's next invoice number; the transaction has the account locked, so that there is no gap."""
        ...

    async def next_credit_number(self, account_id: str) -> int:
        """The account's next credit note number, likewise."""
        ...

    async def insert(self, invoice: Invoice) -> None:
        """Adds an invoice."""

    async def update(self, invoice: Invoice) -> None:
        """Writes an invoice's state, payment and credits. Nothing else of it can be written."""

    async def get(self, account_id: str, invoice_id: str) -> Invoice:
        """Reads an invoice.

        Raises:
            FlowStackError: INVOICE_NOT_FOUND, also for another account's.
        """
        ...

    async def find_of(self, subscription_id: str, period_start_us: int, kind: InvoiceKind, cause: str) -> str:
        """The id of the invoice for that; empty for none. There is at most one."""
        ...

    async def list(
        self, account_id: str, wanted: InvoiceFilter, after: Position | None, limit: int
    ) -> Sequence[Invoice]:
        """Invoices of an account, newest first."""
        ...

    async def oldest_due_us(self, account_id: str) -> int:
        """The due time of the account's open invoice that is due first; 0 for none."""
        ...

    async def charged_micro(self, account_id: str, period_start_us: int) -> int:
        """What the period that starts then has been invoiced so far, credits taken off, void ones left out."""
        ...

    async def insert_credit_note(self, note: CreditNote) -> None:
        """Adds a credit note."""

    async def credit_notes(self, invoice_ids: Collection[str]) -> Sequence[CreditNote]:
        """Credit notes of invoices, in the order in which they were issued."""
        ...

    async def forget_customer(self, account_id: str) -> None:
        """Blanks the customer's name and address on every invoice of an account."""

    async def session_counts(self, account_id: str, period: Period) -> SessionCounts:
        """Counted sessions of a period, from the ledger."""
        ...

    async def is_complete_until(self, partition: int, moment_us: int) -> bool:
        """Whether the ledger has the resolution of every session of the partition reserved before `moment_us`."""
        ...


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audit events are listed. What is empty or 0 lets everything through."""

    account_id: str
    start_us: int
    end_us: int
    actions: tuple[str, ...]
    actor_kinds: tuple[ActorKind, ...]
    resource_id: str


class Audit(Protocol):
    """The audit log, append-only."""

    async def insert(self, event: AuditEvent) -> None:
        """Adds an event."""

    async def list(self, wanted: AuditFilter, after: Position | None, limit: int) -> Sequence[AuditEvent]:
        """Events, newest first."""
        ...


class PaymentErrand(NamedTuple):
    """Something to be done at the payment provider."""

    account_id: str
    invoice_id: str
    kind: PaymentErrandKind
    credit_note_id: str
    """Empty but for a credit note's."""
    attempts: int


class Payments(Protocol):
    """The outbox to the payment provider, and what things are called there."""

    async def add(self, errand: PaymentErrand, now_us: int) -> None:
        """Adds an errand, to be done at once. Each is there once for good."""

    async def due(self, now_us: int, limit: int) -> Sequence[PaymentErrand]:
        """Errands to be done by now, in the order in which they were added; of each invoice the first one only."""
        ...

    async def finish(self, errand: PaymentErrand, now_us: int) -> None:
        """The errand is done."""

    async def postpone(self, errand: PaymentErrand, next_attempt_us: int) -> None:
        """The errand was in vain, and is to be tried again then."""

    async def provider_id(self, resource_id: str) -> str:
        """What an account or an invoice is called at the provider; empty where it is not there yet."""
        ...

    async def put_provider_id(self, resource_id: str, provider_id: str) -> None:
        """Remembers what an account or an invoice is called at the provider."""

    async def put_payment_url(self, invoice_id: str, payment_url: str) -> None:
        """Remembers where an invoice can be paid."""


class DueAccounts(Protocol):
    """When something is next due in each account: a renewal, a change, the end of a grace or of a suspension."""

    async def due(self, now_us: int, limit: int) -> Sequence[str]:
        """Accounts in which something is due by now, the longest due first."""
        ...

    async def next_us(self) -> int | None:
        """When something is next due in any account; None for never."""
        ...

    async def put(self, account_id: str, due_us: int) -> None:
        """Sets when something is next due in an account."""


class Transaction(Protocol):
    """One transaction: everything in it is written, or nothing."""

    @property
    def accounts(self) -> Accounts:
        """Accounts."""
        ...

    @property
    def api_keys(self) -> ApiKeys:
        """API keys."""
        ...

    @property
    def subscriptions(self) -> Subscriptions:
        """Subscriptions and their history."""
        ...

    @property
    def entitlements(self) -> Entitlements:
        """The outbox of entitlements."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        ...

    @property
    def invoices(self) -> Invoices:
        """Invoices and credit notes."""
        ...

    @property
    def audit(self) -> Audit:
        """The audit log."""
        ...

    @property
    def due_accounts(self) -> DueAccounts:
        """When something is next due in each account."""
        ...

    @property
    def payments(self) -> Payments:
        """What is on its way to the payment provider."""
        ...

    @property
    def partitions(self) -> Partitions:
        """How far quota's events have been read, and by whom."""
        ...

    @property
    def requests(self) -> Requests:
        """Requests with a request_id."""
        ...


class Store(Protocol):
    """Billing's store."""

    @property
    def shared(self) -> bool:
        """Whether other replicas work on it too."""
        ...

    async def transact(self, work: Callable[[Transaction], Awaitable[ResultT]], *, snapshot: bool = False) -> ResultT:
        """Runs `work` in a transaction, which commits when it returns and is undone where it raises.

        Once begun it runs to its end, also when its caller is cancelled: nobody has to wonder what half of it did.

        Args:
            work: reads, decides and writes.
            snapshot: everything that `work` reads is of one moment; it writes nothing.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE where the database cannot be reached or does not answer.
        """
        ...
