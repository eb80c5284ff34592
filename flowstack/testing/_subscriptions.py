"""A subscription, its changes, and its schedule: what comes into force when. Pure.

Whatever changes the terms is put on the schedule, and one rule says when it begins:

a higher or equal price     at its moment; the difference is charged in full, the anchor stays
a lower price               with the first period that starts at or after it and is not invoiced yet
a price after `free`        a new subscription begins at its moment, with its own anchor and fee
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._plans import money
from flowstack.testing._terms import Terms
from flowstack.testing._time import Period, optional_timestamp, period_at, timestamp

FOREVER_US: Final = 2**62
"""After every time that the fake deals with."""


class ScheduledKind(Enum):
    """What brings new terms."""

    PLAN = auto()
    """A change that the customer can still revert."""
    CONTRACT_START = auto()
    CONTRACT_END = auto()


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Terms to come."""

    effective_us: int
    """The earliest moment."""
    kind: ScheduledKind
    terms: Terms | None
    """None where the subscription ends instead."""
    change_id: str
    """Empty for the end of a contract, which nobody asks for by itself."""
    starts_anew: bool = False
    contract_id: str = ""
    """Of the end of a contract: which one."""


@dataclass(slots=True)
class Change:
    """A change, asked for or applied."""

    change_id: str
    subscription_id: str
    kind: pb.ChangeKind.ValueType
    state: pb.ChangeState.ValueType
    before: Terms | None
    """None where there were none: the account's first subscription."""
    after: Terms | None
    """None where the subscription ends."""
    request_us: int
    effective_us: int
    amount_micro: int = 0
    invoice_id: str = ""
    drop_us: int = 0
    request_id: str = ""

    def to_proto(self) -> pb.SubscriptionChange:
        """The change on the wire."""
        return pb.SubscriptionChange(
            change_id=self.change_id,
            subscription_id=self.subscription_id,
            kind=self.kind,
            state=self.state,
            from_terms=None if self.before is None else self.before.to_proto(),
            to_terms=None if self.after is None else self.after.to_proto(),
            request_time=timestamp(self.request_us),
            effective_time=timestamp(self.effective_us),
            drop_time=optional_timestamp(self.drop_us),
            amount=money(self.amount_micro),
            invoice_id=self.invoice_id,
            request_id=self.request_id,
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """An account's own terms on top of a plan."""

    offer_id: str
    terms: Terms
    effective_us: int
    end_us: int
    """0 for no end."""
    reference: str

    def to_proto(self) -> pb.Contract:
        """The contract on the wire, with what the offer and the plan filled in."""
        terms = self.terms
        return pb.Contract(
            contract_id=terms.contract_id,
            plan_id=terms.plan_id,
            plan_version=1,
            offer_id=self.offer_id,
            effective_time=timestamp(self.effective_us),
            end_time=optional_timestamp(self.end_us),
            price=money(terms.price_micro),
            session_limit=terms.session_limit,
            managed_providers=terms.managed_providers,
            max_concurrent_sessions=terms.max_concurrent_sessions,
            max_output_tokens=terms.max_output_tokens,
            max_tool_rounds=terms.max_tool_rounds,
            support_level=terms.support_level,
            features=terms.features,
            reference=self.reference,
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """An account's subscription to a plan."""

    subscription_id: str
    account_id: str
    terms: Terms
    anchor_us: int
    """The start, from which every period is counted."""
    billed_us: int
    """Start of the first period whose fee is not invoiced yet."""
    end_us: int = 0
    """When it ends or ended; 0 while it renews."""
    version: int = 1
    schedule: tuple[Scheduled, ...] = ()
    contract: Contract | None = None
    """The one that was put last, while it holds or is to come."""
    cancel_change_id: str = ""
    """The cancellation that waits for `end_us`."""

    @property
    def etag(self) -> str:
        """Changes with the subscription."""
        return f"s{self.version}"

    @property
    def pending_change_id(self) -> str:
        """The downgrade or cancellation that can still be reverted; empty for none."""
        plans = [item.change_id for item in self.schedule if item.kind is ScheduledKind.PLAN]
        return plans[0] if plans else self.cancel_change_id

    @property
    def pending_terms(self) -> Terms | None:
        """The terms of the pending downgrade; None for none."""
        return next((item.terms for item in self.schedule if item.kind is ScheduledKind.PLAN), None)

    def has_ended(self, now_us: int) -> bool:
        """Whether its last period is over."""
        return bool(self.end_us) and now_us >= self.end_us

    def period(self, now_us: int) -> Period:
        """The present period; the last one where it has ended."""
        return period_at(self.anchor_us, self.end_us - 1 if self.has_ended(now_us) else now_us)


class Dated(NamedTuple):
    """Terms to come, with the moment at which they begin."""

    effective_us: int
    item: Scheduled
    starts_anew: bool


class Placement(NamedTuple):
    """What a scheduled change is, which may become another thing until it begins: other terms may come before it."""

    change_id: str
    kind: pb.ChangeKind.ValueType
    before: Terms
    effective_us: int


def timeline(subscription: Subscription) -> list[Dated]:
    """The scheduled terms that will begin, with their moments, in order; nothing follows a new subscription."""
    dated: list[Dated] = []
    superseded = superseded_ends(subscription)
    for item in subscription.schedule:
        if item in superseded:
            continue
        while True:
            before = terms_before(subscription, dated)
            ended_us = dated[-1].effective_us if dated and dated[-1].item.terms is None else subscription.end_us
            entry = _place(subscription, item, before, ended_us)
            if not dated or dated[-1].effective_us < entry.effective_us:
                break
            dated.pop()  # overtaken before it begins
        if 0 < ended_us <= entry.effective_us and not entry.starts_anew:
            continue
        if item.kind is ScheduledKind.CONTRACT_END and item.contract_id != before.contract_id:
            continue
        dated.append(entry)
        if entry.starts_anew:
            break
    return dated


def superseded_ends(subscription: Subscription) -> list[Scheduled]:
    """Ends of a contract that another one replaces before: it holds until that one begins, which may be later."""
    superseded: list[Scheduled] = []
    coming: Terms | None = None
    for item in subscription.schedule:
        if item.kind is ScheduledKind.CONTRACT_START:
            coming = item.terms
        elif item.kind is ScheduledKind.CONTRACT_END and coming and item.contract_id != coming.contract_id:
            superseded.append(item)
    return superseded


def terms_before(subscription: Subscription, dated: list[Dated]) -> Terms:
    """The terms that hold once all of `dated` have begun."""
    begun = [entry.item.terms for entry in dated if entry.item.terms is not None]
    return begun[-1] if begun else subscription.terms


def _place(subscription: Subscription, item: Scheduled, before: Terms, ended_us: int) -> Dated:
    if item.terms is None:
        return Dated(_next_boundary_us(subscription, item.effective_us), item, False)
    after_end = item.starts_anew and 0 < ended_us <= item.effective_us
    if after_end or (before.are_free and item.terms.price_micro > 0):
        return Dated(item.effective_us, item, True)
    if item.terms.price_micro < before.price_micro:
        return Dated(_next_boundary_us(subscription, item.effective_us), item, False)
    return Dated(item.effective_us, item, False)


def _next_boundary_us(subscription: Subscription, moment_us: int) -> int:
    if moment_us <= subscription.billed_us:
        return subscription.billed_us
    period = period_at(subscription.anchor_us, moment_us)
    return period.start_us if period.start_us == moment_us else period.end_us


def terms_at(subscription: Subscription, moment_us: int) -> Terms:
    """The terms that hold at `moment_us`, from the subscription's last step on."""
    return terms_before(subscription, [entry for entry in timeline(subscription) if entry.effective_us <= moment_us])


def placements(subscription: Subscription) -> list[Placement]:
    """What the scheduled changes are, as things stand, in the order in which they begin."""
    placed: list[Placement] = []
    before = subscription.terms
    for effective_us, item, starts_anew in timeline(subscription):
        if item.terms is None:
            continue
        if item.change_id:
            kind = pb.CHANGE_KIND_START if starts_anew else kind_of(before, item.terms)
            placed.append(Placement(item.change_id, kind, before, effective_us))
        before = item.terms
    return placed


def kind_of(before: Terms, after: Terms) -> pb.ChangeKind.ValueType:
    """The direction of a change within a subscription, by price."""
    if after.price_micro == before.price_micro:
        return pb.CHANGE_KIND_LATERAL
    return pb.CHANGE_KIND_UPGRADE if after.price_micro > before.price_micro else pb.CHANGE_KIND_DOWNGRADE


def final_end_us(subscription: Subscription) -> int:
    """When it ends, by a cancellation or with a contract; 0 for never."""
    ends = [entry.effective_us for entry in timeline(subscription) if entry.item.terms is None]
    if subscription.end_us:
        ends.append(subscription.end_us)
    return min(ends, default=0)


def next_step_us(subscription: Subscription) -> int:
    """When something is next to happen to it; FOREVER_US for never."""
    dated = timeline(subscription)
    moments = [dated[0].effective_us] if dated else []
    if not subscription.end_us or subscription.billed_us < subscription.end_us:
        moments.append(subscription.billed_us)
    if subscription.cancel_change_id:
        moments.append(subscription.end_us)
    return min(moments, default=FOREVER_US)
