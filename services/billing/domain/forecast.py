"""Where a period will end, from its own history.

The history is counted sessions by day, whole days of UTC and the two broken ones at the ends. With two weeks of it the
days to come get the mean of their weekday, before that the mean of all days. In either, days weigh the less the older
they are, so that a customer who grows or goes away is believed soon. With less than a day, what was used so far is the
projection, and the range is wide.

The range is meant to hold the end of `COVERAGE` of the periods. Its half width is that quantile of a Student's t with
few degrees of freedom, times the deviation of days from their mean, for the days to come and for the mean itself, which
is as uncertain as its history is short. Days that resemble their neighbours make sums deviate more than independent
ones would: the variance is raised by their autocorrelation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from itertools import pairwise
from typing import Final, NamedTuple

from services.billing.domain.usage import DAY_US, day_start_us
from services.shared.periods import Period

COVERAGE: Final = 0.8
_HALF_LIFE_DAYS: Final = 7.0
_WEEKS: Final = 14
"""Days of history from which weekdays are told apart."""
_T_QUANTILES: Final = (3.08, 1.89, 1.64, 1.53, 1.48, 1.44, 1.41, 1.40, 1.38, 1.37)
"""The 90 % quantile of Student's t for 1, 2, … degrees of freedom, rounded."""
_T_BEYOND: Final = 1.35


class ForecastMethod(IntEnum):
    """How a forecast was made. The numbers are the contract's."""

    SO_FAR = 1
    DAILY_MEAN = 2
    WEEKDAY_MEAN = 3


class ForecastPoint(NamedTuple):
    """A day: sums from the period's start to its end."""

    end_us: int
    sessions: int
    low: int
    high: int
    actual: bool


@dataclass(frozen=True, slots=True)
class Projection:
    """Sessions at the period's end."""

    method: ForecastMethod
    history_days: int
    sessions: int
    low: int
    high: int
    limit_reach_us: int
    """When the limit will most likely be reached; 0 for not in this period."""
    points: tuple[ForecastPoint, ...]


class _Day(NamedTuple):
    start_us: int
    end_us: int
    """Both within the period."""

    @property
    def share(self) -> float:
        return (self.end_us - self.start_us) / DAY_US

    @property
    def weekday(self) -> int:
        return datetime.fromtimestamp(self.start_us / 1e6, UTC).weekday()


def projected(by_day: Mapping[int, int], period: Period, *, used: int, limit: int, now_us: int) -> Projection:
    """Projects a period.

    Args:
        by_day: counted sessions of the period by the start of their day, in microseconds since 1970.
        period: the period.
        used: counted sessions of the period, as the newest source has them.
        limit: sessions that the period allows.
        now_us: the present.
    """
    period_start_us, period_end_us = period
    now_us = min(max(now_us, period_start_us), period_end_us)
    days = _days(period_start_us, period_end_us)
    begun = [day for day in days if day.start_us < now_us or day is days[0]]
    # What the newest source has and the ledger does not is of today.
    ledger = sum(by_day.values())
    counts = {day.start_us: by_day.get(day_start_us(day.start_us), 0) for day in begun}
    counts[begun[-1].start_us] += max(0, used - ledger)
    elapsed = [_Day(day.start_us, min(day.end_us, now_us)) for day in begun]
    model = _model(elapsed, counts, now_us)
    points, sessions, spread = [], float(used), 0.0
    reached_us = _actual_reach_us(elapsed, counts, limit)
    total = 0
    done = 0.0
    for day in days:
        if day.end_us <= now_us:
            total += counts[day.start_us]
            points.append(ForecastPoint(day.end_us, total, total, total, True))
            continue
        begin_us = max(day.start_us, now_us)
        share = (day.end_us - begin_us) / DAY_US
        before, added = sessions, model.rate(day.weekday) * share
        sessions, done = sessions + added, done + share
        spread = model.spread(done)
        if limit and not reached_us and before < limit <= sessions and added:
            reached_us = begin_us + round((limit - before) / added * (day.end_us - begin_us))
        low, high = max(used, math.floor(sessions - spread)), math.ceil(sessions + spread)
        points.append(ForecastPoint(day.end_us, round(sessions), low, high, False))
    last = points[-1] if points else ForecastPoint(period_end_us, used, used, used, True)
    return Projection(model.method, len(begun), last.sessions, last.low, last.high, reached_us, tuple(points))


