"""What time does to a subscription: scheduled terms begin, periods are charged, it ends. Catches up on any delay.

Everything that changes a subscription's terms is put on its schedule and comes into force here, whether it was asked
for a moment or a year ago. So an upgrade, a downgrade and a contract follow one rule:

    a higher or equal price     at its moment; the difference is charged in full
    a lower price               with the first period that starts at or after it and is not invoiced yet
    a price after `free`        a new subscription begins at its moment, with its own anchor and fee
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, NamedTuple

from services.billing.domain.catalogue import FREE
from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.model import (
    ChangeKind,
    ChangeState,
    ScheduledKind,
    ScheduledTerms,
    Subscription,
    SubscriptionChange,
    Terms,
)
from services.shared.periods import Period, period_at

FOREVER_US: Final = 2**62
"""After every time that billing deals with."""


class ChargeKind(IntEnum):
    """What is charged. The numbers are those of the contract's InvoiceKind."""

    PERIOD_FEE = 1
    UPGRADE = 2


class Charge(NamedTuple):
    """An amount to be invoiced."""

    kind: ChargeKind
    subscription_id: str
    period: Period
    start_us: int
    """From when it is charged: the period's start, or the upgrade's moment within it."""
    terms: Terms
    amount_micro: int
    change_id: str
    """The change that caused it; empty for a renewal."""


class Dated(NamedTuple):
    """Terms to come, with the moment at which they begin."""

    effective_us: int
    item: ScheduledTerms
    starts_anew: bool


class Placement(NamedTuple):
    """What a scheduled change is, which may become another thing until it begins: other terms may come before it."""

    change_id: str
    kind: ChangeKind
    from_terms: Terms
    effective_us: int


@dataclass(slots=True)
class Outcome:
    """What became of a subscription."""

    subscription: Subscription
    """The current one: another than before, where a new one began."""
    retired: list[Subscription] = field(default_factory=list)
    """Subscriptions that were replaced by a new one."""
    charges: list[Charge] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    """Changes that came into force."""
    begun: list[Placement] = field(default_factory=list)
    """What those of them were that stood on the schedule."""
    dropped: list[str] = field(default_factory=list)
    """Changes that never will."""
    started: dict[str, str] = field(default_factory=dict)
    """Of changes that began a new subscription, and of those to come that it took over: which one."""
    unasked: list[SubscriptionChange] = field(default_factory=list)
    """Changes that nobody asked for: a contract ended."""


def holds_free(terms: Terms) -> bool:
    """Whether these are the free plan's own terms, which a first paid plan replaces by a new subscription."""
    return terms.plan_id == FREE and not terms.price_micro


def next_boundary_us(subscription: Subscription, moment_us: int) -> int:
    """The start of the first period that begins at or after `moment_us` and is not invoiced yet."""
    if moment_us <= subscription.billed_us:
        return subscription.billed_us
    period = period_at(subscription.anchor_us, moment_us)
    return period.start_us if period.start_us == moment_us else period.end_us


def timeline(subscription: Subscription) -> list[Dated]:
    """The scheduled terms with the moments at which they begin, in order.

    Terms that later ones overtake before they begin are left out, and so are those that the end comes before, unless
    they start anew. Nothing follows a new subscription, which takes the rest of the schedule over.
    """
    dated: list[Dated] = []
    superseded = superseded_ends(subscription)
    for item in subscription.schedule:
        if item in superseded:
            continue
        while True:
            before = _terms_before(subscription, dated)
            ended_us = dated[-1].effective_us if dated and dated[-1].item.terms is None else subscription.end_us
            entry = _place(subscription, item, before, ended_us)
            if not dated or dated[-1].effective_us < entry.effective_us:
                break
            dated.pop()
        if 0 < ended_us <= entry.effective_us and not entry.starts_anew:
            continue
        if item.kind is ScheduledKind.CONTRACT_END and item.contract_id != before.contract_id:
            continue
        dated.append(entry)
        if entry.starts_anew:
            break
    return dated


def superseded_ends(subscription: Subscription) -> list[ScheduledTerms]:
    """Ends of a contract that another one replaces before: it holds on until that one begins, which may be later."""
    superseded: list[ScheduledTerms] = []
    coming: Terms | None = None
    for item in subscription.schedule:
        if item.kind is ScheduledKind.CONTRACT_START:
            coming = item.terms
        elif item.kind is ScheduledKind.CONTRACT_END and coming and item.contract_id != coming.contract_id:
            superseded.append(item)
    return superseded


def _terms_before(subscription: Subscription, dated: Sequence[Dated]) -> Terms:
    begun = [entry.item.terms for entry in dated if entry.item.terms is not None]
    return begun[-1] if begun else subscription.terms


def _place(subscription: Subscription, item: ScheduledTerms, before: Terms, ended_us: int) -> Dated:
    if item.terms is None:
        return Dated(next_boundary_us(subscription, item.effective_us), item, False)
    after_end = item.starts_anew and 0 < ended_us <= item.effective_us
    if after_end or (holds_free(before) and item.terms.price_micro > 0):
        return Dated(item.effective_us, item, True)
    if item.terms.price_micro < before.price_micro:
        return Dated(next_boundary_us(subscription, item.effective_us), item, False)
    return Dated(item.effective_us, item, False)


def terms_at(subscription: Subscription, moment_us: int) -> Terms:
    """The terms that hold at `moment_us`, from the subscription's last step on."""
    return _terms_before(subscription, [entry for entry in timeline(subscription) if entry.effective_us <= moment_us])


