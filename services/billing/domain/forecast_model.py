"""What the days to come are thought to be like, from the days that were: a period's rates and how far off they may be.

With two weeks of history the days to come get the mean of their weekday, before that the mean of all days. In either,
days weigh the less the older they are, so that a customer who grows or goes away is believed soon.

The range is meant to hold the end of `COVERAGE` of the periods. Its half width is that quantile of a Student's t with
few degrees of freedom, times the deviation of days from their mean, for the days to come and for the mean itself, which
is as uncertain as its history is short. Days that resemble their neighbours make sums deviate more than independent
ones would: the variance is raised by their autocorrelation. Where days clearly rise or fall, which a line through their
logarithms says, the range reaches to where that would lead too: a mean does not know that a customer goes away.

A history of less than a week shows neither weekdays nor that. Till then the range takes in beside, below, that days
fall from now on as fast as customers go who go away, and above, that the days seen were the week's poorer ones, by a
share that shrinks with the root of their number.

In a period's first day the time of day decides how many sessions there were, and a burst of minutes says nothing of a
month: no rate is made of it. The day is filled up with all that is known besides, which is what the plan was bought
for: it is thought to get what was seen, and for the rest of it the limit's own pace. Days to come are taken to vary
about such a day exponentially, as widely as a mean allows. The range reaches from no sessions to that distribution's
quantile, 1.6 such days for each day to come: a handful of sessions in a few minutes is expected once a day, not once
every few minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final, NamedTuple

COVERAGE: Final = 0.8
_HALF_LIFE_DAYS: Final = 7.0
_WEEK: Final = 7
_WEEKS: Final = 14
"""Days of history from which weekdays are told apart."""
_T_QUANTILES: Final = (3.08, 1.89, 1.64, 1.53, 1.48, 1.44, 1.41, 1.40, 1.38, 1.37)
"""The 90 % quantile of Student's t for 1, 2, … degrees of freedom, rounded."""
_T_BEYOND: Final = 1.35
_EXPONENTIAL_QUANTILE: Final = -math.log(1 - COVERAGE)
"""That quantile of an exponential distribution, in its means."""
_UNSEEN: Final = 0.3
"""By how much of their mean a week's days may be richer than those that were seen; more for less than a week."""
_FALL_UNSEEN: Final = 0.07
"""The fall a day, in logarithms, that less than a week of history does not rule out."""
_TREND_DAYS: Final = 5
_TREND_CLEAR: Final = 1.6
"""A slope is believed that is so many times its own uncertainty."""
_TREND_MAX: Final = 0.2
"""No steeper fall a day is believed, and no rise above a quarter of it."""


class ForecastMethod(IntEnum):
    """How a forecast was made. The numbers are the contract's."""

    SO_FAR = 1
    DAILY_MEAN = 2
    WEEKDAY_MEAN = 3


class SeenDay(NamedTuple):
    """A day of the history, or what of it is in the period and over."""

    weekday: int
    """Monday is 0."""
    share: float
    """How much of a day it is, above 0 and at most 1."""
    age_days: float
    """Since its end."""
    sessions: int

    @property
    def rate(self) -> float:
        """Sessions a day."""
        return self.sessions / self.share


@dataclass(frozen=True, slots=True)
class Model:
    """Rates of days to come, in sessions a day, and the range about their sum."""

    method: ForecastMethod
    rates: tuple[float, ...]
    """By weekday."""
    deviation: float = 0.0
    """Of a day from its rate, with what resembling days add."""
    history_days: float = 1.0
    """Days that the rates rest on, old ones in part."""
    quantile: float = 0.0
    unseen: float = 0.0
    """What the range takes in above the rates, where the history is too short to show it."""
    level: float = 0.0
    """At present, where days rise or fall."""
    trend: float = 0.0
    """By how much the logarithm of days changes in a day; 0 where they do not clearly rise or fall."""

    def range(self, days: float, sessions: float) -> tuple[float, float]:
        """The low and the high end of what is added in so many days, where the rates make it `sessions`."""
        half = self.quantile * self.deviation * math.sqrt(days + days * days / max(self.history_days, 0.5))
        ends = [sessions, sessions + self.unseen * days]
        if self.trend:
            ends.append(self.level * math.expm1(self.trend * days) / self.trend)
        return min(ends) - half, max(ends) + half


