"""When the terms of a contract begin and end, and what they cost."""

from __future__ import annotations

import pytest

from services.billing.domain.entitlements import entitlement_of
from services.billing.domain.model import ChangeKind, SubscriptionState
from services.billing.domain.renewal import advance, final_end_us
from services.shared.errors import FlowStackError, Reason
from tests.support.clock import DAY_US, us
from tests.support.subscription_history import CATALOGUE, START_US, History, period_start, terms_of


def test_a_contract_of_a_lower_price_waits_for_the_period() -> None:
    history = History.begin("professional")
    changed = history.contract(offer_id="volume-10k")
    assert changed.change.kind is ChangeKind.DOWNGRADE
    assert history.subscription.terms.session_limit == 5000
    history.pass_to(us(2026, 2, 28, 12))
    assert history.subscription.terms.session_limit == 10000
    assert history.subscription.terms.contract_id
    with pytest.raises(FlowStackError) as refused:
        history.change("hobbyist")
    assert refused.value.reason is Reason.CONTRACT_IN_FORCE


def test_a_contract_of_a_higher_price_begins_at_its_moment() -> None:
    history = History.begin("starter")
    history.contract(offer_id="volume-10k", effective_us=START_US + 10 * DAY_US)
    history.pass_to(START_US + 10 * DAY_US - 1)
    assert history.subscription.terms.session_limit == 1000
    history.pass_to(START_US + 10 * DAY_US)
    assert history.subscription.terms.session_limit == 10000
    assert history.charged() == [("PERIOD_FEE", 50), ("UPGRADE", 49)]


def test_after_a_contract_the_plans_terms_hold_again() -> None:
    history = History.begin("professional")
    end_us = us(2026, 4, 10)
    history.contract(offer_id="volume-10k", end_us=end_us)
    history.pass_to(end_us - 1)
    assert history.subscription.contract is not None
    history.pass_to(end_us)
    # The plan's price is the higher one: it comes at its moment, and the difference is charged.
    assert history.subscription.terms == terms_of("professional")
    assert history.subscription.contract is None
    assert history.charged() == [("PERIOD_FEE", 200), ("PERIOD_FEE", 99), ("PERIOD_FEE", 99), ("UPGRADE", 101)]


def test_the_end_of_an_enterprise_contract_ends_the_subscription_with_its_period() -> None:
    history = History.begin("free")
    end_us = us(2026, 4, 10)
    history.contract(
        plan_id="enterprise", price_micro=900_000_000, max_concurrent_sessions=900, session_limit=30_000, end_us=end_us
    )
    assert history.subscription.anchor_us == START_US
    assert final_end_us(history.subscription) == us(2026, 4, 30, 12)
    assert entitlement_of(history.subscription, CATALOGUE, 1).end_us == us(2026, 4, 30, 12)
    history.pass_to(us(2026, 6, 1))
    assert history.subscription.state_at(history.now_us) is SubscriptionState.ENDED
    assert [amount for _, amount in history.charged()] == [900, 900, 900]


def test_a_contract_to_come_after_the_end_of_another_starts_anew() -> None:
    history = History.begin("free")
    enterprise = {"plan_id": "enterprise", "price_micro": 900_000_000, "max_concurrent_sessions": 900}
    history.contract(**enterprise, end_us=us(2026, 3, 10))
    history.contract(**enterprise, effective_us=us(2026, 5, 5))
    history.pass_to(us(2026, 4, 20))
    assert history.subscription.state_at(history.now_us) is SubscriptionState.ENDED
    history.pass_to(us(2026, 5, 5))
    assert history.subscription.state_at(history.now_us) is SubscriptionState.ACTIVE
    assert history.subscription.anchor_us == us(2026, 5, 5)


def test_a_contract_put_after_the_end_follows_the_prices_where_the_customer_comes_back_before() -> None:
    history = History.begin("starter")
    history.cancel()
    history.pass_to(START_US + 60 * DAY_US)
    contract = history.contract(offer_id="volume-10k", effective_us=history.now_us + 10 * DAY_US)
    assert contract.change.kind is ChangeKind.START
    history.change("starter")
    anchor_us = history.now_us
    history.pass_to(anchor_us + 10 * DAY_US)
    assert history.subscription.terms.session_limit == 10000
    # What is paid for the period is taken off, and the anchor stays.
    assert history.charged() == [("PERIOD_FEE", 50), ("PERIOD_FEE", 50), ("UPGRADE", 49)]
    assert history.subscription.anchor_us == anchor_us


