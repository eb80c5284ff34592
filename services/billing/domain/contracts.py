"""Contracts: an account's own terms on top of a plan, from a time on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.billing.domain.catalogue import Catalogue, Offer, Plan
from services.billing.domain.changes import Changed, drop_pending, schedule_change
from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.model import (
    Contract,
    ScheduledKind,
    ScheduledTerms,
    Subscription,
    SubscriptionState,
    SupportLevel,
    Terms,
)
from services.billing.domain.renewal import final_end_us, superseded_ends
from services.shared.errors import FlowStackError, Reason, invalid_request


@dataclass(frozen=True, slots=True)
class ContractWish:
    """A contract as it is asked for. What is None or empty is the offer's, and what that leaves open the plan's."""

    plan_id: str
    plan_version: int
    """0 for the newest, or the offer's."""
    offer_id: str
    effective_us: int
    """0 for now."""
    end_us: int
    """0 for no end."""
    price_micro: int | None
    session_limit: int | None
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int | None
    max_output_tokens: int | None
    max_tool_rounds: int | None
    support_level: SupportLevel | None
    features: tuple[str, ...]
    reference: str


def contract_of(wish: ContractWish, catalogue: Catalogue, now_us: int, randomness: Randomness) -> Contract:
    """The contract that a wish becomes.

    Raises:
        FlowStackError: PLAN_NOT_FOUND, OFFER_NOT_FOUND; INVALID_REQUEST: begins in the past, ends before it begins,
            contradicts its offer, or leaves the price or the number of concurrent sessions open.
    """
    effective_us = wish.effective_us or now_us
    if effective_us < now_us:
        raise invalid_request("contract.effective_time", "must not be in the past, which is invoiced already")
    if wish.end_us and wish.end_us <= effective_us:
        raise invalid_request("contract.end_time", "must be after effective_time, which is now where it is unset")
    offer = _offer(wish, catalogue)
    plan = _plan(wish, offer, catalogue, now_us)
    contract_id = new_id("ctr_", randomness)
    terms = _terms(wish, offer, plan, contract_id)
    return Contract(contract_id, wish.offer_id, terms, effective_us, wish.end_us, wish.reference)


def _offer(wish: ContractWish, catalogue: Catalogue) -> Offer | None:
    if not wish.offer_id:
        return None
    for offer in catalogue.offers:
        if offer.offer_id == wish.offer_id:
            if wish.plan_id and wish.plan_id != offer.plan_id:
                raise invalid_request("contract.plan_id", "must be the offer's plan, or be left out")
            return offer
    raise FlowStackError(
        Reason.OFFER_NOT_FOUND, "The catalogue has no such offer. ListPlans shows those that there are."
    )


def _plan(wish: ContractWish, offer: Offer | None, catalogue: Catalogue, now_us: int) -> Plan:
    if wish.plan_version:
        return catalogue.plan(wish.plan_id or (offer.plan_id if offer else ""), wish.plan_version)
    if offer is not None:
        return catalogue.plan(offer.plan_id, offer.plan_version)
    return catalogue.newest(wish.plan_id, now_us)


def _terms(wish: ContractWish, offer: Offer | None, plan: Plan, contract_id: str) -> Terms:
    base = offer or plan
    price_micro = base.price_micro if wish.price_micro is None else wish.price_micro
    if price_micro is None:
        raise invalid_request("contract.price", "is required, because the plan has no price of its own")
    concurrent = base.max_concurrent_sessions if wish.max_concurrent_sessions is None else wish.max_concurrent_sessions
    if concurrent is None:
        raise invalid_request("contract.max_concurrent_sessions", "is required, because the plan leaves it open")
    return Terms(
        plan.plan_id,
        plan.version,
        contract_id,
        price_micro,
        base.session_limit if wish.session_limit is None else wish.session_limit,
        _union(base.managed_providers, wish.managed_providers),
        concurrent,
        base.max_output_tokens if wish.max_output_tokens is None else wish.max_output_tokens,
        base.max_tool_rounds if wish.max_tool_rounds is None else wish.max_tool_rounds,
        wish.support_level or base.support_level,
        _union(base.features, wish.features),
    )


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def put_contract(
    subscription: Subscription,
    contract: Contract,
    catalogue: Catalogue,
    now_us: int,
    randomness: Randomness,
    *,
    request_id: str = "",
) -> Changed:
    """Puts a contract on a subscription that is brought up to date.

    It takes the place of a contract that has not begun, and of a pending downgrade or cancellation; the one in force
    holds until it begins or to its own end. The prices decide the direction, as they do for a plan. When the contract
    ends, the plan's own terms come by the same rule; a subscription to a plan that is sold by contract only ends with
    the first period that starts at or after that.

    Raises:
        FlowStackError: INVALID_REQUEST, where it would end before it could begin.
    """
    ended = subscription.state_at(now_us) is SubscriptionState.ENDED
    prepared, dropped = (subscription, []) if ended else drop_pending(subscription)
    gone = [item for item in superseded_ends(subscription) if item.effective_us <= now_us]
    kept = tuple(item for item in prepared.schedule if item not in gone and _stays(item, subscription))
    dropped += [item.change_id for item in prepared.schedule if item not in kept and item.change_id]
    bumped = prepared.version + (prepared is subscription)
    prepared = replace(prepared, schedule=kept, contract=contract, version=bumped)
    end_us = final_end_us(prepared)
    starts_anew = ended or 0 < end_us < contract.effective_us
    start = ScheduledTerms(
        contract.effective_us,
        ScheduledKind.CONTRACT_START,
        contract.terms,
        new_id("chg_", randomness),
        starts_anew,
    )
    return schedule_change(
        subscription,
        prepared,
        contract.terms,
        start,
        dropped,
        now_us=now_us,
        randomness=randomness,
        request_id=request_id,
        refusal=invalid_request(
            "contract.end_time", "must be after the next period begins, which is when a lower price does"
        ),
        more=_end_of(contract, catalogue),
    )


def _stays(item: ScheduledTerms, subscription: Subscription) -> bool:
    """What the customer changed stays, and the end of the contract in force: it may come before the new one."""
    if item.kind is ScheduledKind.CONTRACT_END:
        return item.contract_id == subscription.terms.contract_id
    return item.kind is ScheduledKind.PLAN


def _end_of(contract: Contract, catalogue: Catalogue) -> tuple[ScheduledTerms, ...]:
    if not contract.end_us:
        return ()
    plan = catalogue.plan(contract.terms.plan_id, contract.terms.plan_version)
    after = None if plan.contact_sales else plan.terms()
    end = ScheduledTerms(contract.end_us, ScheduledKind.CONTRACT_END, after, "", contract_id=contract.contract_id)
    return (end,)
