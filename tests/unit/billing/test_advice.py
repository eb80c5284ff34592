"""Advice and estimates, with the figures that they rest on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.domain.advice import Recommendation, RecommendationKind, Situation, recommendations
from services.billing.domain.estimates import Workload, estimates, seed_example_cost
from services.billing.domain.prices import ProviderCost
from tests.support.clock import us

CATALOGUE = load_catalogue()
NOW_US = us(2026, 11, 24)
M = 1_000_000
NO_COST = ProviderCost(0, 0)


def advice(
    plan_id: str, used: int, projected: int, byok: int = 0, cost: ProviderCost = NO_COST
) -> dict[RecommendationKind, Recommendation]:
    terms = CATALOGUE.newest(plan_id, NOW_US).terms()
    situation = Situation(terms, used, terms.session_limit, projected, used - byok, byok, cost)
    return {one.kind: one for one in recommendations(situation, CATALOGUE, NOW_US)}


def test_more_byok_than_managed_compares_with_managed() -> None:
    found = advice("starter", 600, 700, byok=400, cost=ProviderCost(60 * M, 0))
    one = found[RecommendationKind.COST_REDUCTION]
    # $60 for 600 sessions so far is $70 at the end, which the fee would include.
    assert (one.savings_micro, one.suggested_plan_id) == (70 * M, "")
    assert (one.managed_sessions, one.byok_sessions, one.byok_provider_cost_micro) == (200, 400, 60 * M)
    assert set(found) == {RecommendationKind.COST_REDUCTION}


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


def test_the_largest_saving_comes_first() -> None:
    terms = replace(CATALOGUE.newest("professional", NOW_US).terms())
    situation = Situation(terms, 100, 5_000, 120, 40, 60, ProviderCost(10 * M, 0))
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
