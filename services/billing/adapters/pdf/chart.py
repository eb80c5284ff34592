"""A period's sessions as a picture: columns by day, the line of their sum, and the limit across."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Final

from reportlab.lib.colors import HexColor
from reportlab.lib.units import mm
from reportlab.platypus import Flowable

from services.billing.adapters.pdf.style import ACCENT, INK, RULE, SOFT, WIDTH, Text
from services.billing.domain.invoices import StatedUsage
from services.billing.domain.usage import DAY_US
from services.shared.periods import time_from_us

HEIGHT: Final[float] = 66 * mm
LIMIT_COLOR: Final = HexColor("#b3261e")
COLUMN_COLOR: Final = HexColor("#9db8d9")
TITLE_SIZE: Final = 11
LABEL_SIZE: Final = 7.5
_LEFT: Final[float] = 15 * mm
_TOP: Final[float] = 14 * mm
_BOTTOM: Final[float] = 7 * mm
"""What is left free for labels around the plot."""
_PLOT_WIDTH: Final[float] = WIDTH - _LEFT
_PLOT_HEIGHT: Final[float] = HEIGHT - _TOP - _BOTTOM
_STEPS: Final = 4
_DATES_MAX: Final = 8
_TOPS: Final = (12, 16, 20, 24, 32, 40, 60, 80, 100, 120)
"""Where an axis may end, in tenths of a power of ten."""


class UsageChart(Flowable):  # type: ignore[misc]  # reportlab has no types
    """The picture, as wide as the page's text."""

    def __init__(self, text: Text, usage: StatedUsage, start_us: int) -> None:
        """Takes the period's start, in microseconds since 1970, and marks what will be written."""
        super().__init__()
        self.width, self.height = WIDTH, HEIGHT
        self._text = text
        self._days = usage.sessions
        self._limit = usage.session_limit
        used = sum(self._days)
        self._top = axis_top(max(used, self._limit))
        self._counts = [f"{self._top * step // _STEPS:,}" for step in range(_STEPS + 1)]
        step = max(1, math.ceil(len(self._days) / _DATES_MAX))
        self._dates = {
            index: f"{day.day} {day:%b}"
            for index in range(0, len(self._days), step)
            for day in [time_from_us(start_us + index * DAY_US)]
        }
        self._title, self._sum = (
            "Sessions by day",
            f"{used:,} of {self._limit:,} sessions used. The line is the days' sum.",
        )
        self._limit_label = f"limit {self._limit:,}"
        text.mark(self._title, bold=True)
        for piece in (self._sum, self._limit_label, *self._counts, *self._dates.values()):
            text.mark(piece)

    def draw(self) -> None:
        """Draws at the canvas' origin; reportlab calls it."""
        self._write(0, HEIGHT - TITLE_SIZE, self._title, TITLE_SIZE, bold=True)
        self._write(0, HEIGHT - TITLE_SIZE - 12, self._sum, LABEL_SIZE)
        canvas = self.canv
        canvas.setStrokeColor(RULE)
        canvas.setLineWidth(0.5)
        for step, label in enumerate(self._counts):
            y = self._y(self._top * step // _STEPS)
            canvas.line(_LEFT, y, WIDTH, y)
            self._write(_LEFT - 2 * mm, y - LABEL_SIZE / 3, label, align=1.0)
        for index, label in self._dates.items():
            self._write(self._x(index + 0.5), _BOTTOM - 1.4 * LABEL_SIZE, label, align=0.5)
        self._draw_sessions()
        self._draw_limit()

    def _draw_sessions(self) -> None:
        canvas = self.canv
        canvas.setFillColor(COLUMN_COLOR)
        for index, count in enumerate(self._days):
            left = self._x(index + 0.15)
            canvas.rect(left, _BOTTOM, self._x(index + 0.85) - left, self._y(count) - _BOTTOM, stroke=0, fill=1)
        line = canvas.beginPath()
        line.moveTo(self._x(0), self._y(0))
        for index, total in enumerate(accumulate(self._days), 1):
            line.lineTo(self._x(index), self._y(total))
        canvas.setStrokeColor(ACCENT)
        canvas.setLineWidth(1.4)
        canvas.drawPath(line)

    def _draw_limit(self) -> None:
        canvas, y = self.canv, self._y(self._limit)
        canvas.setStrokeColor(LIMIT_COLOR)
        canvas.setLineWidth(1.2)
        canvas.setDash(6, 3)
        canvas.line(_LEFT, y, WIDTH, y)
        self._write(WIDTH, y + 3, self._limit_label, align=1.0, color=LIMIT_COLOR)

    def _write(
        self,
        x: float,
        y: float,
        text: str,
        size: float = LABEL_SIZE,
        *,
        bold: bool = False,
        align: float = 0.0,
        color: HexColor | None = None,
    ) -> None:
        """Writes a line of which the share `align` is left of x."""
        self.canv.setFillColor(color or (INK if bold else SOFT))
        self._text.draw(self.canv, x - align * self._text.width(text, size, bold=bold), y, text, size, bold=bold)

    def _x(self, days: float) -> float:
        return _LEFT + _PLOT_WIDTH * days / len(self._days)

    def _y(self, sessions: int) -> float:
        return _BOTTOM + _PLOT_HEIGHT * sessions / self._top


def axis_top(most: int) -> int:
    """A number with room above `most` whose quarters are round."""
    power: int = 10 ** (len(str(max(1, most))) - 1)
    tenths = next(tenths for tenths in _TOPS if tenths * power >= most * 10.5)
    return math.ceil(tenths * power / 10 / _STEPS) * _STEPS
