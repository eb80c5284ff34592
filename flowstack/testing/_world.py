"""Everything that the fake knows: accounts, keys, and the lock that makes each step one step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, cast

from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import budget_pb2
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._documents import Documents
from flowstack.testing._endings import Cause
from flowstack.testing._errors import FakeError
from flowstack.testing._ids import new_id, new_secret, new_session_id
from flowstack.testing._plans import Plan, micro_of, money, plan_for_sale
from flowstack.testing._quota import Grant, Session, SessionBook
from flowstack.testing._replies import Reply
from flowstack.testing._subscriptions import Subscription
from flowstack.testing._time import Clock, optional_timestamp, timestamp

ResponseT = TypeVar("ResponseT")

THRESHOLDS: Final = (75, 90, 95)


class Stoppable(Protocol):
    """A session that runs."""

    def stop(self, cause: Cause) -> None:
        """Breaks it off."""


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
            rotated_from_api_key_id=self.rotated_from,
            rotated_to_api_key_id=self.rotated_to,
        )


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
    suspend_reason: str = ""
    keys: list[ApiKey] = field(default_factory=list)
    documents: Documents = field(default_factory=Documents)
    webhooks: list[alerts.Webhook] = field(default_factory=list)
    alerts: list[alerts.Alert] = field(default_factory=list)
    fired: set[tuple[object, ...]] = field(default_factory=set)
    settings_version: int = 1

    def grant(self, now_us: int) -> Grant:
        """What the account may do now."""
        subscription = self.subscription
        subscription.settle(now_us)
        refusal = None
        if subscription.has_ended(now_us):
            refusal = FakeError(
                "SUBSCRIPTION_ENDED", "The account's subscription has ended. Choose a plan to start new sessions."
            )
        elif self.suspend_reason:
            refusal = FakeError("ACCOUNT_SUSPENDED", f"The account is suspended: {self.suspend_reason}")
        else:
            budget = self.budget_status(now_us)
            if budget is not None and budget.blocking:
                refusal = FakeError(
                    "BUDGET_EXCEEDED", "The account's budget for the period is used up. Raise it to start new sessions."
                )
        return Grant(subscription.plan, subscription.period(now_us), refusal)

    def charges_micro(self, now_us: int) -> int:
        """What the present period has been charged, in micro-dollars."""
        return self.subscription.charges.get(self.subscription.period(now_us).start_us, 0)

    def budget_status(self, now_us: int) -> budget_pb2.BudgetStatus | None:
        """How the period stands against the budget; None where there is none."""
        if not self.settings.HasField("budget"):
            return None
        budget, period = self.settings.budget, self.subscription.period(now_us)
        spent = self.charges_micro(now_us)
        left = micro_of(budget.max_monthly_cost) - spent
        return budget_pb2.BudgetStatus(
            budget=budget,
            spent=money(spent),
            remaining=money(max(0, left)),
            exceeded=left < 0,
            blocking=left < 0 and budget.action == budget_pb2.BUDGET_ACTION_BLOCK,
            unpriced_sessions=self.book.counts(period).byok,
        )


class World:
    """The state of one fake. `lock` is held for every look at it and every change of it; `changed` tells of changes."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.clock = Clock()
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, ApiKey] = {}
        self.replies: deque[Reply] = deque()
        self.outages: deque[bool] = deque()
        """Of the next completions: whether the router fails after the session has begun, rather than before."""
        self.requests: list[router.CompleteRequest] = []
        self.answers: dict[tuple[str, str, str], tuple[bytes, object]] = {}
        self.admin_token = f"admin-{new_secret()}"
        self.conversations: set[Stoppable] = set()
        self.stopping = False

    def open_account(self, plan: Plan, display_name: str, email: str) -> Account:
        """Opens an account on a plan."""
        now_us = self.clock.now_us()
        account_id = new_id("acct_")
        account = Account(
            account_id,
            display_name,
            email,
            now_us,
            Subscription(account_id, plan, now_us, new_id("sub_")),
            SessionBook(account_id),
            alerts.AlertSettings(
                account_id=account_id, thresholds=THRESHOLDS, update_time=timestamp(now_us), etag="v1"
            ),
        )
        account.subscription.settle(now_us)
        self.accounts[account_id] = account
        return account

    def new_account(self, plan_id: str) -> tuple[Account, str]:
        """Opens an account and a key to it.

        Raises:
            FakeError: PLAN_NOT_FOUND, CONTRACT_REQUIRED.
        """
        with self.lock:
            account = self.open_account(plan_for_sale(plan_id), "A test's account", "test@example.com")
            return account, self.add_key(account, "test").secret

    def add_key(self, account: Account, display_name: str, expire_us: int = 0) -> ApiKey:
        """Gives an account another key."""
        now_us = self.clock.now_us()
        key = ApiKey(new_id("key_"), account.account_id, display_name, new_secret(), now_us, expire_us)
        account.keys.append(key)
        self.keys[key.secret] = key
        return key

    def account(self, account_id: str) -> Account:
        """An account, brought up to date.

        Raises:
            FakeError: ACCOUNT_NOT_FOUND.
        """
        account = self.accounts.get(account_id)
        if account is None:
            raise FakeError("ACCOUNT_NOT_FOUND", "There is no account with that account_id. Check it.")
        account.subscription.settle(self.clock.now_us())
        return account

    def new_session(
        self, account: Account, api_key_id: str, request: router.CompleteRequest, candidates: list[types.Candidate]
    ) -> tuple[Session, types.Quota]:
        """Reserves a session.

        Raises:
            FakeError: what refuses it; see `SessionBook.reserve`.
        """
        with self.lock:
            now_us = self.clock.now_us()
            grant = account.grant(now_us)
            session = Session(
                new_session_id(now_us),
                account.account_id,
                candidates,
                grant.period.start_us,
                now_us,
                request.request_id,
                api_key_id,
                dict(request.labels),
            )
            account.book.reserve(session, grant, now_us)
            self.changed.notify_all()
            return session, account.book.quota(grant)

    def once(self, scope: str, request: Any, work: Callable[[], ResponseT]) -> ResponseT:
        """Does `work` under the lock, or answers what it was answered with before under the same request_id.

        Raises:
            FakeError: DUPLICATE_REQUEST: the request_id came before with other content.
        """
        with self.lock:
            if not request.request_id:
                return work()
            place = (request.DESCRIPTOR.full_name, scope, request.request_id)
            content = request.SerializeToString(deterministic=True)
            if place in self.answers:
                earlier, answered = self.answers[place]
                if earlier != content:
                    raise FakeError(
                        "DUPLICATE_REQUEST",
                        "The request_id came before with other content. Send a new request_id for a new request.",
                    )
                return cast("ResponseT", answered)
            answer = work()
            self.answers[place] = (content, answer)
            return answer

    def notify(self) -> None:
        """Tells those that watch that something has changed."""
        with self.lock:
            self.changed.notify_all()
