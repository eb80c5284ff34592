"""What the fake keeps of an account, and what the account may do now."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import budget_pb2, invoice_pb2

from flowstack.testing._audit import Action, AuditLog, Facts
from flowstack.testing._documents import Documents
from flowstack.testing._errors import FakeError
from flowstack.testing._facts import facts_of_key
from flowstack.testing._invoices import PAYMENT_GRACE_US, charged_micro, oldest_due_us
from flowstack.testing._plans import micro_of, money
from flowstack.testing._quota import Grant, SessionBook
from flowstack.testing._subscriptions import Change, Subscription
from flowstack.testing._time import optional_timestamp, timestamp

THRESHOLDS: Final = (75, 90, 95)


@dataclass(slots=True)
class ApiKey:
    """One key of an account."""

    api_key_id: str
    account_id: str
    display_name: str
    secret: str
    create_us: int
    expire_us: int = 0
    revoke_us: int = 0
    rotated_from: str = ""
    rotated_to: str = ""
    last_use_us: int = 0

    def state_at(self, now_us: int) -> accounts.ApiKeyState.ValueType:
        """Where the key stands."""
        if self.revoke_us:
            return accounts.API_KEY_STATE_REVOKED
        if self.expire_us and now_us >= self.expire_us:
            return accounts.API_KEY_STATE_EXPIRED
        return accounts.API_KEY_STATE_ROTATING if self.rotated_to else accounts.API_KEY_STATE_ACTIVE

    def to_proto(self, now_us: int) -> accounts.ApiKey:
        """The key on the wire, without its secret."""
        return accounts.ApiKey(
            api_key_id=self.api_key_id,
            account_id=self.account_id,
            display_name=self.display_name,
            state=self.state_at(now_us),
            create_time=timestamp(self.create_us),
            expire_time=optional_timestamp(self.expire_us),
            revoke_time=optional_timestamp(self.revoke_us),
            last_use_time=optional_timestamp(self.last_use_us),
            rotated_from_api_key_id=self.rotated_from,
            rotated_to_api_key_id=self.rotated_to,
        )


@dataclass(slots=True)
class Stating:
    """How far a subscription's closing statements have come."""

    subscription: Subscription
    """As it stood when it was last looked at, or for good where another one has replaced it."""
    stated_us: int
    """Start of the first period that is not stated yet."""


@dataclass(slots=True)
class Account:
    """One account and what belongs to it."""

    account_id: str
    display_name: str
    email: str
    create_us: int
    subscription: Subscription
    book: SessionBook
    settings: alerts.AlertSettings
    log: AuditLog
    pays: bool
    """Whether it pays its invoices when they are due."""
    update_us: int = 0
    version: int = 1
    suspend_reason: str = ""
    suspend_us: int = 0
    suspend_until_us: int = 0
    delete_us: int = 0
    purge_us: int = 0
    changes: list[Change] = field(default_factory=list)
    """Oldest first, of all subscriptions."""
    stating: list[Stating] = field(default_factory=list)
    invoices: list[invoice_pb2.Invoice] = field(default_factory=list)
    credit_notes: int = 0
    was_overdue: bool = False
    keys: list[ApiKey] = field(default_factory=list)
    documents: Documents = field(default_factory=Documents)
    webhooks: list[alerts.Webhook] = field(default_factory=list)
    alerts: list[alerts.Alert] = field(default_factory=list)
    fired: set[tuple[object, ...]] = field(default_factory=set)
    settings_version: int = 0
    alert_calls: dict[str, deque[int]] = field(default_factory=dict)
    """When SendAlert and RedeliverAlert were last called, by method."""

    @property
    def etag(self) -> str:
        """Changes with the account."""
        return f"a{self.version}"

    @property
    def state(self) -> accounts.AccountState.ValueType:
        """Where the account stands."""
        if self.delete_us:
            return accounts.ACCOUNT_STATE_DELETED
        return accounts.ACCOUNT_STATE_SUSPENDED if self.suspend_reason else accounts.ACCOUNT_STATE_ACTIVE

    def to_proto(self) -> accounts.Account:
        """The account on the wire."""
        return accounts.Account(
            account_id=self.account_id,
            display_name=self.display_name,
            email=self.email,
            plan_id=self.subscription.terms.plan_id,
            state=self.state,
            suspend_reason=self.suspend_reason,
            suspend_time=optional_timestamp(self.suspend_us),
            suspend_until_time=optional_timestamp(self.suspend_until_us),
            create_time=timestamp(self.create_us),
            update_time=timestamp(self.update_us),
            delete_time=optional_timestamp(self.delete_us),
            purge_time=optional_timestamp(self.purge_us),
            etag=self.etag,
        )

    def refuse_deleted(self) -> None:
        """Refuses to change a deleted account.

        Raises:
            FakeError: ACCOUNT_DELETED.
        """
        if self.delete_us:
            raise FakeError(
                "ACCOUNT_DELETED", "The account is deleted and cannot be changed any more. Create another account."
            )

    def note_key(self, key: ApiKey, before: Facts, action: Action, now_us: int) -> None:
        """Audits that one of the account's keys is another than before."""
        self.log.note(action, self.account_id, "api_key", key.api_key_id, before, facts_of_key(key), now_us)

    def grace_end_us(self) -> int:
        """When the grace of the invoice that is due first ends; 0 where none is open."""
        due_us = oldest_due_us(self.invoices)
        return due_us + PAYMENT_GRACE_US if due_us else 0

    def is_overdue(self, now_us: int) -> bool:
        """Whether an invoice is unpaid past its grace."""
        return 0 < self.grace_end_us() <= now_us

    def grant(self, now_us: int) -> Grant:
        """What the account may do now. It was brought up to date."""
        return Grant(self.subscription.terms, self.subscription.period(now_us), self._refusal(now_us))

    def _refusal(self, now_us: int) -> FakeError | None:
        if self.subscription.has_ended(now_us):
            return FakeError(
                "SUBSCRIPTION_ENDED", "The account's subscription has ended. Choose a plan to start new sessions."
            )
        if self.suspend_reason:
            return FakeError("ACCOUNT_SUSPENDED", f"The account is suspended: {self.suspend_reason}")
        if self.is_overdue(now_us):
            return FakeError(
                "PAYMENT_OVERDUE",
                "An invoice is unpaid past its grace. ListInvoices shows it; sessions start again once it is paid.",
            )
        budget = self.budget_status(now_us)
        if budget is not None and budget.blocking:
            return FakeError(
                "BUDGET_EXCEEDED", "The account's budget for the period is used up. Raise it to start new sessions."
            )
        return None

    def charges_micro(self, now_us: int) -> int:
        """What the present period has been charged, in micro-dollars."""
        return charged_micro(self.invoices, self.subscription.period(now_us).start_us)

    def budget_status(self, now_us: int) -> budget_pb2.BudgetStatus | None:
        """How the period stands against the budget; None where there is none."""
        if not self.settings.HasField("budget"):
            return None
        budget, period = self.settings.budget, self.subscription.period(now_us)
        counts = self.book.counts(period)
        spent = self.charges_micro(now_us) + counts.cost_micro
        left = micro_of(budget.max_monthly_cost) - spent
        return budget_pb2.BudgetStatus(
            budget=budget,
            spent=money(spent),
            remaining=money(max(0, left)),
            exceeded=left < 0,
            blocking=left < 0 and budget.action == budget_pb2.BUDGET_ACTION_BLOCK,
            unpriced_sessions=counts.unpriced,
        )
