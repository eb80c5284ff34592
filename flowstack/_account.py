"""The plan in force and the models that there are, as plain dicts."""

from __future__ import annotations

from typing import Any, Final

from flowstack_protos.billing.v1 import plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb
from flowstack_protos.type.v1 import type_pb2

from flowstack._client import Call, Steps
from flowstack._methods import SubscriptionService, UsageService
from flowstack._values import dollars, time_of, word

_COSTS: Final = ("provider_cost", "provider_cost_high", "total", "total_high")


def tier_info() -> Steps[dict[str, Any]]:
    """The plan in force.

    current_tier (str), can_use_managed and byok_required (bool), managed_providers (list), sessions_limit and
    max_concurrent_sessions (int), price (dollars a month), support (str), features (list), period_start and period_end
    (datetime, UTC), state (`active`, `cancelling`, `ended`), pending_tier (str, or None).
    """
    response: pb.GetSubscriptionResponse = yield Call(SubscriptionService.GetSubscription, pb.GetSubscriptionRequest())
    subscription, terms = response.subscription, response.subscription.terms
    pending = subscription.pending_change.to_terms.plan_id if subscription.HasField("pending_change") else ""
    return {
        "current_tier": subscription.plan_id,
        "can_use_managed": bool(terms.managed_providers),
        "byok_required": response.plan.byok_requirement == plan_pb2.BYOK_REQUIREMENT_REQUIRED,
        "managed_providers": list(terms.managed_providers),
        "sessions_limit": terms.session_limit,
        "max_concurrent_sessions": terms.max_concurrent_sessions,
        "price": dollars(terms.price),
        "support": word(plan_pb2.SupportLevel, terms.support_level, "SUPPORT_LEVEL_"),
        "features": list(terms.features),
        "period_start": time_of(subscription.period_start_time),
        "period_end": time_of(subscription.period_end_time),
        "state": word(pb.SubscriptionState, subscription.state, "SUBSCRIPTION_STATE_"),
        "pending_tier": pending or None,
    }


def plans() -> Steps[list[Any]]:
    """Every plan on sale, by price."""
    found: list[Any] = []
    token = ""
    while True:
        page: pb.ListPlansResponse = yield Call(SubscriptionService.ListPlans, pb.ListPlansRequest(page_token=token))
        found.extend(page.plans)
        token = page.next_page_token
        if not token:
            return found


def model_info(model: Any) -> dict[str, Any]:
    """A model that may be asked for."""
    return {
        "provider": model.provider,
        "model": model.model,
        "aliases": list(model.aliases),
        "context_tokens": model.context_tokens if model.HasField("context_tokens") else None,
        "managed": model.managed_available,
        "byok": model.byok_available,
    }


def cost_estimates(
    sessions: int, provider: str, model: str, *, input_tokens: int, output_tokens: int, price_table: str
) -> Steps[list[dict[str, Any]]]:
    """What sessions would cost a month, on each plan and offer that allows as many, cheapest first.

    plan and offer (str, offer empty for the plan as such), sessions_limit (int), managed (bool, on operators' keys),
    model (str, the one that would run), fee (dollars a month), provider_cost and total with provider_cost_high and
    total_high (dollars, equal where there is one price; None where the price is not known).
    """
    request = usage_pb.EstimateCostRequest(
        sessions_per_month=sessions,
        provider=provider,
        model=model,
        tokens_per_session=input_tokens + output_tokens,
        output_tokens_per_session=output_tokens,
        price_table=price_table,
    )
    response: usage_pb.EstimateCostResponse = yield Call(UsageService.EstimateCost, request)
    return [
        {
            "plan": one.plan_id,
            "offer": one.offer_id,
            "sessions_limit": one.session_limit,
            "managed": one.credential_mode == type_pb2.CREDENTIAL_MODE_MANAGED,
            "model": response.served_model,
            "fee": dollars(one.platform_fee),
            **{name: dollars(getattr(one, name)) if one.HasField(name) else None for name in _COSTS},
        }
        for one in response.estimates
    ]
