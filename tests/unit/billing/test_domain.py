"""Subscriptions, entitlements, usage and page tokens, as pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.domain.entitlements import EntitlementTerm, entitlement_of
from services.billing.domain.model import ChangeKind, Subscription, SubscriptionState
from services.billing.domain.paging import PageTokens
from services.billing.domain.prices import ProviderCost
from services.billing.domain.subscriptions import start_subscription
from services.billing.domain.usage import (
    DAY_US,
    LedgerUsage,
    QuotaReading,
    day_start_us,
    days_left,
    is_near_limit,
    percentage,
    usage_of,
)
from services.shared.errors import FlowStackError
from services.shared.periods import period_at
from services.shared.secret import Secret
from tests.support.clock import us

CATALOGUE = load_catalogue()
START_US = us(2026, 1, 31, 12)


def subscription(plan_id: str = "starter", end_us: int = 0) -> Subscription:
    terms = CATALOGUE.newest(plan_id, START_US).terms()
    return Subscription("sub_1", "acct_1", terms, START_US, end_us, 1, START_US, START_US)


def test_a_start_is_the_first_change() -> None:
    terms = CATALOGUE.newest("hobbyist", START_US).terms()
    started = start_subscription("acct_1", terms, START_US, bytes, request_id="r")
    assert started.subscription.anchor_us == started.change.effective_us == START_US
    assert started.change.kind is ChangeKind.START
    assert started.change.subscription_id == started.subscription.subscription_id
    assert started.change.amount_micro == 15_000_000


def test_a_subscriptions_state_follows_its_end() -> None:
    assert subscription().state_at(START_US) is SubscriptionState.ACTIVE
    ending = subscription(end_us=START_US + 10)
    assert ending.state_at(START_US + 9) is SubscriptionState.CANCELLING
    assert ending.state_at(START_US + 10) is SubscriptionState.ENDED


def test_an_entitlement_says_everything_that_quota_decides_by() -> None:
    entitlement = entitlement_of(subscription(end_us=99), CATALOGUE, 3)
    assert (entitlement.account_id, entitlement.revision, entitlement.subscription_id) == ("acct_1", 3, "sub_1")
    assert (entitlement.period_anchor_us, entitlement.end_us, entitlement.block) == (START_US, 99, None)
    assert entitlement.terms == (
        EntitlementTerm(START_US, "starter", 1000, ("bedrock",), 100, 16_384, 25, "professional"),
    )


@pytest.mark.parametrize(
    ("used", "limit", "percent", "near"),
    [(0, 0, 0, False), (5, 0, 0, False), (79, 100, 79, False), (80, 100, 80, True), (150, 100, 150, True)],
)
def test_percentages(used: int, limit: int, percent: float, near: bool) -> None:
    assert percentage(used, limit) == percent
    assert is_near_limit(used, limit) is near


@given(limit=st.integers(1, 10**9), used=st.integers(0, 2 * 10**9))
def test_near_the_limit_is_exact_whatever_floats_say(limit: int, used: int) -> None:
    assert is_near_limit(used, limit) == (used / limit >= 0.8 if used * 5 != limit * 4 else True)


def test_a_day_begins_at_midnight_utc() -> None:
    assert day_start_us(us(2026, 3, 10, 23, 59)) == day_start_us(us(2026, 3, 10)) == us(2026, 3, 10)


@given(end_us=st.integers(0, 2**52), passed_us=st.integers(-(2**40), 2**40))
def test_days_left_cover_the_rest_of_the_period(end_us: int, passed_us: int) -> None:
    days = days_left(end_us, end_us - passed_us)
    assert days >= 0
    assert days * DAY_US >= passed_us
    assert days == 0 or (days - 1) * DAY_US < passed_us


def test_usage_says_what_is_unpriced() -> None:
    period = period_at(START_US, START_US)
    quota = QuotaReading("starter", *period, 1000, 800, 300, 500, 2, 198, ("bedrock",), True, "", 1)
    ledger = LedgerUsage(7, ProviderCost(3, 499), 4)
    usage = usage_of(
        "acct_1", quota, ledger, charges_micro=50_000_000, costs_as_of_us=START_US + 5, now_us=START_US + 6
    )
    assert usage.is_near_limit
    assert usage.can_use_managed
    assert (usage.sessions_used_today, usage.unpriced_sessions) == (7, 499)
    assert (usage.current_charges_micro, usage.estimated_monthly_cost_micro) == (50_000_000, 50_000_004)
    assert usage.costs_as_of_us == START_US + 5


TOKENS = PageTokens(Secret("key"))


@given(scope=st.lists(st.text()), number=st.integers(0, 2**62), text=st.text())
def test_a_page_token_gives_its_position_back(scope: list[str], number: int, text: str) -> None:
    assert TOKENS.open(scope, TOKENS.seal(scope, (number, text))) == (number, text)


@given(mine=st.lists(st.text()), theirs=st.lists(st.text()))
def test_a_page_token_is_good_for_its_own_call_alone(mine: list[str], theirs: list[str]) -> None:
    token = TOKENS.seal(mine, (1, "a"))
    if mine == theirs:
        return
    with pytest.raises(FlowStackError, match="page_token"):
        TOKENS.open(theirs, token)


@given(token=st.text(min_size=1))
def test_what_is_no_page_token_is_refused(token: str) -> None:
    with pytest.raises(FlowStackError, match="page_token"):
        TOKENS.open(("x",), token)


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.open(("x",), "") is None
