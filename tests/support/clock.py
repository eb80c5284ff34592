"""A clock that moves only when a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from services.shared.periods import us_from_time

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

START: Final = datetime(2026, 3, 10, 12, tzinfo=UTC)


def us(year: int, month: int, day: int, *time: int) -> int:
    """A UTC time, with as much of hour, minute and second as is given, in microseconds since 1970."""
    return us_from_time(datetime(year, month, day, *time, tzinfo=UTC))


class ManualClock:
    """A services.shared.clock.Clock advanced by hand."""

    def __init__(self, start: datetime = START) -> None:
        self.wall_us = us_from_time(start)
        self.monotonic_us = 5_000_000_000

    def now_us(self) -> int:
        """Wall time in microseconds since 1970."""
        return self.wall_us

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return self.monotonic_us / SECOND_US

    def advance_us(self, passed_us: int) -> None:
        """Lets time pass: both clocks move together."""
        assert passed_us >= 0
        self.wall_us += passed_us
        self.monotonic_us += passed_us

    def advance(self, seconds: float) -> None:
        """Lets time pass, in seconds."""
        self.advance_us(round(seconds * SECOND_US))

    def jump(self, seconds: float) -> None:
        """Sets the wall clock forward or back; no time passes."""
        self.wall_us += round(seconds * SECOND_US)
