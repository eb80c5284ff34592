"""The catalogue that ships, and what a catalogue is refused for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.billing.adapters.catalogue_file import SHIPPED, load_catalogue
from services.billing.domain.catalogue import Catalogue, Plan
from services.shared.errors import FlowStackError
from services.shared.settings import StartupError
from tests.support.clock import us

NOW_US = us(2026, 3, 10)
SHIPPED_CATALOGUE = load_catalogue()


def shipped(plan_id: str) -> Plan:
    return SHIPPED_CATALOGUE.newest(plan_id, NOW_US)


def test_the_plans_are_those_that_are_sold() -> None:
    table = {
        plan.plan_id: (plan.price_micro, plan.session_limit, plan.max_concurrent_sessions, plan.managed_providers)
        for plan in SHIPPED_CATALOGUE.plans_at(NOW_US, include_retired=False)
    }
    assert table == {
        "free": (0, 25, 25, ()),
        "hobbyist": (15_000_000, 200, 50, ("bedrock",)),
        "starter": (50_000_000, 1_000, 100, ("bedrock",)),
        "professional": (200_000_000, 5_000, 500, ("bedrock",)),
        "enterprise": (None, 25_000, None, ("bedrock",)),
    }


def test_each_plan_names_the_next_one_up() -> None:
    path, plan_id = [], "free"
    while plan_id:
        path.append(plan_id)
        plan_id = shipped(plan_id).upgrade_plan_id
    assert path == ["free", "hobbyist", "starter", "professional", "enterprise"]


def test_caps_of_every_plan() -> None:
    plans = [shipped(plan_id) for plan_id in ("free", "hobbyist", "starter", "professional", "enterprise")]
    assert {plan.max_tool_rounds for plan in plans} == {25}
    caps = [plan.max_output_tokens for plan in plans]
    assert caps == sorted(caps)
    assert caps[0] > 0
    assert [plan.byok_required for plan in plans] == [True, False, False, False, False]
    assert shipped("professional").features == ("optimized_ai_pricing", "advanced_analytics")


def test_the_volume_offer() -> None:
    (offer,) = SHIPPED_CATALOGUE.offers
    assert (offer.offer_id, offer.price_micro, offer.session_limit) == ("volume-10k", 99_000_000, 10_000)


def test_a_contract_plan_gives_no_terms_by_itself() -> None:
    with pytest.raises(FlowStackError) as raised:
        shipped("enterprise").terms()
    assert raised.value.reason.value == "CONTRACT_REQUIRED"


def test_a_new_version_is_sold_from_its_time_and_the_old_one_stays_known() -> None:
    old = replace(shipped("free"), upgrade_plan_id="", retire_us=NOW_US)
    new = replace(old, version=2, session_limit=30, effective_us=NOW_US, retire_us=0)
    catalogue = Catalogue([old, new], [])
    assert catalogue.newest("free", NOW_US - 1) is old
    assert catalogue.newest("free", NOW_US) is new
    assert catalogue.plan("free", 1) is old
    assert catalogue.plans_at(NOW_US, include_retired=False) == [new]
    assert catalogue.plans_at(NOW_US, include_retired=True) == [new, old]


def test_an_unknown_or_retired_plan_is_not_found() -> None:
    retired = replace(shipped("free"), upgrade_plan_id="", retire_us=NOW_US)
    catalogue = Catalogue([retired], [])
    for ask in (
        lambda: catalogue.newest("free", NOW_US),
        lambda: catalogue.newest("gold", NOW_US),
        lambda: catalogue.plan("free", 2),
    ):
        with pytest.raises(FlowStackError) as raised:
            ask()
        assert raised.value.reason.value == "PLAN_NOT_FOUND"


FREE = replace(shipped("free"), upgrade_plan_id="")


@pytest.mark.parametrize(
    ("plans", "says"),
    [
        ([], "no plan free"),
        ([FREE, FREE], "twice"),
        ([FREE, replace(FREE, version=3)], "count up from 1"),
        ([replace(FREE, upgrade_plan_id="gold")], "no other plan"),
        ([replace(FREE, upgrade_plan_id="free")], "no other plan"),
        ([replace(FREE, price_micro=None)], "lacks its price"),
        ([replace(FREE, managed_providers=("bedrock",))], "includes some"),
    ],
)
def test_a_catalogue_that_contradicts_itself_is_refused(plans: list[Plan], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Catalogue(plans, [])


def test_an_offer_builds_on_a_known_plan() -> None:
    with pytest.raises(ValueError, match="volume-10k builds on professional version 1, unknown here"):
        Catalogue([FREE], SHIPPED_CATALOGUE.offers)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('plan_id = "free"', 'plan_id = "Free"'),
        ("session_limit = 25\n", "session_limit = -1\n"),
        ("session_limit = 25\n", 'session_limit = "25"\n'),
        ("byok_required = true", "byok_needed = true"),
        ('support_level = "community"', 'support_level = "none"'),
        ("effective_time = 2024-01-01T00:00:00Z", "effective_time = 2024-01-01T00:00:00"),
        ("[[plans]]", "[[plans"),
        ("version = 1", "version = 2"),
    ],
)
def test_a_file_that_is_no_catalogue_keeps_billing_from_starting(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "catalogue.toml"
    text = SHIPPED.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(StartupError, match="is not valid"):
        load_catalogue(path)


def test_a_missing_file_keeps_billing_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        load_catalogue(tmp_path / "none.toml")
