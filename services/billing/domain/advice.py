"""What would cost less, or fit better, with the figures that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import IntEnum
from typing import Final, NamedTuple

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.forecast import projected_cost_micro
from services.billing.domain.forecast_model import ForecastMethod
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
    next_terms: Terms | None
    """What holds from the next period on, as far as it is decided; None where the subscription ends before."""
    used: int
    limit: int
    projected: int
    high: int
    """The high end of the projection's range."""
    method: ForecastMethod
    managed: int
    byok: int
    provider_cost: ProviderCost
    pending: str = ""
    """The `downgrade` or `cancellation` that waits and that an upgrade would drop; empty for none."""

    @property
    def needed(self) -> int:
        """Sessions that the period will most likely take."""
        return max(self.used, self.projected)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A piece of advice. Figures that it does not rest on are None; money is micro-dollars for a month."""

    kind: RecommendationKind
    message: str
    current_plan_id: str
    suggested_plan_id: str
    savings_micro: int | None
    """Negative where it would cost more; None where a cost in it is unknown."""
    current_price_micro: int
    suggested_price_micro: int | None
    sessions_used: int
    sessions_limit: int
    suggested_sessions_limit: int | None
    usage_percentage: float
    projected_sessions: int
    projected_sessions_high: int
    projected_usage_percentage: float
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
    if terms.plan_id not in BYOK_PLANS or situation.byok <= situation.managed or situation.next_terms is None:
        return
    # The plan in force holds what it allows, at the price that was agreed.
    own = _Choice(terms.price_micro, terms.plan_id, situation.limit, bool(terms.managed_providers))
    fitting = [choice for choice in (own, *choices) if choice.has_managed and _holds(choice, situation)]
    best = min(fitting, key=lambda choice: choice.price_micro, default=None)
    known = None if cost.unpriced_sessions else cost.known_micro
    projected_micro = None if known is None else projected_cost_micro(known, situation.used, situation.needed)
    advice = _recommendation(
        RecommendationKind.COST_REDUCTION,
        f"{situation.byok:,} sessions ran on your own provider credentials, {situation.managed:,} on managed ones. "
        f"{_charged(situation, projected_micro)} {_managed_place(situation, best)}, whose fee includes that.",
        situation,
        best,
        extra_micro=projected_micro,
    )
    yield replace(
        advice,
        suggested_plan_id="" if best is not None and best.name == own.name else advice.suggested_plan_id,
        managed_sessions=situation.managed,
        byok_sessions=situation.byok,
        byok_provider_cost_micro=known,
    )


def _charged(situation: Situation, projected_micro: int | None) -> str:
    cost = situation.provider_cost
    if projected_micro is None:
        return f"What providers charged is not known of {cost.unpriced_sessions:,} of them."
    return (
        f"Providers charged {_dollars(cost.known_micro)} for them, and will have charged {_dollars(projected_micro)} "
        f"by the period's end: {situation.used:,} sessions have run, {situation.needed:,} are projected."
    )


def _managed_place(situation: Situation, best: _Choice | None) -> str:
    if best is None:
        return f"No plan on sale allows the {situation.needed:,} sessions that are projected: ask for a contract"
    if best.name == situation.terms.plan_id:
        return "Compare with managed providers on your plan"
    return f"Compare with managed providers on {best.name} at {_dollars(best.price_micro)}"


def _holds(choice: _Choice, situation: Situation) -> bool:
    """Whether a plan allows what the period takes: a smaller one than now also if more come than is most likely.

    A period's first day says nothing of that, so that nothing smaller holds then.
    """
    if choice.limit >= situation.limit:
        return choice.limit >= situation.needed
    return situation.method is not ForecastMethod.SO_FAR and choice.limit >= max(situation.needed, situation.high)


def _smaller(situation: Situation, choices: list[_Choice]) -> Iterator[Recommendation]:
    """Under half used on a paid plan: the cheaper one that would have fitted, by what will be used, not only was.

    None where other terms wait for the next period already, or none do: what is advised is for that one. None either
    in a period's first day, when every plan is used little.
    """
    terms = situation.terms
    if situation.next_terms != terms or situation.method is ForecastMethod.SO_FAR:
        return
    if not terms.price_micro or not situation.limit or situation.used * 100 >= situation.limit * LOW_PERCENT:
        return
    fitting = [
        choice
        for choice in choices
        if choice.price_micro < terms.price_micro
        and _holds(choice, situation)
        and (choice.has_managed or not situation.managed)
    ]
    if not fitting:
        return
    best = fitting[0]
    share = percentage(situation.used, situation.limit)
    yield _recommendation(
        RecommendationKind.PLAN_OPTIMIZATION,
        f"You use {share:.1f} % of your sessions, and {situation.needed:,} are projected, {situation.high:,} at most. "
        f"{best.name} allows {best.limit:,} and would have fitted. A downgrade applies from the next period on.",
        situation,
        best,
    )


def _larger(situation: Situation, choices: list[_Choice]) -> Iterator[Recommendation]:
    """Over 80 % projected: the cheapest plan that allows more and would not be near its limit, or the largest."""
    projected = situation.projected
    if not is_near_limit(projected, situation.limit) or projected * 100 == situation.limit * 80:
        return
    larger = [choice for choice in choices if choice.limit > situation.limit and choice.limit >= projected]
    roomy = [choice for choice in larger if not is_near_limit(projected, choice.limit)]
    best = next(iter(roomy or larger), None)
    advice = f"{best.name} allows {best.limit:,}" if best else "No plan on sale allows more: ask for a contract"
    drops = f" It drops the {situation.pending} that waits for the period's end." if situation.pending else ""
    yield _recommendation(
        RecommendationKind.PLAN_UPGRADE,
        f"{projected:,} sessions are projected for this period, {percentage(projected, situation.limit):.1f} % of your "
        f"limit. {advice}.{drops}",
        situation,
        best,
    )


def _recommendation(
    kind: RecommendationKind, message: str, situation: Situation, best: _Choice | None, extra_micro: int | None = 0
) -> Recommendation:
    """Advice with the period's figures.

    Args:
        kind: what it is about.
        message: for people.
        situation: what it rests on.
        best: what is suggested; None where nothing on sale fits.
        extra_micro: what would be saved beside the difference of the fees; None where that is not known.
    """
    price_micro = situation.terms.price_micro
    saving = None
    if best is not None and extra_micro is not None:
        saving = price_micro + extra_micro - best.price_micro
    return Recommendation(
        kind,
        message,
        situation.terms.plan_id,
        best.name if best else "",
        saving,
        price_micro,
        best.price_micro if best else None,
        situation.used,
        situation.limit,
        best.limit if best else None,
        percentage(situation.used, situation.limit),
        situation.needed,
        max(situation.needed, situation.high),
        percentage(situation.needed, situation.limit),
    )


def _dollars(micro: int) -> str:
    return f"${Decimal(micro) / 1_000_000:,.2f}"
