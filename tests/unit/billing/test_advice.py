"""Advice and estimates, with the figures that they rest on."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.domain.advice import Recommendation, RecommendationKind, Situation, recommendations
from services.billing.domain.estimates import Workload, estimates, seed_example_cost
from services.billing.domain.forecast_model import ForecastMethod
from services.billing.domain.model import Terms
from services.billing.domain.prices import ProviderCost
from tests.support.clock import us

CATALOGUE = load_catalogue()
NOW_US = us(2026, 11, 24)
M = 1_000_000
NO_COST = ProviderCost(0, 0)


def terms_of(plan_id: str) -> Terms:
    return CATALOGUE.newest(plan_id, NOW_US).terms()


def situation_of(
    plan_id: str,
    used: int,
    projected: int,
    byok: int = 0,
    cost: ProviderCost = NO_COST,
    *,
    high: int | None = None,
    method: ForecastMethod = ForecastMethod.DAILY_MEAN,
) -> Situation:
    terms = terms_of(plan_id)
    high = projected if high is None else high
    return Situation(terms, terms, used, terms.session_limit, projected, high, method, used - byok, byok, cost)


def told(situation: Situation) -> dict[RecommendationKind, Recommendation]:
    return {one.kind: one for one in recommendations(situation, CATALOGUE, NOW_US)}


def advice(
    plan_id: str, used: int, projected: int, byok: int = 0, cost: ProviderCost = NO_COST
) -> dict[RecommendationKind, Recommendation]:
    return told(situation_of(plan_id, used, projected, byok, cost))


def recomputed(one: Recommendation) -> int:
    """The saving, as anybody can work it out from the figures beside it."""
    assert one.current_price_micro is not None
    assert one.suggested_price_micro is not None
    saving = one.current_price_micro - one.suggested_price_micro
    if one.kind is RecommendationKind.COST_REDUCTION:
        assert one.byok_provider_cost_micro is not None
        assert one.projected_sessions is not None
        assert one.sessions_used is not None
        saving += round(Fraction(one.byok_provider_cost_micro * one.projected_sessions, one.sessions_used))
    return saving


def test_more_byok_than_managed_compares_with_managed() -> None:
    found = advice("starter", 600, 700, byok=400, cost=ProviderCost(60 * M, 0))
    one = found[RecommendationKind.COST_REDUCTION]
    # $60 for 600 sessions so far is $70 at the end, which the fee would include.
    assert (one.savings_micro, one.suggested_plan_id) == (70 * M, "")
    assert (one.managed_sessions, one.byok_sessions, one.byok_provider_cost_micro) == (200, 400, 60 * M)
    assert (one.sessions_used, one.sessions_limit, one.projected_sessions) == (600, 1_000, 700)
    assert (one.usage_percentage, one.projected_usage_percentage) == (60.0, 70.0)
    assert (one.current_price_micro, one.suggested_price_micro) == (50 * M, 50 * M)
    for figure in ("400 sessions", "200 on managed", "$60.00", "700", "$70.00", "on your plan"):
        assert figure in one.message
    assert set(found) == {RecommendationKind.COST_REDUCTION}


@pytest.mark.parametrize(
    ("plan_id", "used", "projected", "byok", "cost_micro"),
    [
        ("starter", 600, 700, 400, 60 * M),
        ("starter", 7, 999, 5, 1_234_567),
        ("starter", 20, 40, 20, 12_345),
        ("starter", 900, 3_000, 900, 90 * M),
        ("professional", 3_000, 3_500, 3_000, 5 * M),
        ("professional", 30, 170, 16, 33_333_333),
    ],
)
def test_anybody_can_work_the_saving_out(plan_id: str, used: int, projected: int, byok: int, cost_micro: int) -> None:
    found = advice(plan_id, used, projected, byok, ProviderCost(cost_micro, 0))
    assert RecommendationKind.COST_REDUCTION in found
    for one in found.values():
        assert one.savings_micro == recomputed(one)
        assert (one.sessions_used, one.projected_sessions) == (used, projected)
        assert one.sessions_limit is not None
        assert one.projected_sessions_high == projected


def test_where_no_plan_on_sale_allows_as_many_none_is_called_the_best() -> None:
    one = advice("starter", 900, 30_000, byok=900, cost=ProviderCost(90 * M, 0))[RecommendationKind.COST_REDUCTION]
    assert (one.suggested_plan_id, one.suggested_price_micro, one.suggested_sessions_limit) == ("", None, None)
    assert one.savings_micro is None
    assert "your plan" not in one.message
    assert "No plan on sale allows the 30,000 sessions" in one.message
    assert (one.sessions_used, one.sessions_limit, one.projected_sessions) == (900, 1_000, 30_000)


def test_an_unknown_cost_makes_the_saving_unknown() -> None:
    one = advice("professional", 3_000, 3_500, byok=3_000, cost=ProviderCost(5 * M, 1))[
        RecommendationKind.COST_REDUCTION
    ]
    assert (one.savings_micro, one.byok_provider_cost_micro) == (None, None)
    assert one.suggested_plan_id == "volume-10k"


@pytest.mark.parametrize(("plan_id", "byok"), [("hobbyist", 150), ("starter", 300)])
def test_no_comparison_elsewhere_or_with_as_many_managed(plan_id: str, byok: int) -> None:
    assert RecommendationKind.COST_REDUCTION not in advice(plan_id, 600 if plan_id == "starter" else 150, 0, byok)


@pytest.mark.parametrize(
    ("plan_id", "used", "projected", "suggested", "saving"),
    [
        ("professional", 150, 180, "hobbyist", 185),
        ("professional", 150, 900, "starter", 150),
        ("starter", 499, 600, None, 0),
        ("starter", 100, 150, "hobbyist", 35),
        ("starter", 500, 500, None, 0),
        ("free", 1, 2, None, 0),
    ],
)
def test_under_half_used(plan_id: str, used: int, projected: int, suggested: str | None, saving: int) -> None:
    one = advice(plan_id, used, projected).get(RecommendationKind.PLAN_OPTIMIZATION)
    if suggested is None:
        assert one is None
        return
    assert one is not None
    assert (one.suggested_plan_id, one.savings_micro) == (suggested, saving * M)
    assert (one.sessions_used, one.projected_sessions) == (used, projected)


def test_a_plan_without_managed_providers_would_not_fit_managed_sessions() -> None:
    assert RecommendationKind.PLAN_OPTIMIZATION not in advice("hobbyist", 20, 20)
    assert advice("hobbyist", 20, 20, byok=20)[RecommendationKind.PLAN_OPTIMIZATION].suggested_plan_id == "free"


@pytest.mark.parametrize(
    ("plan_id", "projected", "suggested"),
    [
        ("hobbyist", 160, None),
        ("hobbyist", 161, "starter"),
        ("starter", 3_000, "volume-10k"),
        ("professional", 9_000, "volume-10k"),
        ("professional", 50_000, ""),
    ],
)
def test_over_eighty_percent_projected(plan_id: str, projected: int, suggested: str | None) -> None:
    one = advice(plan_id, 100, projected).get(RecommendationKind.PLAN_UPGRADE)
    assert (None if one is None else one.suggested_plan_id) == suggested
    if one is not None and suggested:
        assert one.savings_micro is not None
        assert one.suggested_sessions_limit is not None
        assert one.suggested_sessions_limit >= projected


def test_a_period_that_has_just_begun_is_no_case_for_less() -> None:
    begun = situation_of("starter", 0, 0, method=ForecastMethod.SO_FAR, high=1_600)
    assert told(begun) == {}
    # Two sessions of one's own keys are no reason to go down either, only to look at managed ones.
    two = told(situation_of("starter", 2, 2, 2, ProviderCost(M, 0), method=ForecastMethod.SO_FAR, high=1_600))
    assert set(two) == {RecommendationKind.COST_REDUCTION}
    assert two[RecommendationKind.COST_REDUCTION].suggested_plan_id == ""
    # A cheaper one that allows more than the plan in force is none that could be too small.
    more = told(situation_of("professional", 2, 2, 2, ProviderCost(M, 0), method=ForecastMethod.SO_FAR, high=9_000))
    assert more[RecommendationKind.COST_REDUCTION].suggested_plan_id == "volume-10k"


@pytest.mark.parametrize(("high", "suggested"), [(200, "hobbyist"), (201, None)])
def test_a_smaller_plan_fits_only_with_the_high_end_of_the_forecast(high: int, suggested: str | None) -> None:
    found = told(situation_of("starter", 60, 120, high=high))
    one = found.get(RecommendationKind.PLAN_OPTIMIZATION)
    assert (None if one is None else one.suggested_plan_id) == suggested
    if one is not None:
        assert one.projected_sessions_high == high
        assert f"{high:,} at most" in one.message
    byok = told(situation_of("starter", 60, 120, 60, ProviderCost(M, 0), high=high))
    assert byok[RecommendationKind.COST_REDUCTION].suggested_plan_id == (suggested or "")


def test_what_is_decided_for_the_next_period_needs_no_advice() -> None:
    little = situation_of("professional", 150, 180, 100, ProviderCost(M, 0))
    assert set(told(little)) == {RecommendationKind.COST_REDUCTION, RecommendationKind.PLAN_OPTIMIZATION}
    going_down = told(replace(little, next_terms=terms_of("starter")))
    assert set(going_down) == {RecommendationKind.COST_REDUCTION}, "managed sessions are to be had at once"
    assert told(replace(little, next_terms=None)) == {}, "there is no next month to save anything in"


@pytest.mark.parametrize(("next_plan", "pending"), [("starter", "downgrade"), (None, "cancellation")])
def test_an_upgrade_drops_what_waits_and_says_so(next_plan: str | None, pending: str) -> None:
    full = situation_of("professional", 4_000, 4_900)
    upgrade = told(full)[RecommendationKind.PLAN_UPGRADE]
    assert "drops" not in upgrade.message
    next_terms = None if next_plan is None else terms_of(next_plan)
    one = told(replace(full, next_terms=next_terms, pending=pending))[RecommendationKind.PLAN_UPGRADE]
    assert f"It drops the {pending}" in one.message


def test_the_largest_saving_comes_first() -> None:
    situation = situation_of("professional", 100, 120, 60, ProviderCost(10 * M, 0))
    found = recommendations(situation, CATALOGUE, NOW_US)
    savings = [one.savings_micro or 0 for one in found]
    assert len(found) == 2
    assert savings == sorted(savings, reverse=True)


@pytest.mark.parametrize(
    ("sessions", "model", "tokens", "low", "high"),
    [
        (1_000, "gpt-4", 7_500, 75_000_000, 75_000_000),
        (1_000, "gpt-3.5", 7_500, 15_000_000, 15_000_000),
        # The page's "~$0.002 per 1K tokens".
        (1, "gpt-3.5-turbo", 1_000, 2_000, 2_000),
        (10_000, "anything", 7_500, 300_000_000, 800_000_000),
        # $300 and $800 for 75,000,000 tokens, rounded once, at the end.
        (10_000, "anything", 1, 40_000, 106_667),
        (20_000, "anything", 7_500, 600_000_000, 1_600_000_000),
    ],
)
def test_costs_of_the_published_comparison_are_exact(
    sessions: int, model: str, tokens: int, low: int, high: int
) -> None:
    for outputs in (0, tokens // 4, tokens):
        assert seed_example_cost(Workload(sessions, "openai", model, tokens, outputs)) == (low, high)


def test_what_the_published_comparison_does_not_say_is_unknown() -> None:
    cost = seed_example_cost(Workload(1_000, "openai", "gpt-5", 7_500, 0))
    found = estimates(CATALOGUE, NOW_US, 1_000, cost)
    assert [one.total.low_micro is None for one in found] == sorted(one.total.low_micro is None for one in found)
    assert any(one.total.low_micro is None for one in found)
    assert all(one.session_limit >= 1_000 for one in found)
