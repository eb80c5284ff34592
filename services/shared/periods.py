"""Billing periods: months counted from an anchor. Pure.

A period is half-open, `[start, end)`. The n-th one starts at anchor + n months, with the day clamped to the month's
last one, and is computed from the anchor every time: a clamped February never moves the March after it.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Period(NamedTuple):
    """A half-open interval of UTC time, in microseconds since 1970."""

    start_us: int
    end_us: int


def time_from_us(time_us: int) -> datetime:
    """The UTC time of `time_us` microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time_us)


def us_from_time(time: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (time - EPOCH) // _MICROSECOND


def add_months(anchor: datetime, months: int) -> datetime:
    """`anchor` moved by whole months; a day that the month does not have becomes its last."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))


def period_at(anchor_us: int, now_us: int) -> Period:
    """The period that contains `now_us`, of the periods tiled from `anchor_us`.

    `now_us` may lie before the anchor: the tiling goes both ways.
    """
    anchor, now = time_from_us(anchor_us), time_from_us(now_us)
    months = (now.year - anchor.year) * 12 + now.month - anchor.month
    if add_months(anchor, months) > now:
        months -= 1
    return Period(us_from_time(add_months(anchor, months)), us_from_time(add_months(anchor, months + 1)))
