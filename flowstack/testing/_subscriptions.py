"""A subscription: what plan holds, what is pending, and what time does to both. Pure: the time comes in.

upgrade      at once; the price difference is charged in full, the anchor stays
free → paid  at once, a new subscription with its own anchor and fee
downgrade    with the next period; can be reverted until then
cancel       at the period's end; can be reverted until then
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._errors import FakeError
from flowstack.testing._ids import new_id
from flowstack.testing._plans import Plan, money
from flowstack.testing._time import Period, optional_timestamp, period_at, timestamp

FREE: Final = "free"


@dataclass(slots=True)
class Change:
    """A change, asked for or applied."""

    change_id: str
    subscription_id: str
    kind: pb.ChangeKind.ValueType
    state: pb.ChangeState.ValueType
    before: Plan
    after: Plan | None
    """None where the subscription ends."""
    request_us: int
    effective_us: int
    amount_micro: int = 0
    drop_us: int = 0
    request_id: str = ""

    def to_proto(self) -> pb.SubscriptionChange:
        """The change on the wire."""
        return pb.SubscriptionChange(
            change_id=self.change_id,
            subscription_id=self.subscription_id,
            kind=self.kind,
            state=self.state,
            from_terms=terms_to_proto(self.before),
            to_terms=None if self.after is None else terms_to_proto(self.after),
            request_time=timestamp(self.request_us),
            effective_time=timestamp(self.effective_us),
            drop_time=optional_timestamp(self.drop_us),
            amount=money(self.amount_micro),
            request_id=self.request_id,
        )


@dataclass(slots=True)
class Subscription:
    """An account's subscription, and the changes of all that it has had."""

    account_id: str
    plan: Plan
    anchor_us: int
    subscription_id: str
    billed_us: int = 0
    """The end of what has been charged."""
    end_us: int = 0
    pending: Change | None = None
    version: int = 1
    changes: tuple[Change, ...] = ()
    charges: dict[int, int] = field(default_factory=dict)
    """Micro-dollars by the start of the period."""

    @property
    def etag(self) -> str:
        """Changes with the subscription."""
        return f"s{self.version}"

    def settle(self, now_us: int) -> None:
        """Brings about what is due: pending changes, the end, the fees of periods that have begun."""
        if not self.billed_us:
            self.billed_us = self.anchor_us
        while True:
            pending = self.pending
            if pending is not None and pending.effective_us <= min(now_us, self.billed_us):
                pending.state = pb.CHANGE_STATE_APPLIED
                self.pending = None
                self.version += 1
                if pending.after is not None:
                    self.plan = pending.after
            if self.billed_us > now_us or (self.end_us and self.billed_us >= self.end_us):
                return
            period = period_at(self.anchor_us, self.billed_us)
            self._charge(period.start_us, self.plan.price)
            self.billed_us = period.end_us

    def has_ended(self, now_us: int) -> bool:
        """Whether it was cancelled and its last period is over."""
        return bool(self.end_us) and now_us >= self.end_us

    def period(self, now_us: int) -> Period:
        """The present period; the last one where it has ended."""
        return period_at(self.anchor_us, self.end_us - 1 if self.has_ended(now_us) else now_us)

    def change_plan(self, plan: Plan, now_us: int, request_id: str) -> Change:
        """Changes the plan, in the direction that the prices decide. Drops what is pending."""
        ended = self.has_ended(now_us)
        dropped = False if ended else self._drop_pending(now_us)
        if plan is self.plan and not ended:
            change = self._change(pb.CHANGE_KIND_NONE, plan, now_us, request_id)
            if dropped:
                self._note(change)
            else:
                change.change_id = ""
            return change
        if ended or (self.plan.plan_id == FREE and plan.price > 0):
            return self._start(plan, now_us, request_id)
        difference = plan.price - self.plan.price
        if difference < 0:
            change = self._change(pb.CHANGE_KIND_DOWNGRADE, plan, now_us, request_id)
            change.state, change.effective_us = pb.CHANGE_STATE_PENDING, self.billed_us
            self.pending = change
        else:
            kind = pb.CHANGE_KIND_UPGRADE if difference else pb.CHANGE_KIND_LATERAL
            change = self._change(kind, plan, now_us, request_id)
            change.amount_micro = difference
            self._charge(self.period(now_us).start_us, difference)
            self.plan = plan
        self._note(change)
        return change

    def cancel(self, now_us: int, request_id: str) -> Change:
        """Ends it with its period; a second cancellation is answered with the first.

        Raises:
            FakeError: SUBSCRIPTION_ENDED.
        """
        self._refuse_ended(now_us)
        if self.end_us and self.pending is not None:
            return self.pending
        self._drop_pending(now_us)
        change = self._change(pb.CHANGE_KIND_CANCELLATION, None, now_us, request_id)
        change.state, change.effective_us = pb.CHANGE_STATE_PENDING, self.billed_us
        self.pending, self.end_us = change, self.billed_us
        self._note(change)
        return change

    def revert(self, now_us: int, request_id: str) -> Change:
        """Drops the pending downgrade or cancellation.

        Raises:
            FakeError: SUBSCRIPTION_ENDED, NO_PENDING_CHANGE.
        """
        self._refuse_ended(now_us)
        if not self._drop_pending(now_us):
            raise FakeError(
                "NO_PENDING_CHANGE",
                "Neither a downgrade nor a cancellation is pending, so there is none to revert.",
            )
        change = self._change(pb.CHANGE_KIND_REVERT, self.plan, now_us, request_id)
        self._note(change)
        return change

    def copy(self) -> Subscription:
        """One that a preview may change."""
        pending = None if self.pending is None else replace(self.pending)
        return replace(self, pending=pending, charges=dict(self.charges))

    def _start(self, plan: Plan, now_us: int, request_id: str) -> Change:
        change = self._change(pb.CHANGE_KIND_START, plan, now_us, request_id)
        self.subscription_id = change.subscription_id = new_id("sub_")
        self.plan, self.anchor_us, self.billed_us, self.end_us, self.pending = plan, now_us, now_us, 0, None
        change.amount_micro = plan.price
        self._note(change)
        self.settle(now_us)
        return change

    def _change(self, kind: pb.ChangeKind.ValueType, after: Plan | None, now_us: int, request_id: str) -> Change:
        return Change(
            new_id("chg_"),
            self.subscription_id,
            kind,
            pb.CHANGE_STATE_APPLIED,
            self.plan,
            after,
            now_us,
            now_us,
            request_id=request_id,
        )

    def _note(self, change: Change) -> None:
        self.changes = (change, *self.changes)
        self.version += 1

    def _charge(self, period_start_us: int, amount_micro: int) -> None:
        self.charges[period_start_us] = self.charges.get(period_start_us, 0) + amount_micro

    def _drop_pending(self, now_us: int) -> bool:
        if self.pending is None:
            return False
        self.pending.state, self.pending.drop_us = pb.CHANGE_STATE_DROPPED, now_us
        self.pending, self.end_us = None, 0
        return True

    def _refuse_ended(self, now_us: int) -> None:
        if self.has_ended(now_us):
            raise FakeError(
                "SUBSCRIPTION_ENDED", "The subscription has ended. ChangePlan starts a new one, on any plan."
            )

    def to_proto(self, now_us: int) -> pb.Subscription:
        """The subscription on the wire."""
        state = pb.SUBSCRIPTION_STATE_CANCELLING if self.end_us else pb.SUBSCRIPTION_STATE_ACTIVE
        period = self.period(now_us)
        return pb.Subscription(
            subscription_id=self.subscription_id,
            account_id=self.account_id,
            state=pb.SUBSCRIPTION_STATE_ENDED if self.has_ended(now_us) else state,
            plan_id=self.plan.plan_id,
            plan_version=1,
            terms=terms_to_proto(self.plan),
            anchor_time=timestamp(self.anchor_us),
            period_start_time=timestamp(period.start_us),
            period_end_time=timestamp(period.end_us),
            start_time=timestamp(self.anchor_us),
            end_time=optional_timestamp(self.end_us),
            pending_change=None if self.pending is None else self.pending.to_proto(),
            entitlement_revision=self.version,
            entitlement_applied=True,
            etag=self.etag,
        )


def terms_to_proto(plan: Plan) -> pb.SubscriptionTerms:
    """A plan's terms on the wire."""
    return pb.SubscriptionTerms(
        plan_id=plan.plan_id,
        plan_version=1,
        price=money(plan.price),
        session_limit=plan.session_limit,
        managed_providers=plan.managed_providers,
        max_concurrent_sessions=plan.max_concurrent_sessions or 0,
        max_output_tokens=plan.max_output_tokens,
        max_tool_rounds=plan.max_tool_rounds,
        support_level=plan.support_level,
        features=plan.features,
    )
