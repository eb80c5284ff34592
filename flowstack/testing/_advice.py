"""What an account could do about its costs, by the rules that the real advice follows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from flowstack.testing._plans import PLANS, Plan, money
from flowstack.testing._subscriptions import Subscription
from flowstack.testing._terms import Terms

PROJECTED_PERCENT = 80
LITTLE_PERCENT = 50


def recommendations(
    subscription: Subscription, usage: pb.Usage, forecast: pb.Forecast, provider_cost_micro: int
) -> list[pb.Recommendation]:
    """The advice for a period, each with the figures that it rests on; none once the subscription has ended."""
    if usage.refusal_reason == "SUBSCRIPTION_ENDED":
        return []
    return list(_all(subscription, usage, forecast, provider_cost_micro))


def projected_micro(cost_micro: int, sessions: int, projected_sessions: int) -> int:
    """What a period's sessions cost at its end, in proportion to their number, rounded half up."""
    return (2 * cost_micro * projected_sessions + sessions) // (2 * sessions) if sessions else cost_micro


def _all(
    subscription: Subscription, usage: pb.Usage, forecast: pb.Forecast, provider_cost_micro: int
) -> Iterator[pb.Recommendation]:
    terms, projected = subscription.terms, forecast.projected_sessions
    limit = terms.session_limit
    goes_on = not subscription.end_us
    known = None if usage.unpriced_sessions else provider_cost_micro
    if goes_on and terms.plan_id in ("starter", "professional") and usage.byok_sessions > usage.managed_sessions:
        yield pb.Recommendation(
            kind=pb.RECOMMENDATION_KIND_COST_REDUCTION,
            message=f"{usage.byok_sessions} sessions ran on your own credentials and {usage.managed_sessions} on "
            "managed ones, which the plan includes. Compare what the plans cost.",
            current_plan_id=terms.plan_id,
            current_price=money(terms.price_micro),
            suggested_price=money(terms.price_micro),
            sessions_used=usage.sessions_used,
            sessions_limit=limit,
            suggested_sessions_limit=limit,
            usage_percentage=usage.usage_percentage,
            projected_sessions=projected,
            projected_sessions_high=forecast.projected_sessions_high,
            projected_usage_percentage=forecast.projected_usage_percentage,
            managed_sessions=usage.managed_sessions,
            byok_sessions=usage.byok_sessions,
            byok_provider_cost=None if known is None else money(known),
            potential_savings=None if known is None else money(projected_micro(known, usage.sessions_used, projected)),
        )
    # A first day says nothing of a month, and a change that waits has decided the next one.
    is_open = goes_on and forecast.method != pb.FORECAST_METHOD_SO_FAR and not subscription.pending_change_id
    if terms.price_micro and projected * 100 < limit * LITTLE_PERCENT and is_open:
        needed = forecast.projected_sessions_high
        cheaper = [one for one in _sold() if one.price < terms.price_micro and one.session_limit >= needed]
        if cheaper:
            yield _plan_advice(
                pb.RECOMMENDATION_KIND_PLAN_OPTIMIZATION,
                f"{usage.sessions_used} of {limit} sessions are used; {cheaper[0].display_name} would fit.",
                terms,
                other=cheaper[0],
                usage=usage,
                forecast=forecast,
            )
    if projected * 100 > limit * PROJECTED_PERCENT and terms.upgrade_plan_id:
        larger = PLANS[terms.upgrade_plan_id]
        yield _plan_advice(
            pb.RECOMMENDATION_KIND_PLAN_UPGRADE,
            f"{projected} of {limit} sessions are projected; {larger.display_name} has {larger.session_limit}.",
            terms,
            other=larger,
            usage=usage,
            forecast=forecast,
        )


def _sold() -> list[Plan]:
    return [plan for plan in PLANS.values() if plan.price_micro is not None]


def _plan_advice(
    kind: pb.RecommendationKind.ValueType,
    message: str,
    terms: Terms,
    *,
    other: Plan,
    usage: pb.Usage,
    forecast: pb.Forecast,
) -> pb.Recommendation:
    return pb.Recommendation(
        kind=kind,
        message=message,
        current_plan_id=terms.plan_id,
        suggested_plan_id=other.plan_id,
        potential_savings=money(terms.price_micro - other.price) if other.price < terms.price_micro else None,
        current_price=money(terms.price_micro),
        suggested_price=None if other.price_micro is None else money(other.price),
        sessions_used=usage.sessions_used,
        sessions_limit=terms.session_limit,
        suggested_sessions_limit=other.session_limit,
        usage_percentage=usage.usage_percentage,
        projected_sessions=forecast.projected_sessions,
        projected_sessions_high=forecast.projected_sessions_high,
        projected_usage_percentage=forecast.projected_usage_percentage,
    )