def model_of(days: Sequence[SeenDay], plan_rate: float) -> Model:
    """What a history says of the days to come.

    Args:
        days: the period's days so far, oldest first.
        plan_rate: what the plan's limit comes to, in sessions a day.
    """
    span = sum(day.share for day in days)
    used = sum(day.sessions for day in days)
    if span < 1:
        filled_up = used + (1 - span) * max(plan_rate, 1.0)
        return Model(ForecastMethod.SO_FAR, (0.0,) * 7, unseen=_EXPONENTIAL_QUANTILE * filled_up)
    weights = [day.share * 0.5 ** (day.age_days / _HALF_LIFE_DAYS) for day in days]
    mean = _mean([day.rate for day in days], weights)
    by_weekday, method = [mean] * 7, ForecastMethod.DAILY_MEAN
    if span >= _WEEKS:
        method = ForecastMethod.WEEKDAY_MEAN
        for weekday in range(7):
            of_it = [index for index, day in enumerate(days) if day.weekday == weekday]
            by_weekday[weekday] = _mean([days[i].rate for i in of_it], [weights[i] for i in of_it])
    errors = [day.rate - by_weekday[day.weekday] for day in days]
    freedom = max(1.0, span - (7 if method is ForecastMethod.WEEKDAY_MEAN else 1))
    variance = sum(error * error * day.share for error, day in zip(errors, days, strict=True)) / freedom
    # Sessions that come by themselves vary by their root, also where a short history does not show it yet.
    variance = max(variance, mean, 1.0 if used else 0.0) * _inflation(errors)
    effective = sum(weights) ** 2 / sum(weight * weight for weight in weights)
    place = int(min(freedom, effective)) - 1
    quantile = _T_QUANTILES[place] if place < len(_T_QUANTILES) else _T_BEYOND
    # Of what the weekday does not explain, and of whole days alone: a broken one says little.
    seasonless = [
        day.rate * mean / by_weekday[day.weekday] if by_weekday[day.weekday] else day.rate
        for day in days
        if day.share == 1
    ]
    level, trend = _trend(seasonless)
    unseen = 0.0
    if span < _WEEK:
        unseen = _UNSEEN * mean * math.sqrt(_WEEK / span)
        if trend > -_FALL_UNSEEN:
            level, trend = mean, -_FALL_UNSEEN
    return Model(method, tuple(by_weekday), math.sqrt(variance), effective, quantile, unseen, level, trend)


def _trend(rates: Sequence[float]) -> tuple[float, float]:
    """The level at the end of a line through the logarithms of days, and its slope; 0 and 0 where it is not clear."""
    count = len(rates)
    if count < _TREND_DAYS:
        return 0.0, 0.0
    # Half a session more, so that a day without any has a logarithm.
    logarithms = [math.log(rate + 0.5) for rate in rates]
    middle, mean = (count - 1) / 2, sum(logarithms) / count
    spread = sum((day - middle) ** 2 for day in range(count))
    slope = sum((day - middle) * value for day, value in enumerate(logarithms)) / spread
    rest = sum((value - mean - slope * (day - middle)) ** 2 for day, value in enumerate(logarithms))
    deviation = math.sqrt(rest / (count - 2) / spread)
    if abs(slope) <= _TREND_CLEAR * deviation:
        return 0.0, 0.0
    return max(0.0, math.exp(mean + slope * middle) - 0.5), max(-_TREND_MAX, min(_TREND_MAX / 4, slope))


def _inflation(errors: Sequence[float]) -> float:
    """How much more sums of resembling days vary than those of independent ones: that of a first-order process."""
    below = sum(error * error for error in errors)
    if len(errors) < 4 or not below:
        return 1.0
    correlation = sum(a * b for a, b in pairwise(errors)) / below
    correlation = min(0.6, max(0.0, correlation))
    return (1 + correlation) / (1 - correlation)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
