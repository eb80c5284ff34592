"""The port to billing's store. A use case runs in a transaction: it reads, decides and writes; it all holds or none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from services.billing.alert_store import Alerts, Webhooks
from services.billing.domain.entitlements import Entitlement, EntitlementStatus
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
from services.billing.domain.renewal import Placement
from services.billing.invoice_store import Audit, DueAccounts, Invoices, Payments
from services.billing.ledger_store import Ledger, Partitions
from services.billing.usage_store import Rollups

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
        """How many keys of an account are neither revoked, expired nor rotated."""
        ...

    async def set_rotated(self, key: ApiKey) -> None:
        """Writes which key replaces one of an account that this transaction has locked, and until when it is valid."""

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

    async def at(self, account_id: str, moment_us: int) -> Subscription:
        """The subscription that an account had at a time, or had last; before the first one that."""
        ...

    async def find_change(self, change_id: str) -> SubscriptionChange | None:
        """One change."""
        ...

    async def mark_changes(self, change_ids: Sequence[str], state: ChangeState, drop_us: int) -> None:
        """Says that changes came into force, or at `drop_us` that they never will."""

    async def place_change(self, placement: Placement) -> None:
        """Says what a scheduled change turns out to be."""

    async def set_change_subscription(self, change_id: str, subscription_id: str) -> None:
        """Says which new subscription a change began, or is to come in."""

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

    async def forget_customer(self, account_id: str) -> None:
        """Blanks the customer's name and address in all that requests about an account were answered with."""


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
    def rollups(self) -> Rollups:
        """Sums of the ledger."""
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

    @property
    def alerts(self) -> Alerts:
        """Alerts, their settings, and the sums that they are decided by."""
        ...

    @property
    def webhooks(self) -> Webhooks:
        """Webhooks and the deliveries to them."""
        ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Has something called once the transaction holds; never where it is undone."""


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
