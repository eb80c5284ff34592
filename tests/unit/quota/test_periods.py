"""Periods: months that tile time from any anchor, without gap or overlap."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.shared.periods import Period, add_months, period_at, time_from_us, us_from_time
from tests.support.clock import us

TIMES = st.integers(us(1970, 1, 1), us(2101, 1, 1) - 1)
MONTH_ENDS = st.builds(
    lambda year, month, back: us(year, month, monthrange(year, month)[1] - back),
    st.integers(1970, 2100),
    st.integers(1, 12),
    st.integers(0, 3),
)
ANCHORS = st.one_of(TIMES, MONTH_ENDS)


@given(ANCHORS, TIMES)
@example(us(2024, 1, 31), us(2024, 2, 29))
@example(us(2023, 1, 31), us(2023, 2, 28))
@example(us(2024, 2, 29), us(2025, 2, 28))
@example(us(2000, 12, 31, 23, 59, 59), us(1970, 1, 1))
def test_a_period_contains_its_moment_and_meets_its_neighbours(anchor_us: int, now_us: int) -> None:
    period = period_at(anchor_us, now_us)
    assert period.start_us <= now_us < period.end_us
    assert period_at(anchor_us, period.start_us) == period
    assert period_at(anchor_us, period.end_us - 1) == period
    assert period_at(anchor_us, period.end_us).start_us == period.end_us
    if period.start_us > us(1970, 3, 1):
        assert period_at(anchor_us, period.start_us - 1).end_us == period.start_us


@given(ANCHORS, TIMES)
def test_a_period_begins_on_the_anchors_day_or_on_a_shorter_months_last(anchor_us: int, now_us: int) -> None:
    anchor, start = time_from_us(anchor_us), time_from_us(period_at(anchor_us, now_us).start_us)
    assert start.day == min(anchor.day, monthrange(start.year, start.month)[1])
    assert start.timetz() == anchor.timetz()


@given(ANCHORS)
def test_twelve_periods_are_a_year(anchor_us: int) -> None:
    moment_us = anchor_us
    for _ in range(12):
        moment_us = period_at(anchor_us, moment_us).end_us
    anchor, then = time_from_us(anchor_us), time_from_us(moment_us)
    assert (then.year, then.month) == (anchor.year + 1, anchor.month)
    assert then.day == anchor.day or (anchor.month, anchor.day, then.day) == (2, 29, 28)


@given(ANCHORS)
def test_the_first_period_starts_at_the_anchor(anchor_us: int) -> None:
    assert period_at(anchor_us, anchor_us).start_us == anchor_us


@pytest.mark.parametrize(
    ("anchor", "now", "start", "end"),
    [
        (us(2026, 1, 31), us(2026, 2, 10), us(2026, 1, 31), us(2026, 2, 28)),
        (us(2026, 1, 31), us(2026, 2, 28), us(2026, 2, 28), us(2026, 3, 31)),
        (us(2026, 1, 31), us(2026, 4, 29), us(2026, 3, 31), us(2026, 4, 30)),
        (us(2024, 1, 30), us(2024, 2, 29), us(2024, 2, 29), us(2024, 3, 30)),
        (us(2024, 1, 29), us(2025, 2, 28), us(2025, 2, 28), us(2025, 3, 29)),
        (us(2024, 2, 29), us(2028, 2, 29), us(2028, 2, 29), us(2028, 3, 29)),
        (us(2024, 2, 29), us(2100, 2, 28), us(2100, 2, 28), us(2100, 3, 29)),
        (us(2026, 12, 15, 8), us(2027, 1, 15, 7), us(2026, 12, 15, 8), us(2027, 1, 15, 8)),
        (us(2026, 5, 15), us(2026, 4, 15), us(2026, 4, 15), us(2026, 5, 15)),
    ],
)
def test_clamping(anchor: int, now: int, start: int, end: int) -> None:
    assert period_at(anchor, now) == Period(start, end)


def test_a_clamped_month_does_not_move_the_ones_after_it() -> None:
    anchor = datetime(2026, 1, 31, tzinfo=UTC)
    days = [add_months(anchor, n).day for n in range(13)]
    assert days == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31]


@given(TIMES)
def test_times_are_exact_to_the_microsecond(time_us: int) -> None:
    assert us_from_time(time_from_us(time_us)) == time_us
    assert time_from_us(time_us).utcoffset() == timedelta(0)
