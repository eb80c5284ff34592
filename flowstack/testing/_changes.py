"""Changes of a subscription that somebody asks for. Pure.

Each puts its wish on the schedule of a subscription that is brought up to date, and lets time have its way with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._ids import new_id
from flowstack.testing._plans import PLANS
from flowstack.testing._renewal import Outcome, advance
from flowstack.testing._subscriptions import (
    Change,
    Contract,
    Scheduled,
    ScheduledKind,
    Subscription,
    final_end_us,
    placements,
    superseded_ends,
)
from flowstack.testing._terms import Terms, terms_of


@dataclass(frozen=True, slots=True)
class Changed:
    """A change and what it brings about."""

    change: Change
    outcome: Outcome
    is_new: bool = True
    """False where nothing changes: the change is not added to the history."""


def change_plan(subscription: Subscription, terms: Terms, now_us: int) -> Changed:
    """Changes to a plan, in the direction that the prices decide. Drops what is pending.

    Raises:
        FakeError: CONTRACT_IN_FORCE.
    """
    ended = subscription.has_ended(now_us)
    if subscription.terms.contract_id and not ended:
        raise FakeError(
            "CONTRACT_IN_FORCE",
            "A contract sets the account's terms. Ask the operator to change or end it.",
            metadata={"contract": subscription.terms.contract_id},
        )
    prepared, dropped = (subscription, []) if ended else _drop_pending(subscription)
    if terms == subscription.terms and not ended:
        change = _change(pb.CHANGE_KIND_NONE, subscription, terms, now_us)
        return Changed(change, Outcome(prepared, dropped=dropped), is_new=bool(dropped))
    item = Scheduled(now_us, ScheduledKind.PLAN, terms, new_id("chg_"), ended)
    refusal = FakeError(
        "CONTRACT_IN_FORCE",
        "A contract begins before the change could. Ask the operator to change or end the contract.",
    )
    return _schedule(subscription, prepared, [item], dropped, now_us, refusal)


def put_contract(subscription: Subscription, contract: Contract, now_us: int) -> Changed:
    """Puts a contract in place of one that has not begun, and of a pending downgrade or cancellation.

    Raises:
        FakeError: INVALID_REQUEST, where it would end before it could begin.
    """
    ended = subscription.has_ended(now_us)
    prepared, dropped = (subscription, []) if ended else _drop_pending(subscription)
    gone = [item for item in superseded_ends(subscription) if item.effective_us <= now_us]
    kept = tuple(item for item in prepared.schedule if item not in gone and _stays(item, subscription))
    dropped += [item.change_id for item in prepared.schedule if item not in kept and item.change_id]
    version = prepared.version + (prepared is subscription)
    prepared = replace(prepared, schedule=kept, contract=contract, version=version)
    starts_anew = ended or 0 < final_end_us(prepared) < contract.effective_us
    kind = ScheduledKind.CONTRACT_START
    items = [Scheduled(contract.effective_us, kind, contract.terms, new_id("chg_"), starts_anew)]
    if contract.end_us:
        plan = PLANS[contract.terms.plan_id]
        after = None if plan.price_micro is None else terms_of(plan)
        contract_id = contract.terms.contract_id
        items.append(Scheduled(contract.end_us, ScheduledKind.CONTRACT_END, after, "", contract_id=contract_id))
    refusal = invalid_field(
        "contract.end_time", "must be after the next period begins, which is when a lower price does"
    )
    return _schedule(subscription, prepared, items, dropped, now_us, refusal)


def _stays(item: Scheduled, subscription: Subscription) -> bool:
    """What the customer changed stays, and the end of the contract in force."""
    if item.kind is ScheduledKind.CONTRACT_END:
        return item.contract_id == subscription.terms.contract_id
    return item.kind is ScheduledKind.PLAN


def _schedule(  # noqa: PLR0917  # called from within this file only
    subscription: Subscription,
    prepared: Subscription,
    items: list[Scheduled],
    dropped: list[str],
    now_us: int,
    refusal: FakeError,
) -> Changed:
    """Puts `items`, of which the first is what was asked for, on the schedule of `prepared`."""
    item = items[0]
    assert item.terms is not None
    schedule = sorted((*prepared.schedule, *items), key=lambda one: one.effective_us)
    waiting = replace(prepared, schedule=tuple(schedule), version=prepared.version + (prepared is subscription))
    placement = next((one for one in placements(waiting) if one.change_id == item.change_id), None)
    if placement is None:
        raise refusal
    outcome = advance(waiting, now_us)
    outcome.dropped[:0] = dropped
    applied = item.change_id in outcome.applied
    change = Change(
        item.change_id,
        (outcome.subscription if applied else subscription).subscription_id,
        placement.kind,
        pb.CHANGE_STATE_APPLIED if applied else pb.CHANGE_STATE_PENDING,
        placement.before,
        item.terms,
        now_us,
        placement.effective_us,
        sum(charge.amount_micro for charge in outcome.charges if charge.change_id == item.change_id),
    )
    return Changed(change, outcome)


def cancel(subscription: Subscription, now_us: int) -> Changed:
    """Ends the subscription with its period, in place of a pending downgrade.

    Raises:
        FakeError: SUBSCRIPTION_ENDED. The caller answers a second cancellation with the first.
    """
    _refuse_ended(subscription, now_us)
    prepared, dropped = _drop_pending(subscription)
    change = _change(pb.CHANGE_KIND_CANCELLATION, subscription, None, now_us)
    change.state, change.effective_us = pb.CHANGE_STATE_PENDING, prepared.billed_us
    version = prepared.version + (not dropped)
    cancelled = replace(prepared, end_us=prepared.billed_us, cancel_change_id=change.change_id, version=version)
    return Changed(change, Outcome(cancelled, dropped=dropped))


def revert(subscription: Subscription, now_us: int) -> Changed:
    """Drops the pending downgrade or cancellation.

    Raises:
        FakeError: SUBSCRIPTION_ENDED, NO_PENDING_CHANGE.
    """
    _refuse_ended(subscription, now_us)
    prepared, dropped = _drop_pending(subscription)
    if not dropped:
        raise FakeError(
            "NO_PENDING_CHANGE", "Neither a downgrade nor a cancellation is pending, so there is none to revert."
        )
    change = _change(pb.CHANGE_KIND_REVERT, subscription, subscription.terms, now_us)
    return Changed(change, Outcome(prepared, dropped=dropped))


def end_now(subscription: Subscription, now_us: int) -> Changed:
    """Ends the subscription at once, because its account is deleted; what is over already stays as it is."""
    if subscription.has_ended(now_us):
        change = _change(pb.CHANGE_KIND_NONE, subscription, None, now_us)
        to_come = [item.change_id for item in subscription.schedule if item.change_id]
        over = replace(subscription, schedule=(), contract=None)
        return Changed(change, Outcome(over, dropped=to_come), is_new=False)
    prepared, dropped = _drop_pending(subscription)
    dropped += [item.change_id for item in prepared.schedule if item.change_id]
    ended = replace(prepared, end_us=now_us, schedule=(), contract=None, version=subscription.version + 1)
    return Changed(_change(pb.CHANGE_KIND_CANCELLATION, subscription, None, now_us), Outcome(ended, dropped=dropped))


def _drop_pending(subscription: Subscription) -> tuple[Subscription, list[str]]:
    """The subscription without its pending downgrade or cancellation, and the changes that were dropped."""
    pending = [item.change_id for item in subscription.schedule if item.kind is ScheduledKind.PLAN]
    if subscription.cancel_change_id:
        pending.append(subscription.cancel_change_id)
    if not pending:
        return subscription, []
    rest = tuple(item for item in subscription.schedule if item.kind is not ScheduledKind.PLAN)
    end_us = 0 if subscription.cancel_change_id else subscription.end_us
    kept = replace(subscription, schedule=rest, end_us=end_us, cancel_change_id="", version=subscription.version + 1)
    return kept, pending


def _refuse_ended(subscription: Subscription, now_us: int) -> None:
    if subscription.has_ended(now_us):
        raise FakeError("SUBSCRIPTION_ENDED", "The subscription has ended. ChangePlan starts a new one, on any plan.")


def _change(kind: pb.ChangeKind.ValueType, subscription: Subscription, after: Terms | None, now_us: int) -> Change:
    return Change(
        new_id("chg_"),
        subscription.subscription_id,
        kind,
        pb.CHANGE_STATE_APPLIED,
        subscription.terms,
        after,
        now_us,
        now_us,
    )
