"""Periods tile without gap or overlap, whatever the anchor."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.shared.periods import add_months, period_at, time_from_us, us_from_time
from tests.support.clock import us

FIRST_US, LAST_US = us(1970, 1, 1), us(2100, 1, 1)
ANCHORS = st.one_of(
    st.integers(FIRST_US, LAST_US),
    # The days that some months do not have.
    st.builds(
        lambda year, month, day, second: us(year, month, min(day, monthrange(year, month)[1])) + second * 1_000_000,
        st.integers(1970, 2099),
        st.integers(1, 12),
        st.sampled_from((28, 29, 30, 31)),
        st.integers(0, 86_399),
    ),
)


@given(anchor_us=ANCHORS, moment_us=st.integers(FIRST_US, LAST_US))
@example(us(2024, 2, 29), us(2100, 1, 1))
@example(us(2024, 1, 31, 23, 59, 59), us(2025, 2, 28, 23, 59, 58))
def test_every_moment_is_in_one_period_and_neighbours_meet(anchor_us: int, moment_us: int) -> None:
    period = period_at(anchor_us, moment_us)
    assert period.start_us <= moment_us < period.end_us
    assert period_at(anchor_us, period.start_us) == period
    assert period_at(anchor_us, period.end_us - 1) == period
    assert period_at(anchor_us, period.end_us).start_us == period.end_us
    assert period_at(anchor_us, period.start_us - 1).end_us == period.start_us


@given(anchor_us=ANCHORS)
def test_a_hundred_years_of_periods_are_the_months_from_the_anchor(anchor_us: int) -> None:
    anchor = time_from_us(anchor_us)
    period = period_at(anchor_us, anchor_us)
    assert period.start_us == anchor_us
    for months in range(1, 12 * 30):
        period = period_at(anchor_us, period.end_us)
        start = time_from_us(period.start_us)
        assert (start.year * 12 + start.month) - (anchor.year * 12 + anchor.month) == months
        # Counted from the anchor every time: a clamped month never moves the one after it.
        assert start.day == min(anchor.day, monthrange(start.year, start.month)[1])
        assert start.timetz() == anchor.timetz()


@pytest.mark.parametrize(
    ("anchor", "months", "expected"),
    [
        ((2026, 1, 31), 1, (2026, 2, 28)),
        ((2026, 1, 31), 2, (2026, 3, 31)),
        ((2024, 1, 31), 1, (2024, 2, 29)),
        ((2024, 2, 29), 12, (2025, 2, 28)),
        ((2024, 2, 29), 48, (2028, 2, 29)),
        ((2000, 2, 29), 1200, (2100, 2, 28)),
        ((2026, 12, 30), 2, (2027, 2, 28)),
        ((2026, 3, 29), -1, (2026, 2, 28)),
    ],
)
def test_days_that_a_month_lacks_become_its_last(
    anchor: tuple[int, int, int], months: int, expected: tuple[int, int, int]
) -> None:
    assert add_months(datetime(*anchor, tzinfo=UTC), months) == datetime(*expected, tzinfo=UTC)


def test_every_anchor_day_of_a_leap_year_and_its_neighbours_tiles() -> None:
    for start in range(us(2023, 1, 1), us(2026, 1, 1), 86_400_000_000):
        period = period_at(start, start)
        for _ in range(26):
            following = period_at(start, period.end_us)
            assert following.start_us == period.end_us
            assert 28 <= (following.end_us - following.start_us) // 86_400_000_000 <= 31
            period = following
    assert us_from_time(time_from_us(start)) == start
