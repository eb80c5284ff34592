"""Any history of changes: what is charged adds up, terms are what was foretold, and lateness changes nothing."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.changes import end_now
from services.billing.domain.entitlements import entitlement_of
from services.billing.domain.model import ChangeKind, ChangeState, SubscriptionState
from services.billing.domain.renewal import Charge, ChargeKind, next_step_us
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import period_at
from tests.support.clock import DAY_US, HOUR_US, us
from tests.support.subscription_history import CATALOGUE, START_US, History, period_start

PLANS = ("free", "hobbyist", "starter", "professional")


def test_an_upgrade_is_at_once_and_costs_the_full_difference() -> None:
    history = History.begin("hobbyist")
    anchor_us = history.subscription.anchor_us
    history.pass_to(START_US + 20 * DAY_US)
    changed = history.change("professional")
    assert (changed.change.kind, changed.change.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    assert changed.change.amount_micro == 185_000_000
    assert history.subscription.terms.session_limit == 5000
    assert history.subscription.anchor_us == anchor_us
    history.pass_to(period_start(history, 2))
    assert history.charged() == [("PERIOD_FEE", 15), ("UPGRADE", 185), ("PERIOD_FEE", 200), ("PERIOD_FEE", 200)]


def test_a_downgrade_waits_for_the_period_and_credits_nothing() -> None:
    history = History.begin("professional")
    history.pass_to(START_US + DAY_US)
    changed = history.change("starter")
    assert (changed.change.kind, changed.change.state) == (ChangeKind.DOWNGRADE, ChangeState.PENDING)
    assert changed.change.effective_us == us(2026, 2, 28, 12)
    assert history.subscription.pending_change_id == changed.change.change_id
    history.pass_to(us(2026, 2, 28, 12) - 1)
    assert history.subscription.terms.plan_id == "professional"
    history.pass_to(us(2026, 2, 28, 12))
    assert history.subscription.terms.plan_id == "starter"
    assert not history.subscription.pending_change_id
    assert history.charged() == [("PERIOD_FEE", 200), ("PERIOD_FEE", 50)]


def test_an_upgrade_drops_what_is_pending() -> None:
    history = History.begin("starter")
    down = history.change("hobbyist")
    up = history.change("professional")
    assert up.outcome.dropped == [down.change.change_id]
    history.cancel()
    assert history.subscription.end_us
    again = history.change("starter")
    assert again.change.state is ChangeState.PENDING
    assert history.subscription.end_us == 0


def test_the_plan_in_force_changes_nothing_but_drops_what_is_pending() -> None:
    history = History.begin("starter")
    nothing = history.change("starter")
    assert (nothing.change.kind, nothing.is_new) == (ChangeKind.NONE, False)
    history.cancel()
    dropped = history.change("starter")
    assert (dropped.change.kind, dropped.is_new) == (ChangeKind.NONE, True)
    assert history.subscription.state_at(history.now_us) is SubscriptionState.ACTIVE


def test_a_first_paid_plan_has_its_own_anchor() -> None:
    history = History.begin("free")
    history.pass_to(START_US + 3 * DAY_US)
    changed = history.change("starter")
    assert changed.change.kind is ChangeKind.START
    (free,) = history.retired
    assert free.end_us == history.subscription.anchor_us == START_US + 3 * DAY_US
    assert changed.change.subscription_id == history.subscription.subscription_id != free.subscription_id
    assert history.charged() == [("PERIOD_FEE", 50)]


def test_an_etag_never_comes_again_on_another_subscription() -> None:
    history = History.begin("free")
    etags = [history.subscription.etag]
    history.change("starter")
    etags.append(history.subscription.etag)
    history.cancel()
    etags.append(history.subscription.etag)
    history.pass_to(START_US + 90 * DAY_US)
    history.change("hobbyist")
    etags.append(history.subscription.etag)
    assert len(set(etags)) == 4


def test_a_change_after_the_end_starts_anew() -> None:
    history = History.begin("starter")
    history.cancel()
    history.pass_to(START_US + 90 * DAY_US)
    assert history.subscription.state_at(history.now_us) is SubscriptionState.ENDED
    with pytest.raises(FlowStackError, match="ended"):
        history.cancel()
    changed = history.change("hobbyist")
    assert changed.change.kind is ChangeKind.START
    assert history.subscription.anchor_us == history.now_us
    assert history.charged() == [("PERIOD_FEE", 50), ("PERIOD_FEE", 15)]


def test_a_cancellation_can_be_reverted_until_the_end() -> None:
    history = History.begin("starter")
    history.cancel()
    history.pass_to(us(2026, 2, 28, 12) - 1)
    history.revert()
    with pytest.raises(FlowStackError) as nothing:
        history.revert()
    assert nothing.value.reason is Reason.NO_PENDING_CHANGE
    history.pass_to(us(2026, 2, 28, 12))
    assert history.charged() == [("PERIOD_FEE", 50), ("PERIOD_FEE", 50)]


def test_an_account_that_is_deleted_after_the_end_drops_what_was_to_come() -> None:
    history = History.begin("starter")
    history.cancel()
    history.pass_to(START_US + 60 * DAY_US)
    contract = history.contract(offer_id="volume-10k", effective_us=history.now_us + 10 * DAY_US)
    ended = end_now(history.subscription, history.now_us, history.seed.randbytes)
    assert ended.outcome.dropped == [contract.change.change_id]
    assert not ended.is_new


MOVES = st.lists(
    st.tuples(
        st.integers(0, 50 * 24).map(lambda hours: hours * HOUR_US),
        st.one_of(
            st.sampled_from(PLANS).map(lambda plan: ("change", plan)),
            st.sampled_from(("cancel", "revert", "wait")).map(lambda name: (name, "")),
            st.tuples(
                st.just("contract"),
                st.tuples(
                    st.sampled_from(("starter", "professional", "enterprise", "free")),
                    st.sampled_from((0, 15, 50, 77, 300)),
                    st.integers(0, 60),
                    st.one_of(st.just(0), st.integers(1, 80)),
                ),
            ),
        ),
    ),
    max_size=12,
)


def run(history: History, move: tuple[str, object]) -> None:
    """Makes a move; what the rules refuse changes nothing."""
    name, detail = move
    before = history.subscription
    try:
        if name == "change":
            history.change(str(detail))
        elif name == "cancel":
            history.cancel()
        elif name == "revert":
            history.revert()
        elif name == "contract":
            plan_id, dollars, begin_days, length_days = detail  # type: ignore[misc]
            effective_us = history.now_us + begin_days * DAY_US
            history.contract(
                plan_id=plan_id,
                price_micro=dollars * 1_000_000,
                max_concurrent_sessions=10,
                session_limit=dollars * 3,
                effective_us=effective_us,
                end_us=effective_us + length_days * DAY_US if length_days else 0,
            )
    except FlowStackError:
        assert history.subscription == before


@given(plan=st.sampled_from(PLANS), moves=MOVES, tail_days=st.integers(0, 200))
def test_a_periods_charges_add_up_to_the_price_that_held_at_its_end(
    plan: str, moves: list[tuple[int, tuple[str, object]]], tail_days: int
) -> None:
    """Within a period prices only rise, and every rise is charged: so the sum is the last price, whatever happened."""
    history = History.begin(plan)
    last_price: dict[tuple[str, int], int] = {}

    def note() -> None:
        current = history.subscription
        if current.state_at(history.now_us) is not SubscriptionState.ENDED:
            start_us = period_at(current.anchor_us, history.now_us).start_us
            last_price[current.subscription_id, start_us] = current.terms.price_micro

    def pass_to(now_us: int) -> None:
        while history.now_us < now_us:
            history.pass_to(min(now_us, next_step_us(history.subscription)))
            note()

    note()
    for gap_us, move in moves:
        pass_to(history.now_us + gap_us)
        run(history, move)
        note()
    pass_to(history.now_us + tail_days * DAY_US)
    charged: dict[tuple[str, int], int] = defaultdict(int)
    for charge in history.charges:
        charged[charge.subscription_id, charge.period.start_us] += charge.amount_micro
        assert charge.period == period_at(_anchor(history, charge), charge.start_us)
    assert {key: amount for key, amount in charged.items() if amount} == {
        key: amount for key, amount in last_price.items() if amount
    }
    fees = [
        (charge.subscription_id, charge.period.start_us)
        for charge in history.charges
        if charge.kind is ChargeKind.PERIOD_FEE
    ]
    assert len(fees) == len(set(fees))


def _anchor(history: History, charge: Charge) -> int:
    (anchor_us,) = {
        subscription.anchor_us
        for subscription in (*history.retired, history.subscription)
        if subscription.subscription_id == charge.subscription_id
    }
    return anchor_us


@given(plan=st.sampled_from(PLANS), moves=MOVES, days=st.integers(0, 400), steps=st.integers(2, 9))
def test_catching_up_late_comes_to_the_same(
    plan: str, moves: list[tuple[int, tuple[str, object]]], days: int, steps: int
) -> None:
    history = History.begin(plan)
    for gap_us, move in moves:
        history.pass_to(history.now_us + gap_us)
        run(history, move)
    late = replace(history, charges=[], retired=[], seed=random.Random(1))
    prompt = replace(history, charges=[], retired=[], seed=random.Random(1))
    late.pass_to(history.now_us + days * DAY_US)
    for step in range(1, steps + 1):
        prompt.pass_to(history.now_us + days * DAY_US * step // steps)
    assert prompt.subscription == late.subscription
    assert prompt.charges == late.charges


@given(plan=st.sampled_from(PLANS), moves=MOVES, days=st.integers(0, 100))
def test_quota_comes_to_the_same_limit_by_itself(
    plan: str, moves: list[tuple[int, tuple[str, object]]], days: int
) -> None:
    """The entitlement of today foretells the limit of any later day, so that quota may be alone until then."""
    history = History.begin(plan)
    for gap_us, move in moves:
        history.pass_to(history.now_us + gap_us)
        run(history, move)
    entitlement = entitlement_of(history.subscription, CATALOGUE, 1)
    effective = [term.effective_us for term in entitlement.terms]
    assert effective == sorted(set(effective))
    moment_us = history.now_us + days * DAY_US
    foretold = [term for term in entitlement.terms if term.effective_us <= moment_us][-1]
    before = history.subscription
    history.pass_to(moment_us)
    if history.subscription.subscription_id != before.subscription_id:
        return  # a new subscription has an entitlement of its own
    assert history.subscription.state_at(moment_us) is (
        SubscriptionState.ENDED
        if 0 < entitlement.end_us <= moment_us
        else SubscriptionState.CANCELLING
        if history.subscription.end_us
        else SubscriptionState.ACTIVE
    )
    if history.subscription.state_at(moment_us) is not SubscriptionState.ENDED:
        assert history.subscription.terms.session_limit == foretold.session_limit
        assert history.subscription.terms.plan_id == foretold.plan_id
