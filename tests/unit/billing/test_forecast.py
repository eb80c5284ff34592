"""Forecasts: the range holds the end of as many periods as it says, for customers of each kind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from services.billing.domain.forecast import Projection, projected, projected_cost_micro
from services.billing.domain.forecast_model import COVERAGE, ForecastMethod
from services.billing.domain.usage import DAY_US
from services.shared.periods import Period
from tests.support.clock import HOUR_US, us

PERIOD = Period(us(2026, 3, 1), us(2026, 4, 1))
CUSTOMERS = 300
PLANS = (25, 200, 1_000, 5_000, 25_000)
MINUTE_US = HOUR_US // 60


def poisson(randomness: random.Random, mean: float) -> int:
    """A count whose variance is its mean; by the normal approximation where that is large."""
    if mean > 50:
        return max(0, round(randomness.gauss(mean, math.sqrt(mean))))
    count, left = 0, math.exp(-mean)
    while (left_over := randomness.random()) > left:
        left /= left_over
        count += 1
    return count


def steady(randomness: random.Random) -> list[int]:
    mean = randomness.uniform(2, 300)
    return [poisson(randomness, mean) for _ in range(31)]


def weekly(randomness: random.Random) -> list[int]:
    mean, phase = randomness.uniform(5, 300), randomness.randrange(7)
    return [poisson(randomness, mean * (0.15 if (day + phase) % 7 > 4 else 1.3)) for day in range(31)]


def bursty(randomness: random.Random) -> list[int]:
    mean = randomness.uniform(5, 100)
    return [poisson(randomness, mean * randomness.lognormvariate(0, 0.9)) for _ in range(31)]


def dying(randomness: random.Random) -> list[int]:
    mean, rate = randomness.uniform(50, 300), randomness.uniform(0.90, 0.97)
    return [poisson(randomness, mean * rate**day) for day in range(31)]


def forecast(days: list[int], after: int, limit: int = 10**6) -> Projection:
    by_day = {PERIOD.start_us + day * DAY_US: count for day, count in enumerate(days[:after])}
    now_us = PERIOD.start_us + after * DAY_US
    return projected(by_day, PERIOD, used=sum(days[:after]), limit=limit, now_us=now_us)


KINDS = (steady, weekly, bursty, dying)


@pytest.mark.parametrize(
    ("customer", "after", "least", "width_most"),
    [
        # COVERAGE is meant; a few hundredths below it are chance.
        *((customer, after, 0.75, 0.7) for customer in KINDS for after in (21, 26)),
        *((customer, after, 0.75, 1.4) for customer in KINDS for after in (10, 15)),
        *((customer, 7, 0.72, 1.6) for customer in KINDS),
        *((customer, after, 0.75, 2.0) for customer in (weekly, bursty) for after in (3, 5)),
        (steady, 3, 0.75, 1.3),
        (steady, 5, 0.75, 1.1),
        # The width is told in ends: those of the dying are a third to two thirds of what is projected.
        (dying, 3, 0.72, 2.7),
        (dying, 5, 0.75, 2.3),
    ],
)
def test_the_range_holds_as_many_ends_as_it_says(
    customer: Callable[[random.Random], list[int]], after: int, least: float, width_most: float
) -> None:
    randomness = random.Random(f"{customer.__name__} {after}")
    held, widths = 0, []
    for _ in range(CUSTOMERS):
        days = customer(randomness)
        found = forecast(days, after)
        held += found.low <= sum(days) <= found.high
        widths.append((found.high - found.low) / max(1, sum(days)))
    assert held / CUSTOMERS >= least
    # A range that holds everything says nothing.
    assert sorted(widths)[CUSTOMERS // 2] < width_most


def all_day(randomness: random.Random) -> list[int]:
    """When sessions come; so with the next ones."""
    return [
        PERIOD.start_us + day * DAY_US + randomness.randrange(DAY_US)
        for day, count in enumerate(steady(randomness))
        for _ in range(count)
    ]


def office_hours(randomness: random.Random) -> list[int]:
    """Eight hours on five days of the week, in any time zone."""
    mean, opens_us, weekend = randomness.uniform(5, 300), randomness.randrange(24) * HOUR_US, randomness.randrange(7)
    times = [
        PERIOD.start_us + day * DAY_US + opens_us + randomness.randrange(8 * HOUR_US)
        for day in range(-1, 31)
        if (day + weekend) % 7 < 5
        for _ in range(poisson(randomness, mean))
    ]
    return [time for time in times if PERIOD.start_us <= time < PERIOD.end_us]


def beginning_with_a_burst(randomness: random.Random) -> list[int]:
    """Tries the service out in the first minute."""
    burst = [PERIOD.start_us + randomness.randrange(MINUTE_US) for _ in range(randomness.randint(3, 30))]
    return burst + all_day(randomness)


@pytest.mark.parametrize("minutes", [1, 10, 60, 6 * 60, 12 * 60])
@pytest.mark.parametrize("customer", [all_day, office_hours, beginning_with_a_burst])
def test_in_its_first_day_a_period_is_as_wide_as_its_plan(
    customer: Callable[[random.Random], list[int]], minutes: int
) -> None:
    randomness = random.Random(f"{customer.__name__} {minutes}")
    now_us = PERIOD.start_us + minutes * MINUTE_US
    held, highs = 0, []
    for _ in range(CUSTOMERS // 3):
        times = customer(randomness)
        used = sum(time < now_us for time in times)
        plan = next(limit for limit in PLANS if limit >= len(times))
        found = projected({PERIOD.start_us: used}, PERIOD, used=used, limit=plan, now_us=now_us)
        held += found.low <= len(times) <= found.high
        highs.append(found.high / max(1, len(times)))
    assert held / (CUSTOMERS // 3) >= 0.75
    highs.sort()
    assert highs[len(highs) // 2] < 6
    assert highs[len(highs) * 9 // 10] < 10


@pytest.mark.parametrize(
    ("used", "limit", "high_most"), [(5, 25, 350), (5, 200, 700), (155, 5_000, 17_000), (3, 0, 210)]
)
def test_a_burst_of_minutes_is_not_a_month_of_it(used: int, limit: int, high_most: int) -> None:
    now_us = PERIOD.start_us + MINUTE_US
    found = projected({PERIOD.start_us: used}, PERIOD, used=used, limit=limit, now_us=now_us)
    assert (found.low, found.sessions) == (used, used)
    # It may come again every day, though.
    assert 31 * used <= found.high < high_most


def test_too_little_history_projects_what_there_is() -> None:
    now_us = PERIOD.start_us + HOUR_US
    found = projected({PERIOD.start_us: 5}, PERIOD, used=5, limit=100, now_us=now_us)
    assert (found.method, found.sessions, found.history_days) == (ForecastMethod.SO_FAR, 5, 1)
    assert found.low == 5
    assert found.high > 100


@pytest.mark.parametrize(
    ("after", "method"),
    [(2, ForecastMethod.DAILY_MEAN), (13, ForecastMethod.DAILY_MEAN), (14, ForecastMethod.WEEKDAY_MEAN)],
)
def test_weekdays_are_told_apart_from_two_weeks_on(after: int, method: ForecastMethod) -> None:
    days = [0 if day % 7 in (0, 6) else 10 for day in range(31)]
    found = forecast(days, after)
    assert found.method is method
    if method is ForecastMethod.WEEKDAY_MEAN:
        assert found.sessions == sum(days)


def test_when_the_limit_is_reached() -> None:
    steadily = [10] * 31
    assert forecast(steadily, 10, limit=200).limit_reach_us == PERIOD.start_us + 20 * DAY_US
    assert forecast(steadily, 10, limit=50).limit_reach_us == PERIOD.start_us + 5 * DAY_US
    assert forecast(steadily, 10, limit=1_000).limit_reach_us == 0
    assert forecast(steadily, 10, limit=0).limit_reach_us == 0


@pytest.mark.parametrize(
    "now_us", [PERIOD.start_us - 5, PERIOD.start_us, PERIOD.end_us - 1, PERIOD.end_us, PERIOD.end_us + 5]
)
@pytest.mark.parametrize("start_us", [PERIOD.start_us, PERIOD.start_us + 7 * HOUR_US])
def test_at_the_edges_of_a_period(now_us: int, start_us: int) -> None:
    found = projected({}, Period(start_us, PERIOD.end_us), used=3, limit=10, now_us=now_us)
    assert found.low <= found.sessions <= found.high
    assert found.low >= 3
    assert found.points[-1].end_us == PERIOD.end_us
    if now_us >= PERIOD.end_us:
        assert found.sessions == found.high == 3


def test_points_rise_and_say_what_is_over() -> None:
    found = forecast([7] * 31, 12)
    assert [point.actual for point in found.points] == [True] * 12 + [False] * 19
    assert [point.sessions for point in found.points] == [7 * (day + 1) for day in range(31)]


def test_cost_goes_with_sessions() -> None:
    assert projected_cost_micro(1_000_001, 10, 30) == 3_000_003
    assert projected_cost_micro(0, 0, 30) == 0
    assert 0 < COVERAGE < 1
