"""Where a period will end, from its own history.

The history is counted sessions by day, whole days of UTC and the two broken ones at the ends. `forecast_model` says
what the days to come are like and how far off that may be; here it is laid over the period's days. With less than a day
of history what was used so far is the projection, and the range is wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from services.billing.domain.forecast_model import ForecastMethod, SeenDay, model_of
from services.billing.domain.usage import DAY_US, day_start_us
from services.shared.periods import Period


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
        limit: sessions that the period allows; the range of its first day rests on it.
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
    plan_rate = limit * DAY_US / (period_end_us - period_start_us)
    model = model_of([_seen(day, counts[day.start_us], now_us) for day in elapsed], plan_rate)
    reached_us = _actual_reach_us(elapsed, counts, limit)
    points, total = [], 0
    ahead_days = ahead = 0.0
    for day in days:
        if day.end_us <= now_us:
            total += counts[day.start_us]
            points.append(ForecastPoint(day.end_us, total, total, total, True))
            continue
        begin_us = max(day.start_us, now_us)
        share = (day.end_us - begin_us) / DAY_US
        before, added = used + ahead, model.rates[day.weekday] * share
        ahead_days, ahead = ahead_days + share, ahead + added
        sessions = used + ahead
        if limit and not reached_us and before < limit <= sessions and added:
            reached_us = begin_us + round((limit - before) / added * (day.end_us - begin_us))
        low, high = model.range(ahead_days, ahead)
        low_total, high_total = used + max(0, math.floor(low)), used + math.ceil(high)
        points.append(ForecastPoint(day.end_us, round(sessions), low_total, high_total, False))
    last = points[-1] if points else ForecastPoint(period_end_us, used, used, used, True)
    return Projection(model.method, len(begun), last.sessions, last.low, last.high, reached_us, tuple(points))


def _seen(day: _Day, sessions: int, now_us: int) -> SeenDay:
    return SeenDay(day.weekday, day.share, (now_us - day.end_us) / DAY_US, sessions)


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