def placements(subscription: Subscription) -> list[Placement]:
    """What the scheduled changes are, as things stand, in the order in which they begin."""
    placed: list[Placement] = []
    before = subscription.terms
    for effective_us, item, starts_anew in timeline(subscription):
        if item.terms is None:
            continue
        if item.change_id:
            kind = ChangeKind.START if starts_anew else kind_of(before, item.terms)
            placed.append(Placement(item.change_id, kind, before, effective_us))
        before = item.terms
    return placed


def final_end_us(subscription: Subscription) -> int:
    """When it ends, by a cancellation or because what its contract ends in is sold by contract only; 0 for never."""
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


def begin(subscription: Subscription, change_id: str) -> Outcome:
    """A new subscription with its first period charged, which `change_id` brought about."""
    outcome = Outcome(subscription)
    _charge_period(outcome, change_id)
    return outcome


def advance(subscription: Subscription, now_us: int, randomness: Randomness) -> Outcome:
    """Everything that is due by `now_us`, step by step, however late. Pure: `randomness` names new subscriptions."""
    outcome = Outcome(subscription)
    while (moment_us := next_step_us(outcome.subscription)) <= now_us:
        current = outcome.subscription
        dated = timeline(current)
        if dated and dated[0].effective_us == moment_us:
            _begin(outcome, dated[0], randomness)
        elif current.cancel_change_id and current.end_us == moment_us:
            outcome.applied.append(current.cancel_change_id)
            outcome.subscription = replace(current, cancel_change_id="", version=current.version + 1)
        else:
            _charge_period(outcome)
    return outcome


def next_fee(subscription: Subscription, randomness: Randomness) -> Charge | None:
    """The fee of the period that begins next, as things stand; None where none does.

    It is of another subscription where a new one begins before this one renews. Pure, like `advance`, which finds it.
    """
    while (moment_us := next_step_us(subscription)) < FOREVER_US:
        outcome = advance(subscription, moment_us, randomness)
        fees = [charge for charge in outcome.charges if charge.kind is ChargeKind.PERIOD_FEE]
        if fees:
            return fees[0]
        subscription = outcome.subscription
    return None


def _charge_period(outcome: Outcome, change_id: str = "") -> None:
    current = outcome.subscription
    period = period_at(current.anchor_us, current.billed_us)
    charge = Charge(
        ChargeKind.PERIOD_FEE,
        current.subscription_id,
        period,
        period.start_us,
        current.terms,
        current.terms.price_micro,
        change_id,
    )
    outcome.charges.append(charge)
    outcome.subscription = replace(current, billed_us=period.end_us)


def _begin(outcome: Outcome, entry: Dated, randomness: Randomness) -> None:
    current, item = outcome.subscription, entry.item
    place = current.schedule.index(item)
    outcome.dropped += _change_ids(current.schedule[:place])
    if item.change_id:
        outcome.begun.append(placements(current)[0])
    change_id = item.change_id or _note_unasked(outcome, entry, randomness)
    outcome.applied.append(change_id)
    rest = current.schedule[place + 1 :]
    is_over = current.contract is not None and current.contract.contract_id == item.contract_id
    changed = replace(
        current, schedule=rest, contract=None if is_over else current.contract, version=current.version + 1
    )
    if item.terms is None:
        kept = tuple(other for other in rest if other.starts_anew)
        outcome.dropped += _change_ids([other for other in rest if not other.starts_anew])
        outcome.subscription = replace(changed, end_us=entry.effective_us, schedule=kept)
    elif entry.starts_anew:
        if current.cancel_change_id:
            told = outcome.applied if current.end_us <= entry.effective_us else outcome.dropped
            told.append(current.cancel_change_id)
        _succeed(outcome, changed, item.terms, entry.effective_us, change_id=change_id, randomness=randomness)
    else:
        _charge_difference(outcome, changed, item.terms, entry.effective_us, change_id)
        outcome.subscription = replace(changed, terms=item.terms)


def _note_unasked(outcome: Outcome, entry: Dated, randomness: Randomness) -> str:
    """The history's entry for the end of a contract."""
    before, after = outcome.subscription.terms, entry.item.terms
    kind = ChangeKind.CANCELLATION if after is None else kind_of(before, after)
    change = SubscriptionChange(
        new_id("chg_", randomness),
        outcome.subscription.account_id,
        outcome.subscription.subscription_id,
        kind,
        ChangeState.APPLIED,
        before,
        after,
        entry.effective_us,
        entry.effective_us,
        0,
        0,
        "",
        "",
    )
    outcome.unasked.append(change)
    return change.change_id


def kind_of(before: Terms, after: Terms) -> ChangeKind:
    """The direction of a change within a subscription, by price."""
    if after.price_micro == before.price_micro:
        return ChangeKind.LATERAL
    return ChangeKind.UPGRADE if after.price_micro > before.price_micro else ChangeKind.DOWNGRADE


def _succeed(
    outcome: Outcome, changed: Subscription, terms: Terms, start_us: int, *, change_id: str, randomness: Randomness
) -> None:
    """A new subscription takes the place of the old one, which ends here where it has not ended before."""
    end_us = min(changed.end_us, start_us) if changed.end_us else start_us
    outcome.retired.append(replace(changed, end_us=end_us, schedule=(), contract=None, cancel_change_id=""))
    outcome.subscription = Subscription(
        new_id("sub_", randomness),
        changed.account_id,
        terms,
        start_us,
        0,
        changed.version,
        start_us,
        start_us,
        changed.schedule,
        changed.contract,
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
    period = period_at(changed.anchor_us, moment_us)
    outcome.charges.append(
        Charge(ChargeKind.UPGRADE, changed.subscription_id, period, moment_us, terms, difference_micro, change_id)
    )


def _change_ids(items: Sequence[ScheduledTerms]) -> list[str]:
    return [item.change_id for item in items if item.change_id]
