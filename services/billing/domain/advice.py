"""What would cost less, or fit better, with the figures that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.forecast import projected_cost_micro
from services.billing.domain.model import Terms
from services.billing.domain.prices import ProviderCost
from services.billing.domain.usage import is_near_limit, percentage

BYOK_PLANS: Final = ("starter", "professional")
"""Where more BYOK than managed sessions are a reason to compare."""

LOW_PERCENT: Final = 50


class RecommendationKind(IntEnum):
    """What a recommendation is about. The numbers are the contract's."""

    COST_REDUCTION = 1
    PLAN_OPTIMIZATION = 2
    PLAN_UPGRADE = 3


@dataclass(frozen=True, slots=True)
class Situation:
    """What advice is made of. Sessions are those of the current period."""

    terms: Terms
    used: int
    limit: int
    projected: int
    managed: int
    byok: int
    provider_cost: ProviderCost


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A piece of advice. Figures that it does not rest on are None; money is micro-dollars for a month."""

    kind: RecommendationKind
    message: str
    current_plan_id: str
    suggested_plan_id: str
    savings_micro: int | None
    """Negative where it would cost more; None where a cost in it is unknown."""
    current_price_micro: int | None = None
    suggested_price_micro: int | None = None
    sessions_used: int | None = None
    sessions_limit: int | None = None
    suggested_sessions_limit: int | None = None
    usage_percentage: float | None = None
    projected_sessions: int | None = None
    projected_usage_percentage: float | None = None
    managed_sessions: int | None = None
    byok_sessions: int | None = None
    byok_provider_cost_micro: int | None = None


class _Choice(NamedTuple):
    """A plan, or an offer that anybody may ask for."""

    price_micro: int
    name: str
    """The plan's id, or the offer's."""
    limit: int
    has_managed: bool


def recommendations(situation: Situation, catalogue: Catalogue, now_us: int) -> list[Recommendation]:
    """What to do, the largest saving first, those of unknown saving last."""
    choices = sorted(_choices(catalogue, now_us))
    found = [*_credentials(situation, choices), *_smaller(situation, choices), *_larger(situation, choices)]
    return sorted(found, key=lambda one: (one.savings_micro is None, -(one.savings_micro or 0), one.kind))


def _choices(catalogue: Catalogue, now_us: int) -> Iterator[_Choice]:
    for plan in catalogue.plans_at(now_us, include_retired=False):
        if plan.price_micro is not None and not plan.contact_sales:
            yield _Choice(plan.price_micro, plan.plan_id, plan.session_limit, bool(plan.managed_providers))
    for offer in catalogue.offers:
        yield _Choice(offer.price_micro, offer.offer_id, offer.session_limit, bool(offer.managed_providers))


def _credentials(situation: Situation, choices: list[_Choice]) -> Iterator[Recommendation]:
    """More BYOK than managed sessions: what the same sessions would cost managed, on the cheapest plan that holds them.

    The saving is this month's fee with the projected provider cost against that plan's fee.
    """
    terms, cost = situation.terms, situation.provider_cost
    if terms.plan_id not in BYOK_PLANS or situation.byok <= situation.managed:
        return
    # The plan in force holds what it allows, at the price that was agreed.
    needed = max(situation.used, situation.projected)
    own = _Choice(terms.price_micro, terms.plan_id, situation.limit, bool(terms.managed_providers))
    fitting = [choice for choice in (own, *choices) if choice.has_managed and choice.limit >= needed]
    best = min(fitting, key=lambda choice: choice.price_micro) if fitting else None
    savings = None
    if best is not None and not cost.unpriced_sessions:
        provider_micro = projected_cost_micro(
            cost.known_micro, situation.used, max(situation.projected, situation.used)
        )
        savings = terms.price_micro + provider_micro - best.price_micro
    here = best is not None and best.name == terms.plan_id
    where = f"on {best.name}" if best is not None and not here else "on your plan"
    yield Recommendation(
        RecommendationKind.COST_REDUCTION,
        f"{situation.byok:,} sessions ran on your own provider credentials, {situation.managed:,} on managed ones. "
        f"Compare with managed providers {where}, whose fee includes the provider's charges.",
        terms.plan_id,
        "" if best is None or here else best.name,
        savings,
        terms.price_micro,
        best.price_micro if best is not None else None,
        suggested_sessions_limit=best.limit if best is not None else None,
        managed_sessions=situation.managed,
        byok_sessions=situation.byok,
        byok_provider_cost_micro=None if cost.unpriced_sessions else cost.known_micro,
    )


def _smaller(situation: Situation, choices: list[_Choice]) -> Iterator[Recommendation]:
    """Under half used on a paid plan: the cheaper one that would have fitted, by what will be used, not only was."""
    terms = situation.terms
    if not terms.price_micro or not situation.limit or situation.used * 100 >= situation.limit * LOW_PERCENT:
        return
    needed = max(situation.used, situation.projected)
    fitting = [
        choice
        for choice in choices
        if choice.price_micro < terms.price_micro
        and choice.limit >= needed
        and (choice.has_managed or not situation.managed)
    ]
    if not fitting:
        return
    best = fitting[0]
    share = percentage(situation.used, situation.limit)
    yield Recommendation(
        RecommendationKind.PLAN_OPTIMIZATION,
        f"You use {share:.1f} % of your sessions, and {needed:,} are projected. {best.name} allows {best.limit:,} and "
        "would have fitted. A downgrade applies from the next period on.",
        terms.plan_id,
        best.name,
        terms.price_micro - best.price_micro,
        terms.price_micro,
        best.price_micro,
        situation.used,
        situation.limit,
        best.limit,
        share,
        situation.projected,
    )


def _larger(situation: Situation, choices: list[_Choice]) -> Iterator[Recommendation]:
    """Over 80 % projected: the cheapest plan that allows more and would not be near its limit, or the largest."""
    terms, projected = situation.terms, situation.projected
    if not is_near_limit(projected, situation.limit) or projected * 100 == situation.limit * 80:
        return
    larger = [choice for choice in choices if choice.limit > situation.limit and choice.limit >= projected]
    roomy = [choice for choice in larger if not is_near_limit(projected, choice.limit)]
    best = next(iter(roomy or larger), None)
    share = percentage(projected, situation.limit)
    advice = f"{best.name} allows {best.limit:,}" if best else "No plan on sale allows more: ask for a contract"
    yield Recommendation(
        RecommendationKind.PLAN_UPGRADE,
        f"{projected:,} sessions are projected for this period, {share:.1f} % of your limit. {advice}.",
        terms.plan_id,
        best.name if best else "",
        terms.price_micro - best.price_micro if best else None,
        terms.price_micro,
        best.price_micro if best else None,
        situation.used,
        situation.limit,
        best.limit if best else None,
        percentage(situation.used, situation.limit),
        projected,
        share,
    )