@dataclass(frozen=True, slots=True)
class _Model:
    method: ForecastMethod
    rates: tuple[float, ...]
    """Sessions a day, by weekday."""
    deviation: float
    """Of a day from its rate, with what resembling days add."""
    history: float
    """Days that the rates rest on, old ones in part."""
    quantile: float

    def rate(self, weekday: int) -> float:
        return self.rates[weekday]

    def spread(self, days: float) -> float:
        """Half the range after so many days."""
        return self.quantile * self.deviation * math.sqrt(days + days * days / max(self.history, 0.5))


def _model(elapsed: list[_Day], counts: Mapping[int, int], now_us: int) -> _Model:
    whole = [day for day in elapsed if day.share > 0]
    span = sum(day.share for day in whole)
    used = sum(counts.values())
    if span < 1:
        # A day at a time of day that says nothing of the rest: as likely none as a few times as many.
        guess = used / span if span > 0 else 0.0
        return _Model(ForecastMethod.SO_FAR, (0.0,) * 7, max(guess, math.sqrt(used + 1)), 1.0, _T_QUANTILES[0])
    weights = [day.share * 0.5 ** ((now_us - day.end_us) / DAY_US / _HALF_LIFE_DAYS) for day in whole]
    rates = [counts[day.start_us] / day.share for day in whole]
    mean = _mean(rates, weights)
    by_weekday, method = [mean] * 7, ForecastMethod.DAILY_MEAN
    if span >= _WEEKS:
        method = ForecastMethod.WEEKDAY_MEAN
        for weekday in range(7):
            of_it = [index for index, day in enumerate(whole) if day.weekday == weekday]
            by_weekday[weekday] = _mean([rates[i] for i in of_it], [weights[i] for i in of_it])
    errors = [rate - by_weekday[day.weekday] for rate, day in zip(rates, whole, strict=True)]
    shares = [day.share for day in whole]
    parameters = 7 if method is ForecastMethod.WEEKDAY_MEAN else 1
    freedom = max(1.0, span - parameters)
    variance = sum(error * error * share for error, share in zip(errors, shares, strict=True)) / freedom
    # Sessions that come by themselves vary by their root, also where a short history does not show it yet.
    variance = max(variance, mean, 1.0 if used else 0.0)
    variance *= _inflation(errors)
    effective = sum(weights) ** 2 / sum(weight * weight for weight in weights)
    place = int(min(freedom, effective)) - 1
    quantile = _T_QUANTILES[place] if place < len(_T_QUANTILES) else _T_BEYOND
    return _Model(method, tuple(by_weekday), math.sqrt(variance), effective, quantile)


def _inflation(errors: list[float]) -> float:
    """How much more sums of resembling days vary than those of independent ones: that of a first-order process."""
    below = sum(error * error for error in errors)
    if len(errors) < 4 or not below:
        return 1.0
    correlation = sum(a * b for a, b in pairwise(errors)) / below
    correlation = min(0.6, max(0.0, correlation))
    return (1 + correlation) / (1 - correlation)


def _mean(values: list[float], weights: list[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _days(start_us: int, end_us: int) -> list[_Day]:
    """The period's days, the first and the last one broken where it begins or ends within them."""
    days = []
    while start_us < end_us:
        next_us = min(day_start_us(start_us) + DAY_US, end_us)
        days.append(_Day(start_us, next_us))
        start_us = next_us
    return days


def _actual_reach_us(elapsed: list[_Day], counts: Mapping[int, int], limit: int) -> int:
    """When the limit was reached, within a day evenly; 0 where it was not."""
    total = 0
    for day in elapsed:
        count = counts[day.start_us]
        if count and total < limit <= total + count:
            return day.start_us + round((limit - total) / count * (day.end_us - day.start_us))
        total += count
    return 0


def projected_cost_micro(cost_micro: int, sessions: int, projected_sessions: int) -> int:
    """What BYOK sessions cost at the period's end, where cost goes with sessions: in proportion, rounded."""
    if not sessions:
        return cost_micro
    return (2 * cost_micro * projected_sessions + sessions) // (2 * sessions)
