"""The contract that a wish for one becomes: what it leaves open is the offer's, and then the plan's. Pure."""

from __future__ import annotations

from dataclasses import replace

from flowstack_protos.billing.v1 import plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._ids import new_id
from flowstack.testing._plans import OFFER, Plan, micro_of, plan_of
from flowstack.testing._subscriptions import Contract
from flowstack.testing._terms import Terms, terms_of


def contract_of(wish: pb.Contract, now_us: int) -> Contract:
    """The contract that is agreed.

    Raises:
        FakeError: PLAN_NOT_FOUND, OFFER_NOT_FOUND; INVALID_REQUEST: begins in the past, ends before it begins,
            contradicts its offer, or leaves the price or the number of concurrent sessions open.
    """
    effective_us = wish.effective_time.ToMicroseconds() or now_us
    end_us = wish.end_time.ToMicroseconds()
    if effective_us < now_us:
        raise invalid_field("contract.effective_time", "must not be in the past, which is invoiced already")
    if end_us and end_us <= effective_us:
        raise invalid_field("contract.end_time", "must be after effective_time, which is now where it is unset")
    offer = _offer(wish)
    plan = plan_of(wish.plan_id or (offer.plan_id if offer else ""), wish.plan_version)
    base = terms_of(plan) if offer is None else _terms_of_offer(offer)
    return Contract(wish.offer_id, _terms(wish, base, plan, offer), effective_us, end_us, wish.reference)


def _offer(wish: pb.Contract) -> plan_pb2.Offer | None:
    if not wish.offer_id:
        return None
    if wish.offer_id != OFFER.offer_id:
        raise FakeError("OFFER_NOT_FOUND", "The catalogue has no such offer. ListPlans shows those that there are.")
    if wish.plan_id and wish.plan_id != OFFER.plan_id:
        raise invalid_field("contract.plan_id", "must be the offer's plan, or be left out")
    return OFFER


def _terms_of_offer(offer: plan_pb2.Offer) -> Terms:
    return Terms(
        offer.plan_id,
        "",
        micro_of(offer.price),
        offer.session_limit,
        tuple(offer.managed_providers),
        offer.max_concurrent_sessions,
        offer.max_output_tokens,
        offer.max_tool_rounds,
        offer.support_level,
        tuple(offer.features),
    )


def _terms(wish: pb.Contract, base: Terms, plan: Plan, offer: plan_pb2.Offer | None) -> Terms:
    if offer is None and plan.price_micro is None and not wish.HasField("price"):
        raise invalid_field("contract.price", "is required, because the plan has no price of its own")
    if offer is None and plan.max_concurrent_sessions is None and not wish.HasField("max_concurrent_sessions"):
        raise invalid_field("contract.max_concurrent_sessions", "is required, because the plan leaves it open")
    numbers = ("session_limit", "max_concurrent_sessions", "max_output_tokens", "max_tool_rounds")
    wanted = {field.name: value for field, value in wish.ListFields() if field.name in numbers}
    return replace(
        base,
        contract_id=new_id("ctr_"),
        price_micro=micro_of(wish.price) if wish.HasField("price") else base.price_micro,
        managed_providers=tuple(dict.fromkeys((*base.managed_providers, *wish.managed_providers))),
        support_level=wish.support_level or base.support_level,
        features=tuple(dict.fromkeys((*base.features, *wish.features))),
        **wanted,
    )
