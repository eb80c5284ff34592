"""Any history of changes: what is charged adds up, terms are what was foretold, and lateness changes nothing."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.domain.changes import Changed, cancel, change_plan, end_now, revert
from services.billing.domain.contracts import ContractWish, contract_of, put_contract
from services.billing.domain.entitlements import entitlement_of
from services.billing.domain.model import ChangeKind, ChangeState, Subscription, SubscriptionState
from services.billing.domain.renewal import Charge, ChargeKind, advance, begin, final_end_us, next_step_us
from services.billing.domain.subscriptions import start_subscription
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import period_at
from tests.support.clock import DAY_US, HOUR_US, us

CATALOGUE = load_catalogue()
PLANS = ("free", "hobbyist", "starter", "professional")
START_US = us(2026, 1, 31, 12)


def terms_of(plan_id: str, now_us: int = START_US) -> object:
    return CATALOGUE.newest(plan_id, now_us).terms()


def wish(**fields: object) -> ContractWish:
    unset = {
        "plan_id": "", "plan_version": 0, "offer_id": "", "effective_us": 0, "end_us": 0, "price_micro": None,
        "session_limit": None, "managed_providers": (), "max_concurrent_sessions": None, "max_output_tokens": None,
        "max_tool_rounds": None, "support_level": None, "features": (), "reference": "",
    }  # fmt: skip
    return ContractWish(**(unset | fields))  # type: ignore[arg-type]


@dataclass
class History:
    """A subscription's life: what was charged, and which subscriptions there were."""

    now_us: int
    subscription: Subscription
    charges: list[Charge] = field(default_factory=list)
    retired: list[Subscription] = field(default_factory=list)
    held: list[tuple[str, int, int]] = field(default_factory=list)
    """Subscription, moment and price in force, noted whenever anything happens."""
    seed: random.Random = field(default_factory=lambda: random.Random(7))

    @staticmethod
    def begin(plan_id: str, now_us: int = START_US) -> History:
        rng = random.Random(7)
        started = start_subscription("acct_1", terms_of(plan_id), now_us, rng.randbytes)  # type: ignore[arg-type]
        outcome = begin(started.subscription, started.change.change_id)
        return History(now_us, outcome.subscription, outcome.charges, seed=rng)

    def pass_to(self, now_us: int) -> None:
        assert now_us >= self.now_us
        self.now_us = now_us
        self.take(advance(self.subscription, now_us, self.seed.randbytes))

    def take(self, outcome) -> None:  # type: ignore[no-untyped-def]
        self.subscription = outcome.subscription
        self.charges += outcome.charges
        self.retired += outcome.retired

    def apply(self, changed: Changed) -> Changed:
        self.take(changed.outcome)
        return changed

    def change(self, plan_id: str) -> Changed:
        return self.apply(
            change_plan(self.subscription, terms_of(plan_id, self.now_us), self.now_us, self.seed.randbytes)
        )  # type: ignore[arg-type]

    def cancel(self) -> Changed:
        return self.apply(cancel(self.subscription, self.now_us, self.seed.randbytes))

    def revert(self) -> Changed:
        return self.apply(revert(self.subscription, self.now_us, self.seed.randbytes))

    def contract(self, **fields: object) -> Changed:
        contract = contract_of(wish(**fields), CATALOGUE, self.now_us, self.seed.randbytes)
        return self.apply(put_contract(self.subscription, contract, CATALOGUE, self.now_us, self.seed.randbytes))

    def charged(self) -> list[tuple[str, int]]:
        return [(charge.kind.name, charge.amount_micro // 1_000_000) for charge in self.charges if charge.amount_micro]


def period_start(history: History, months: int) -> int:
    period = period_at(history.subscription.anchor_us, history.subscription.anchor_us)
    for _ in range(months):
        period = period_at(history.subscription.anchor_us, period.end_us)
    return period.start_us


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
