"""The clock, injected wherever time matters."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Tests put a hand-advanced one in its place."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        return time.monotonic()
