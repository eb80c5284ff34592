"""The fake's time: the real clock, moved on as far as the test says, and periods of months counted from an anchor."""

from __future__ import annotations

import time
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

DAY_US: Final = 24 * 3600 * 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Microseconds since 1970; runs as the real clock does, and jumps where it is told to."""

    def __init__(self) -> None:
        self._ahead_us = 0

    def now_us(self) -> int:
        """The time."""
        return time.time_ns() // 1000 + self._ahead_us

    def advance(self, by: timedelta) -> None:
        """Jumps ahead.

        Raises:
            ValueError: `by` is negative: time does not go back.
        """
        if by < timedelta(0):
            raise ValueError("time does not go back: advance by a positive duration")
        self._ahead_us += by // timedelta(microseconds=1)


class Period(NamedTuple):
    """A half-open interval of time, in microseconds since 1970."""

    start_us: int
    end_us: int


def period_at(anchor_us: int, now_us: int) -> Period:
    """The month that contains `now_us`, of those that are counted from the anchor; the day clamped to the month's."""
    anchor, now = datetime_of(anchor_us), datetime_of(now_us)
    months = (now.year - anchor.year) * 12 + now.month - anchor.month
    if add_months(anchor, months) > now:
        months -= 1
    return Period(us_of(add_months(anchor, months)), us_of(add_months(anchor, months + 1)))


def datetime_of(time_us: int) -> datetime:
    """The UTC time."""
    return _EPOCH + timedelta(microseconds=time_us)


def timestamp(time_us: int) -> Timestamp:
    """The time on the wire."""
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp


def optional_timestamp(time_us: int) -> Timestamp | None:
    """The time on the wire; unset where it is 0."""
    return timestamp(time_us) if time_us else None


def rfc3339(time_us: int) -> str:
    """The time as text, such as 2027-01-01T00:00:00Z."""
    return datetime_of(time_us).isoformat().replace("+00:00", "Z")


def us_of(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def add_months(anchor: datetime, months: int) -> datetime:
    """`anchor` moved by whole months; a day that the month does not have becomes its last."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))
