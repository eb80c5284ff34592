"""Changes that somebody asks for.

Each takes a subscription that is brought up to date and puts its wish on the schedule; `renewal.advance` then says what
becomes of it at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.model import (
    ChangeKind,
    ChangeState,
    ScheduledKind,
    ScheduledTerms,
    Subscription,
    SubscriptionChange,
    SubscriptionState,
    Terms,
)
from services.billing.domain.renewal import Outcome, advance, placements
from services.shared.errors import FlowStackError, Reason


@dataclass(frozen=True, slots=True)
class Changed:
    """A change and what it brings about."""

    change: SubscriptionChange
    outcome: Outcome
    is_new: bool = True
    """False where nothing changes: the change is not added to the history."""


def check_etag(subscription: Subscription, etag: str) -> None:
    """Refuses a change of what has changed meanwhile; an empty etag goes without the check.

    Raises:
        FlowStackError: STALE_ETAG.
    """
    if etag and etag != subscription.etag:
        raise FlowStackError(
            Reason.STALE_ETAG,
            "The subscription has changed since it was read. Read it again, and decide again.",
            metadata={"etag": subscription.etag},
        )


def change_plan(
    subscription: Subscription, terms: Terms, now_us: int, randomness: Randomness, *, request_id: str = ""
) -> Changed:
    """Changes to `terms` of a plan, in the direction that the prices decide. Drops what is pending.

    Raises:
        FlowStackError: CONTRACT_IN_FORCE.
    """
    ended = subscription.state_at(now_us) is SubscriptionState.ENDED
    if subscription.terms.contract_id and not ended:
        raise FlowStackError(
            Reason.CONTRACT_IN_FORCE,
            "A contract sets the account's terms. Ask the operator to change or end it.",
            metadata={"contract": subscription.terms.contract_id},
        )
    free_of_pending, dropped = (subscription, []) if ended else drop_pending(subscription)
    if terms == subscription.terms and not ended:
        change = _change(
            ChangeKind.NONE, subscription, terms, now_us=now_us, randomness=randomness, request_id=request_id
        )
        return Changed(change, Outcome(free_of_pending, dropped=dropped), is_new=bool(dropped))
    change_id = new_id("chg_", randomness)
    item = ScheduledTerms(now_us, ScheduledKind.PLAN, terms, change_id, ended)
    return schedule_change(
        subscription,
        free_of_pending,
        terms,
        item,
        dropped,
        now_us=now_us,
        randomness=randomness,
        request_id=request_id,
        refusal=FlowStackError(
            Reason.CONTRACT_IN_FORCE,
            "A contract begins before the change could. Ask the operator to change or end the contract.",
        ),
    )


def schedule_change(
    subscription: Subscription,
    prepared: Subscription,
    terms: Terms,
    item: ScheduledTerms,
    dropped: list[str],
    *,
    now_us: int,
    randomness: Randomness,
    request_id: str,
    refusal: FlowStackError,
    more: tuple[ScheduledTerms, ...] = (),
) -> Changed:
    """Puts `item`, and `more` that follows from it, on the schedule of `prepared`, and lets it come into force.

    Args:
        subscription: as it stood before.
        prepared: without what the change takes the place of.
        terms: the new terms.
        item: what brings them.
        dropped: the changes that `prepared` lacks.
        now_us: the present.
        randomness: names a new subscription.
        request_id: the caller's idempotency key.
        refusal: what is raised where `item` would never come into force.
        more: what is scheduled along with it.

    Raises:
        FlowStackError: `refusal`.
    """
    schedule = sorted((*prepared.schedule, item, *more), key=lambda scheduled: scheduled.effective_us)
    waiting = replace(prepared, schedule=tuple(schedule), version=prepared.version + (prepared is subscription))
    placement = next((one for one in placements(waiting) if one.change_id == item.change_id), None)
    if placement is None:
        raise refusal
    outcome = advance(waiting, now_us, randomness)
    outcome.dropped[:0] = dropped
    applied = item.change_id in outcome.applied
    subscription_id = outcome.subscription.subscription_id if applied else subscription.subscription_id
    change = SubscriptionChange(
        item.change_id,
        subscription.account_id,
        subscription_id,
        placement.kind,
        ChangeState.APPLIED if applied else ChangeState.PENDING,
        placement.from_terms,
        terms,
        now_us,
        placement.effective_us,
        0,
        sum(charge.amount_micro for charge in outcome.charges if charge.change_id == item.change_id),
        "",
        request_id,
    )
    return Changed(change, outcome)


def cancel(
    subscription: Subscription,
    now_us: int,
    randomness: Randomness,
    *,
    request_id: str = "",
) -> Changed:
    """Ends the subscription with its period, in place of a pending downgrade.

    Raises:
        FlowStackError: SUBSCRIPTION_ENDED. The caller answers a second cancellation with the first.
    """
    refuse_ended(subscription, now_us)
    prepared, dropped = drop_pending(subscription)
    end_us = prepared.billed_us
    change = _change(
        ChangeKind.CANCELLATION, subscription, None, now_us=now_us, randomness=randomness, request_id=request_id
    )
    change = replace(change, state=ChangeState.PENDING, effective_us=end_us)
    cancelled = replace(
        prepared, end_us=end_us, cancel_change_id=change.change_id, version=prepared.version + (not dropped)
    )
    return Changed(change, Outcome(cancelled, dropped=dropped))


def revert(subscription: Subscription, now_us: int, randomness: Randomness, *, request_id: str = "") -> Changed:
    """Drops the pending downgrade or cancellation.

    Raises:
        FlowStackError: SUBSCRIPTION_ENDED, NO_PENDING_CHANGE.
    """
    refuse_ended(subscription, now_us)
    prepared, dropped = drop_pending(subscription)
    if not dropped:
        raise FlowStackError(
            Reason.NO_PENDING_CHANGE, "Neither a downgrade nor a cancellation is pending, so there is none to revert."
        )
    change = _change(
        ChangeKind.REVERT, subscription, subscription.terms, now_us=now_us, randomness=randomness, request_id=request_id
    )
    return Changed(change, Outcome(prepared, dropped=dropped))


def end_now(subscription: Subscription, now_us: int, randomness: Randomness) -> Changed:
    """Ends the subscription at once, because its account is deleted; what is over already stays as it is."""
    if subscription.state_at(now_us) is SubscriptionState.ENDED:
        change = _change(ChangeKind.NONE, subscription, None, now_us=now_us, randomness=randomness)
        to_come = [item.change_id for item in subscription.schedule if item.change_id]
        over = replace(subscription, schedule=(), contract=None)
        return Changed(change, Outcome(over, dropped=to_come), is_new=False)
    prepared, dropped = drop_pending(subscription)
    dropped += [item.change_id for item in prepared.schedule if item.change_id]
    ended = replace(prepared, end_us=now_us, schedule=(), contract=None, version=subscription.version + 1)
    change = _change(ChangeKind.CANCELLATION, subscription, None, now_us=now_us, randomness=randomness)
    return Changed(change, Outcome(ended, dropped=dropped))


def drop_pending(subscription: Subscription) -> tuple[Subscription, list[str]]:
    """The subscription without its pending downgrade or cancellation, and the changes that were dropped.

    It is another version where there was any. Contracts to come stay: they are not the customer's to revert.
    """
    pending = [item.change_id for item in subscription.schedule if item.kind is ScheduledKind.PLAN]
    if subscription.cancel_change_id:
        pending.append(subscription.cancel_change_id)
    if not pending:
        return subscription, []
    rest = tuple(item for item in subscription.schedule if item.kind is not ScheduledKind.PLAN)
    end_us = 0 if subscription.cancel_change_id else subscription.end_us
    kept = replace(subscription, schedule=rest, end_us=end_us, cancel_change_id="", version=subscription.version + 1)
    return kept, pending


def refuse_ended(subscription: Subscription, now_us: int) -> None:
    """Refuses a change of what is over.

    Raises:
        FlowStackError: SUBSCRIPTION_ENDED.
    """
    if subscription.state_at(now_us) is SubscriptionState.ENDED:
        raise FlowStackError(
            Reason.SUBSCRIPTION_ENDED, "The subscription has ended. ChangePlan starts a new one, on any plan."
        )


def _change(
    kind: ChangeKind,
    subscription: Subscription,
    to_terms: Terms | None,
    *,
    now_us: int,
    randomness: Randomness,
    request_id: str = "",
) -> SubscriptionChange:
    """A change that is in force at once and costs nothing."""
    return SubscriptionChange(
        new_id("chg_", randomness),
        subscription.account_id,
        subscription.subscription_id,
        kind,
        ChangeState.APPLIED,
        subscription.terms,
        to_terms,
        now_us,
        now_us,
        0,
        0,
        "",
        request_id,
    )
