"""Everything that the fake knows: accounts, keys, and the lock that makes each step one step."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import audit_service_pb2 as audit
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing._audit import NOTHING, Action, AuditLog
from flowstack.testing._endings import Cause
from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._facts import facts_of_account, facts_of_subscription
from flowstack.testing._ids import new_id, new_secret, new_session_id
from flowstack.testing._plans import Plan, plan_for_sale
from flowstack.testing._prices import Prices
from flowstack.testing._quota import Session, SessionBook
from flowstack.testing._records import THRESHOLDS, Account, ApiKey
from flowstack.testing._renewal import begin
from flowstack.testing._replies import Reply
from flowstack.testing._settling import apply, settle
from flowstack.testing._subscriptions import Change, Subscription
from flowstack.testing._terms import terms_of
from flowstack.testing._time import Clock

ResponseT = TypeVar("ResponseT")

KEYS_MAX = 100
"""Active ones of an account."""

_SET_UP = Action("FakeFlowStack.new_account", audit.ACTOR_KIND_SYSTEM)


class Stoppable(Protocol):
    """A session that runs."""

    def stop(self, cause: Cause) -> None:
        """Breaks it off."""


class World:
    """The state of one fake. `lock` is held for every look at it and every change of it; `changed` tells of changes."""

    def __init__(self, prices: Prices, *, invoices_are_paid: bool = True) -> None:
        self.prices = prices
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.clock = Clock()
        self.log = AuditLog()
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, ApiKey] = {}
        self.replies: deque[Reply] = deque()
        self.outages: deque[bool] = deque()
        """Of the next completions: whether the router fails after the session has begun, rather than before."""
        self.requests: list[router.CompleteRequest] = []
        self.answers: dict[tuple[str, str, str], tuple[bytes, object]] = {}
        self._invoices_are_paid = invoices_are_paid
        self.admin_token = f"admin-{new_secret()}"
        self.conversations: set[Stoppable] = set()
        self.streams: Counter[str] = Counter()
        """How many of usage and alerts are open, by account."""
        self.stopping = False

    def open_account(self, plan: Plan, display_name: str, email: str, action: Action = _SET_UP) -> Account:
        """Opens an account on a plan; its first fee is invoiced."""
        now_us = self.clock.now_us()
        account_id = new_id("acct_")
        terms = terms_of(plan)
        subscription = Subscription(new_id("sub_"), account_id, terms, now_us, now_us)
        settings = alerts.AlertSettings(account_id=account_id, thresholds=THRESHOLDS, etag="al0")
        account = Account(
            account_id,
            display_name,
            email,
            now_us,
            subscription,
            SessionBook(account_id),
            settings,
            self.log,
            self._invoices_are_paid,
            now_us,
        )
        start = Change(
            new_id("chg_"),
            subscription.subscription_id,
            subscriptions.CHANGE_KIND_START,
            subscriptions.CHANGE_STATE_APPLIED,
            None,
            terms,
            now_us,
            now_us,
            request_id=action.request_id,
        )
        self.log.note(action, account_id, "account", account_id, NOTHING, facts_of_account(account), now_us)
        facts = facts_of_subscription(subscription)
        self.log.note(action, account_id, "subscription", subscription.subscription_id, NOTHING, facts, now_us)
        apply(account, begin(subscription, start.change_id), action, now_us, start)
        self.accounts[account_id] = account
        return account

    def new_account(self, plan_id: str) -> tuple[Account, str]:
        """Opens an account and a key to it.

        Raises:
            FakeError: PLAN_NOT_FOUND, CONTRACT_REQUIRED.
        """
        with self.lock:
            account = self.open_account(plan_for_sale(plan_id), "A test's account", "test@example.com")
            key = self.add_key(account, "test")
            account.note_key(key, NOTHING, _SET_UP, self.clock.now_us())
            return account, key.secret

    def add_key(self, account: Account, display_name: str, expire_us: int = 0) -> ApiKey:
        """Gives an account another key. It is for the caller to audit that.

        Raises:
            FakeError: INVALID_REQUEST: it would have expired already.
        """
        now_us = self.clock.now_us()
        if expire_us and expire_us <= now_us:
            raise invalid_field("expire_time", "must be in the future")
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
        settle(account, self.clock.now_us())
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
            settle(account, now_us)
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
            content = _content_of(request)
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


def _content_of(request: Any) -> bytes:
    """Everything that is asked for, by which repeats are told."""
    asked = type(request)()
    asked.CopyFrom(request)
    for name in ("account_id", "etag"):
        if name in asked.DESCRIPTOR.fields_by_name:
            asked.ClearField(name)
    return bytes(asked.SerializeToString(deterministic=True))
