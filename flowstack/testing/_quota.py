"""The fake's accounts and sessions: the rules of reserving, committing and releasing, in memory.

One event loop calls this, and nothing in it waits: what is decided is decided at once, so limits are exact.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
from flowstack_protos.type.v1 import type_pb2 as t

from flowstack.testing._refusal import Refusal

DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of the catalogue. Price in dollars a month."""

    plan_id: str
    price: int
    session_limit: int
    managed: tuple[str, ...]
    concurrent: int
    upgrade: str


PLANS: Final = {
    plan.plan_id: plan
    for plan in (
        Plan("free", 0, 25, (), 25, "hobbyist"),
        Plan("hobbyist", 15, 200, ("bedrock",), 50, "starter"),
        Plan("starter", 50, 1000, ("bedrock",), 100, "professional"),
        Plan("professional", 200, 5000, ("bedrock",), 500, "enterprise"),
    )
}


@dataclass(slots=True)
class Session:
    """A session. Its period is the one that it was reserved in."""

    session_id: str
    request_id: str
    managed: bool
    period: datetime
    state: t.SessionState.ValueType = t.SESSION_STATE_RESERVED


@dataclass
class Account:
    """An account and its sessions."""

    account_id: str
    plan: Plan
    start: datetime
    charged: float = 0.0
    pending: Plan | None = None
    ended: bool = False
    cancelling: bool = False
    blocked: bool = False
    sessions: list[Session] = field(default_factory=list)
    requests: dict[str, Session] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: list[Any] = field(default_factory=list)
    webhooks: list[Any] = field(default_factory=list)
    settings: Any = None
    noted: dict[str, Any] = field(default_factory=dict)
    """Answers by request_id, of what is idempotent by it."""

    @property
    def end(self) -> datetime:
        """The period's end, exclusive."""
        return month_after(self.start)

    def count(self, state: t.SessionState.ValueType, *, managed: bool | None = None) -> int:
        """Sessions of this period in a state."""
        return sum(
            one.period == self.start and one.state == state and managed in (None, one.managed) for one in self.sessions
        )

    def used(self) -> int:
        """Counted sessions of this period."""
        return self.count(t.SESSION_STATE_COMMITTED)

    def refusal(self) -> Refusal | None:
        """Why a session would be refused now."""
        used, running = self.used(), self.count(t.SESSION_STATE_RESERVED)
        in_all = sum(one.state == t.SESSION_STATE_RESERVED for one in self.sessions)
        if self.ended:
            return Refusal(
                grpc.StatusCode.FAILED_PRECONDITION, "SUBSCRIPTION_ENDED", "The subscription has ended. Choose a plan."
            )
        if self.blocked:
            return Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED", "The budget is used up. Raise it, or wait."
            )
        if used + running >= self.plan.session_limit:
            return Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "SESSION_QUOTA_EXCEEDED",
                f"All {self.plan.session_limit} sessions of the period are used. Upgrade, or wait for the reset.",
                {
                    "current_usage": str(used + running),
                    "limit": str(self.plan.session_limit),
                    "plan": self.plan.plan_id,
                    "reset_time": self.end.isoformat(),
                    "upgrade_plan": self.plan.upgrade,
                },
            )
        if in_all >= self.plan.concurrent:
            return Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "CONCURRENCY_LIMIT_EXCEEDED",
                f"{self.plan.concurrent} sessions run at once already. Try again when one has ended.",
            )
        return None

    def reserve(self, request_id: str, candidates: list[tuple[str, bool]]) -> Session:
        """Reserves a session for candidates of (provider, managed).

        Raises:
            Refusal: the first of DUPLICATE_REQUEST, SUBSCRIPTION_ENDED, a block, BYOK_REQUIRED and the limits.
        """
        holder = self.requests.get(request_id) if request_id else None
        if holder and holder.state in (t.SESSION_STATE_RESERVED, t.SESSION_STATE_COMMITTED):
            raise Refusal(
                grpc.StatusCode.ALREADY_EXISTS,
                "DUPLICATE_REQUEST",
                "The request_id belongs to an earlier request that is running or was counted. It costs nothing more.",
                {"session_id": holder.session_id, "session_state": state_word(holder.state)},
            )
        refusal = self.refusal()
        if refusal and refusal.reason in ("SUBSCRIPTION_ENDED", "BUDGET_EXCEEDED"):
            raise refusal
        for provider, managed in candidates:
            if managed and provider not in self.plan.managed:
                raise Refusal(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "BYOK_REQUIRED",
                    f"The plan does not include {provider}. Bring your own key with byok.",
                )
        if refusal:
            raise refusal
        session = Session(f"ses_{uuid.uuid4().hex}", request_id, candidates[0][1], self.start)
        self.sessions.append(session)
        if request_id:
            self.requests[request_id] = session
        return session

    def quota(self) -> t.Quota:
        """The account's quota now."""
        used, running = self.used(), self.count(t.SESSION_STATE_RESERVED)
        refusal = self.refusal()
        quota = t.Quota(
            account_id=self.account_id,
            plan_id=self.plan.plan_id,
            session_limit=self.plan.session_limit,
            sessions_committed=used,
            managed_sessions=self.count(t.SESSION_STATE_COMMITTED, managed=True),
            byok_sessions=self.count(t.SESSION_STATE_COMMITTED, managed=False),
            sessions_reserved=running,
            sessions_remaining=max(0, self.plan.session_limit - used - running),
            managed_providers=self.plan.managed,
            max_concurrent_sessions=self.plan.concurrent,
            sessions_available=refusal is None,
            refusal_reason=refusal.reason if refusal else "",
        )
        quota.period_start_time.FromDatetime(self.start)
        quota.period_end_time.FromDatetime(self.end)
        return quota

    def change_plan(self, plan: Plan) -> bool:
        """Upgrades at once, or waits for the next period; True where it applied at once."""
        self.pending, self.cancelling = None, False
        if plan.price < self.plan.price:
            self.pending = plan
            return False
        self.charged += plan.price - self.plan.price
        self.plan = plan
        return True

    def next_period(self) -> None:
        """Begins the next period: counts start at zero, and what was pending applies."""
        self.start = self.end
        if self.cancelling:
            self.ended = True
            return
        self.plan, self.pending = self.pending or self.plan, None
        self.charged = float(self.plan.price)


def open_account(plan_id: str) -> Account:
    """A new account.

    Raises:
        ValueError: no plan of that name.
    """
    if plan_id not in PLANS:
        raise ValueError(f"there is no plan {plan_id!r}; plans are {', '.join(PLANS)}")
    plan = PLANS[plan_id]
    return Account(f"acct_{uuid.uuid4().hex}", plan, datetime.now(UTC), float(plan.price))


def state_word(state: t.SessionState.ValueType) -> str:
    """A state as ErrorInfo has it."""
    return t.SessionState.Name(state).removeprefix("SESSION_STATE_")


def month_after(moment: datetime) -> datetime:
    """A month later, clamped to the month's last day."""
    year, month = divmod(moment.year * 12 + moment.month, 12)
    for day in (moment.day, 30, 29, 28):
        try:
            return moment.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")
