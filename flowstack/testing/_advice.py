"""What an account could do about its costs, by the rules that the real advice follows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from flowstack.testing._plans import PLANS, Plan, money
from flowstack.testing._terms import Terms

PROJECTED_PERCENT = 80
LITTLE_PERCENT = 50


def recommendations(terms: Terms, usage: pb.Usage, projected: int) -> list[pb.Recommendation]:
    """The advice for a period, each with the figures that it rests on."""
    return list(_all(terms, usage, projected))


def _all(terms: Terms, usage: pb.Usage, projected: int) -> Iterator[pb.Recommendation]:
    limit = terms.session_limit
    if terms.plan_id in ("starter", "professional") and usage.byok_sessions > usage.managed_sessions:
        yield pb.Recommendation(
            kind=pb.RECOMMENDATION_KIND_COST_REDUCTION,
            message=f"{usage.byok_sessions} sessions ran on your own credentials and {usage.managed_sessions} on "
            "managed ones, which the plan includes. Compare what the plans cost.",
            current_plan_id=terms.plan_id,
            managed_sessions=usage.managed_sessions,
            byok_sessions=usage.byok_sessions,
        )
    if terms.price_micro and projected * 100 < limit * LITTLE_PERCENT:
        cheaper = [one for one in _sold() if one.price < terms.price_micro and one.session_limit >= projected]
        if cheaper:
            yield _plan_advice(
                pb.RECOMMENDATION_KIND_PLAN_OPTIMIZATION,
                f"{usage.sessions_used} of {limit} sessions are used; {cheaper[0].display_name} would fit.",
                terms,
                other=cheaper[0],
                usage=usage,
                projected=projected,
            )
    if projected * 100 > limit * PROJECTED_PERCENT and terms.upgrade_plan_id:
        larger = PLANS[terms.upgrade_plan_id]
        yield _plan_advice(
            pb.RECOMMENDATION_KIND_PLAN_UPGRADE,
            f"{projected} of {limit} sessions are projected; {larger.display_name} has {larger.session_limit}.",
            terms,
            other=larger,
            usage=usage,
            projected=projected,
        )


def _sold() -> list[Plan]:
    return [plan for plan in PLANS.values() if plan.price_micro is not None]


def _plan_advice(
    kind: pb.RecommendationKind.ValueType, message: str, terms: Terms, *, other: Plan, usage: pb.Usage, projected: int
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
        projected_sessions=projected,
        projected_usage_percentage=100 * projected / terms.session_limit,
    )
