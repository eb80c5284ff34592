"""The part of the store's port that holds alerts, their settings, webhooks and deliveries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.billing.domain.alerts import Alert, AlertKind, AlertSettings, PeriodSums
from services.billing.domain.model import AccountState, Subscription
from services.billing.domain.paging import Position
from services.billing.domain.webhooks import AttemptResult, Delivery, DeliveryState, Webhook


class AccountPeriod(NamedTuple):
    """A period of an account, by its start."""

    account_id: str
    period_start_us: int


class Watched(NamedTuple):
    """An account as far as its alerts are decided by it."""

    state: AccountState
    subscription: Subscription
    settings: AlertSettings


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts of an account are listed. What is empty or 0 lets everything through."""

    kinds: tuple[AlertKind, ...] = ()
    start_us: int = 0
    end_us: int = 0
    delivery_states: tuple[DeliveryState, ...] = ()
    webhook_id: str = ""


class Alerts(Protocol):
    """Alerts, their settings, and the sums that they are decided by."""

    async def settings(self, account_id: str) -> AlertSettings:
        """An account's settings; the defaults where it has set none."""
        ...

    async def put_settings(self, settings: AlertSettings) -> None:
        """Writes the settings of an account that this transaction has locked."""

    async def watched(self, account_ids: Collection[str]) -> Mapping[str, Watched]:
        """Accounts with their subscriptions and settings, by id."""
        ...

    async def sums(self, periods: Collection[AccountPeriod]) -> Mapping[AccountPeriod, PeriodSums]:
        """What the sessions of periods come to, as the ledger's rollups have it; a period without any is left out."""
        ...

    async def charged(self, periods: Collection[AccountPeriod]) -> Mapping[AccountPeriod, int]:
        """What periods have been invoiced so far, credits taken off, in micro-dollars; left out where nothing."""
        ...

    async def fired(self, account_ids: Collection[str], once_keys: Collection[str]) -> Collection[tuple[str, str]]:
        """Which alerts are there already: (account, key)."""
        ...

    async def fire_us(self, account_id: str, once_key: str) -> int:
        """When an alert fired; 0 where it did not."""
        ...

    async def last_sequences(self, account_ids: Collection[str]) -> Mapping[str, int]:
        """The place of each account's newest alert; left out where it has none."""
        ...

    async def insert(self, alert: Alert) -> bool:
        """Adds an alert; False where one with its key is there."""
        ...

    async def find(self, account_id: str, alert_id: str) -> Alert | None:
        """One alert of an account."""
        ...

    async def list(self, account_id: str, wanted: AlertFilter, after: Position | None, limit: int) -> Sequence[Alert]:
        """Alerts of an account, newest first."""
        ...

    async def since(self, account_id: str, sequence: int, limit: int) -> Sequence[Alert]:
        """Alerts of an account after a place, oldest first."""
        ...

    async def calls(self, account_id: str, method: str) -> Sequence[int]:
        """When a method was called of late, as it was put."""
        ...

    async def put_calls(self, account_id: str, method: str, times_us: Sequence[int]) -> None:
        """Remembers when a method was called of late, of an account that this transaction has locked."""


class Receiver(NamedTuple):
    """Where deliveries go."""

    account_id: str
    webhook_id: str


class AtOnce(NamedTuple):
    """How many deliveries may be in hand at the same time."""

    of_account: int
    of_webhook: int


class Webhooks(Protocol):
    """Webhooks and the deliveries to them."""

    async def insert(self, webhook: Webhook) -> None:
        """Adds a webhook."""

    async def find(self, account_id: str, webhook_id: str) -> Webhook | None:
        """One webhook of an account."""
        ...

    async def existing(self, account_id: str, webhook_ids: Collection[str]) -> Collection[str]:
        """Which of these the account has."""
        ...

    async def count(self, account_id: str) -> int:
        """How many an account has."""
        ...

    async def list(self, account_id: str, after: Position | None, limit: int) -> Sequence[Webhook]:
        """Webhooks of an account, newest first."""
        ...

    async def set_secrets(self, webhook: Webhook) -> None:
        """Writes a webhook's secrets and when they were replaced."""

    async def delete(self, account_id: str, webhook_ids: Collection[str]) -> None:
        """Deletes webhooks, and ends the deliveries that wait for them."""

    async def add_deliveries(self, alert: Alert, webhook_ids: Collection[str]) -> None:
        """Has an alert delivered, at once."""

    async def deliveries(self, account_id: str, alert_ids: Collection[str]) -> Sequence[Delivery]:
        """The deliveries of alerts of an account."""
        ...

    async def redeliver(self, alert: Alert, webhook_ids: Collection[str], now_us: int) -> None:
        """Makes deliveries due now: those that wait as they are, ended ones anew, missing ones for the first time."""

    async def claim(
        self, now_us: int, lease_us: int, limit: int, busy: Mapping[Receiver, int], at_once: AtOnce
    ) -> Sequence[Delivery]:
        """Takes deliveries that are due in hand, the longest due first, so that nobody else does until the lease ends.

        Args:
            now_us: the present.
            lease_us: how long they are in hand.
            limit: at most this many.
            busy: how many for each receiver are in hand here already.
            at_once: how many may be at a time.
        """
        ...

    async def next_due_us(self, now_us: int) -> int | None:
        """When a delivery that is not due yet will be; None for never."""
        ...

    async def finish(
        self, delivery: Delivery, result: AttemptResult, state: DeliveryState, next_us: int, now_us: int
    ) -> bool:
        """Writes what became of an attempt; False where the delivery is in other hands by now."""
        ...

    async def let_go(self, delivery: Delivery, next_us: int) -> None:
        """Gives a delivery back without an attempt, to be made then."""
