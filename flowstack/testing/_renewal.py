"""What time does to a subscription: scheduled terms begin, periods are charged, it ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._ids import new_id
from flowstack.testing._subscriptions import (
    FOREVER_US,
    Change,
    Dated,
    Placement,
    Scheduled,
    Subscription,
    kind_of,
    next_step_us,
    placements,
    timeline,
)
from flowstack.testing._terms import Terms
from flowstack.testing._time import Period, period_at


class Charge(NamedTuple):
    """An amount to be invoiced."""

    kind: invoice_pb2.InvoiceKind.ValueType
    subscription_id: str
    period: Period
    start_us: int
    """From when it is charged: the period's start, or the upgrade's moment within it."""
    terms: Terms
    amount_micro: int
    change_id: str
    """The change that caused it; empty for a renewal."""


@dataclass(slots=True)
class Outcome:
    """What became of a subscription."""

    subscription: Subscription
    """The current one: another than before, where a new one began."""
    retired: list[Subscription] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    """Changes that came into force."""
    begun: list[Placement] = field(default_factory=list)
    """What those of them were that stood on the schedule."""
    dropped: list[str] = field(default_factory=list)
    """Changes that never will."""
    started: dict[str, str] = field(default_factory=dict)
    """Of changes that began a new subscription, and of those to come that it took over: which one."""
    unasked: list[Change] = field(default_factory=list)
    """Changes that nobody asked for: a contract ended."""


def begin(subscription: Subscription, change_id: str) -> Outcome:
    """A new subscription with its first period charged."""
    outcome = Outcome(subscription)
    _charge_period(outcome, change_id)
    return outcome


def advance(subscription: Subscription, now_us: int) -> Outcome:
    """Everything that is due by `now_us`, step by step."""
    outcome = Outcome(subscription)
    while (moment_us := next_step_us(outcome.subscription)) <= now_us:
        current = outcome.subscription
        dated = timeline(current)
        if dated and dated[0].effective_us == moment_us:
            _begin(outcome, dated[0])
        elif current.cancel_change_id and current.end_us == moment_us:
            outcome.applied.append(current.cancel_change_id)
            outcome.subscription = replace(current, cancel_change_id="", version=current.version + 1)
        else:
            _charge_period(outcome)
    return outcome


def next_fee(subscription: Subscription) -> Charge | None:
    """The fee of the period that begins next, as things stand; None where none does."""
    while (moment_us := next_step_us(subscription)) < FOREVER_US:
        outcome = advance(subscription, moment_us)
        fees = [charge for charge in outcome.charges if charge.kind == invoice_pb2.INVOICE_KIND_PERIOD_FEE]
        if fees:
            return fees[0]
        subscription = outcome.subscription
    return None


def _charge_period(outcome: Outcome, change_id: str = "") -> None:
    current = outcome.subscription
    period = period_at(current.anchor_us, current.billed_us)
    outcome.charges.append(
        Charge(
            invoice_pb2.INVOICE_KIND_PERIOD_FEE,
            current.subscription_id,
            period,
            period.start_us,
            current.terms,
            current.terms.price_micro,
            change_id,
        )
    )
    outcome.subscription = replace(current, billed_us=period.end_us)


def _begin(outcome: Outcome, entry: Dated) -> None:
    current, item = outcome.subscription, entry.item
    place = current.schedule.index(item)
    outcome.dropped += _change_ids(current.schedule[:place])
    if item.change_id:
        outcome.begun.append(placements(current)[0])
    change_id = item.change_id or _note_unasked(outcome, entry)
    outcome.applied.append(change_id)
    rest = current.schedule[place + 1 :]
    is_over = current.contract is not None and current.contract.terms.contract_id == item.contract_id
    contract = None if is_over else current.contract
    changed = replace(current, schedule=rest, contract=contract, version=current.version + 1)
    if item.terms is None:
        kept = tuple(other for other in rest if other.starts_anew)
        outcome.dropped += _change_ids([other for other in rest if not other.starts_anew])
        outcome.subscription = replace(changed, end_us=entry.effective_us, schedule=kept)
    elif entry.starts_anew:
        if current.cancel_change_id:
            told = outcome.applied if current.end_us <= entry.effective_us else outcome.dropped
            told.append(current.cancel_change_id)
        _succeed(outcome, changed, item.terms, entry.effective_us, change_id)
    else:
        _charge_difference(outcome, changed, item.terms, entry.effective_us, change_id)
        outcome.subscription = replace(changed, terms=item.terms)


def _note_unasked(outcome: Outcome, entry: Dated) -> str:
    before, after = outcome.subscription.terms, entry.item.terms
    change = Change(
        new_id("chg_"),
        outcome.subscription.subscription_id,
        pb.CHANGE_KIND_CANCELLATION if after is None else kind_of(before, after),
        pb.CHANGE_STATE_APPLIED,
        before,
        after,
        entry.effective_us,
        entry.effective_us,
    )
    outcome.unasked.append(change)
    return change.change_id


def _succeed(outcome: Outcome, changed: Subscription, terms: Terms, start_us: int, change_id: str) -> None:
    """A new subscription takes the place of the old one, which ends here where it has not ended before."""
    end_us = min(changed.end_us, start_us) if changed.end_us else start_us
    outcome.retired.append(replace(changed, end_us=end_us, schedule=(), contract=None, cancel_change_id=""))
    outcome.subscription = Subscription(
        new_id("sub_"),
        changed.account_id,
        terms,
        start_us,
        start_us,
        version=changed.version,
        schedule=changed.schedule,
        contract=changed.contract,
    )
    outcome.started[change_id] = outcome.subscription.subscription_id
    # What is to come will be part of the new one's history, not of the old one's.
    outcome.started |= dict.fromkeys(_change_ids(changed.schedule), outcome.subscription.subscription_id)
    _charge_period(outcome, change_id)


def _charge_difference(outcome: Outcome, changed: Subscription, terms: Terms, moment_us: int, change_id: str) -> None:
    difference_micro = terms.price_micro - changed.terms.price_micro
    # At the start of a period that is not invoiced yet, the fee itself is charged at the new price.
    if difference_micro <= 0 or moment_us >= changed.billed_us:
        return
    outcome.charges.append(
        Charge(
            invoice_pb2.INVOICE_KIND_UPGRADE,
            changed.subscription_id,
            period_at(changed.anchor_us, moment_us),
            moment_us,
            terms,
            difference_micro,
            change_id,
        )
    )


def _change_ids(items: Sequence[Scheduled]) -> list[str]:
    return [item.change_id for item in items if item.change_id]