def test_a_cheaper_contract_put_after_the_end_waits_for_the_period_of_who_comes_back_before() -> None:
    history = History.begin("starter")
    history.cancel()
    history.pass_to(START_US + 60 * DAY_US)
    history.contract(offer_id="volume-10k", effective_us=history.now_us + 10 * DAY_US)
    history.change("professional")
    boundary_us = history.subscription.billed_us
    history.pass_to(boundary_us - 1)
    assert history.subscription.terms.session_limit == 5000
    history.pass_to(boundary_us)
    assert history.subscription.terms.session_limit == 10000
    assert history.charged() == [("PERIOD_FEE", 50), ("PERIOD_FEE", 200), ("PERIOD_FEE", 99)]


def test_a_cancellation_that_a_new_subscription_comes_before_is_dropped() -> None:
    history = History.begin("free")
    contract = history.contract(offer_id="volume-10k", effective_us=history.now_us + 10 * DAY_US)
    cancellation = history.cancel()
    outcome = advance(history.subscription, history.now_us + 40 * DAY_US, history.seed.randbytes)
    assert outcome.applied == [contract.change.change_id]
    assert outcome.dropped == [cancellation.change.change_id]
    assert not outcome.subscription.end_us


def test_a_cheaper_contract_replaces_one_that_ends_before_the_next_period() -> None:
    history = History.begin("professional")
    end_us = history.now_us + 20 * DAY_US
    history.contract(plan_id="professional", price_micro=300_000_000, end_us=end_us)
    history.pass_to(history.now_us + DAY_US)
    history.contract(plan_id="starter", price_micro=40_000_000)
    history.pass_to(end_us + DAY_US)
    assert history.subscription.terms.price_micro == 300_000_000
    history.pass_to(history.subscription.billed_us)
    assert history.subscription.terms.price_micro == 40_000_000
    assert history.charged()[-1] == ("PERIOD_FEE", 40)


def test_a_cheaper_contract_replaces_a_discount_that_ends_before_the_next_period() -> None:
    history = History.begin("professional")
    history.contract(plan_id="professional", price_micro=100_000_000, effective_us=period_start(history, 1))
    history.pass_to(period_start(history, 1))
    end_us = history.now_us + 20 * DAY_US
    history.contract(plan_id="professional", price_micro=100_000_000, end_us=end_us)
    history.contract(plan_id="starter", price_micro=40_000_000)
    # Nobody is charged the plan's whole price for the days between.
    history.pass_to(history.subscription.billed_us)
    assert history.charged() == [("PERIOD_FEE", 200), ("PERIOD_FEE", 100), ("PERIOD_FEE", 40)]


def test_a_contract_that_would_end_before_it_could_begin_is_refused_by_name() -> None:
    history = History.begin("professional")
    with pytest.raises(FlowStackError) as refused:
        history.contract(plan_id="starter", price_micro=40_000_000, end_us=history.now_us + DAY_US)
    assert [violation.field for violation in refused.value.violations] == ["contract.end_time"]
    assert history.subscription.contract is None


def test_a_contract_that_has_not_begun_is_replaced_altogether() -> None:
    history = History.begin("starter")
    history.contract(offer_id="volume-10k", effective_us=us(2026, 5, 1), end_us=us(2026, 6, 1))
    second = history.contract(offer_id="volume-10k", effective_us=us(2026, 7, 1), session_limit=11_000)
    history.pass_to(us(2026, 6, 15))
    assert history.subscription.terms == terms_of("starter")
    history.pass_to(us(2026, 7, 2))
    assert history.subscription.terms.session_limit == 11_000
    assert history.subscription.contract is not None
    assert second.change.to_terms == history.subscription.terms


def test_a_downgrade_that_a_contract_overtakes_is_refused() -> None:
    history = History.begin("starter")
    history.contract(offer_id="volume-10k", effective_us=START_US + 10 * DAY_US)
    with pytest.raises(FlowStackError) as refused:
        history.change("hobbyist")
    assert refused.value.reason is Reason.CONTRACT_IN_FORCE


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"plan_id": "starter", "effective_us": START_US - 1}, "contract.effective_time"),
        ({"plan_id": "starter", "end_us": START_US}, "contract.end_time"),
        ({"plan_id": "enterprise", "max_concurrent_sessions": 5}, "contract.price"),
        ({"plan_id": "enterprise", "price_micro": 5}, "contract.max_concurrent_sessions"),
        ({"plan_id": "starter", "offer_id": "volume-10k"}, "contract.plan_id"),
    ],
)
def test_contracts_that_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(FlowStackError) as refused:
        History.begin("starter").contract(**fields)
    assert [violation.field for violation in refused.value.violations] == [named]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"plan_id": "gold"}, Reason.PLAN_NOT_FOUND),
        ({"plan_id": "starter", "plan_version": 9}, Reason.PLAN_NOT_FOUND),
        ({"offer_id": "volume-20k"}, Reason.OFFER_NOT_FOUND),
    ],
)
def test_contracts_on_nothing(fields: dict[str, object], reason: Reason) -> None:
    with pytest.raises(FlowStackError) as refused:
        History.begin("starter").contract(**fields)
    assert refused.value.reason is reason
