"""Usage as a picture: sessions by day against the limit, with the forecast's range. A pure renderer of SVG.

It needs nothing but the standard library. Billing prints the like on closing statements with the means of its PDFs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 720
HEIGHT: Final = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 48, 56
_PLOT_WIDTH: Final = WIDTH - _LEFT - _RIGHT
_PLOT_HEIGHT: Final = HEIGHT - _TOP - _BOTTOM
_DATES_MAX: Final = 8
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.title{font-size:15px;font-weight:bold}.grid{stroke:#ddd}"
    ".bar{fill:#9db8d9}.used{fill:none;stroke:#1f4e8c;stroke-width:2}.forecast{fill:none;stroke:#1f4e8c;"
    "stroke-width:2;stroke-dasharray:5 4}.range{fill:#1f4e8c;fill-opacity:.15}"
    ".limit{stroke:#b3261e;stroke-width:2;stroke-dasharray:8 4}"
)


@dataclass(frozen=True, slots=True)
class ChartDay:
    """A day of a period: sessions from the period's start to the day's end."""

    end_time: datetime
    sessions: int
    """Counted ones where the day is over, projected ones where it is to come."""
    sessions_low: int
    sessions_high: int
    actual: bool
    """The day is over."""


def usage_svg(title: str, days: Sequence[ChartDay], *, sessions_used: int, sessions_limit: int) -> str:
    """Draws a period as an SVG document.

    Columns are the sessions of each day, the line is their sum, dashed where it is projected, within the range that the
    forecast gives; the limit lies across. Text of callers is escaped, and nothing is loaded from elsewhere.

    Args:
        title: what stands above.
        days: the period's days in order.
        sessions_used: counted sessions so far.
        sessions_limit: sessions that the period allows.

    Returns:
        The document, as text.
    """
    top = _nice_top(max([sessions_limit, sessions_used, 1, *(day.sessions_high for day in days)]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{_text(title)}</title><desc>{sessions_used:,} of {sessions_limit:,} sessions used</desc>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="20">{_text(title)}</text>',
        f'<text x="{_LEFT}" y="38">{sessions_used:,} of {sessions_limit:,} sessions used{_projection(days)}</text>',
        *_grid(top),
        *_bars(days, top),
        *_lines(days, top),
        *_limit(sessions_limit, top),
        *_dates(days),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    """Escaped, without the control characters that XML has no place for."""
    return escape("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text))


def _projection(days: Sequence[ChartDay]) -> str:
    if not days or days[-1].actual:
        return ""
    last = days[-1]
    return f"; {last.sessions:,} projected ({last.sessions_low:,} to {last.sessions_high:,})"


def _nice_top(most: int) -> int:
    """The least of 1, 2, 2.5 and 5 times a power of ten that leaves room above `most`, in fours."""
    power: int = 10 ** max(0, math.floor(math.log10(most)))
    wanted = next(factor for factor in (1, 2, 2.5, 4, 5, 8, 10, 20) if factor * power >= most * 1.05)
    return max(4, math.ceil(wanted * power / 4) * 4)


def _x(index: float, count: int) -> float:
    return _LEFT + _PLOT_WIDTH * index / count


def _y(sessions: float, top: int) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - sessions / top)


def _grid(top: int) -> Iterator[str]:
    for step in range(5):
        sessions = top * step // 4
        y = _y(sessions, top)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{sessions:,}</text>'


def _bars(days: Sequence[ChartDay], top: int) -> Iterator[str]:
    before = 0
    for index, day in enumerate(days):
        if not day.actual:
            return
        y = _y(day.sessions - before, top)
        left, right = _x(index + 0.15, len(days)), _x(index + 0.85, len(days))
        height = _TOP + _PLOT_HEIGHT - y
        yield f'<rect class="bar" x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" height="{height:.1f}"/>'
        before = day.sessions


def _lines(days: Sequence[ChartDay], top: int) -> Iterator[str]:
    count = len(days)
    over = [(0.0, 0), *((index + 1.0, day.sessions) for index, day in enumerate(days) if day.actual)]
    ahead = [(index + 1.0, day) for index, day in enumerate(days) if not day.actual]
    if len(over) > 1:
        yield f'<polyline class="used" points="{_points(over, count, top)}"/>'
    if ahead:
        high = [over[-1], *((index, day.sessions_high) for index, day in ahead)]
        low = [(index, day.sessions_low) for index, day in reversed(ahead)]
        yield f'<polygon class="range" points="{_points([*high, *low], count, top)}"/>'
        middle = [over[-1], *((index, day.sessions) for index, day in ahead)]
        yield f'<polyline class="forecast" points="{_points(middle, count, top)}"/>'


def _points(found: Sequence[tuple[float, int]], count: int, top: int) -> str:
    return " ".join(f"{_x(index, count):.1f},{_y(sessions, top):.1f}" for index, sessions in found)


def _limit(limit: int, top: int) -> Iterator[str]:
    y = _y(limit, top)
    yield f'<line class="limit" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>'
    yield f'<text x="{WIDTH - _RIGHT}" y="{y - 6:.1f}" text-anchor="end">limit {limit:,}</text>'


def _dates(days: Sequence[ChartDay]) -> Iterator[str]:
    step = max(1, math.ceil(len(days) / _DATES_MAX))
    for index in range(0, len(days), step):
        day = days[index].end_time
        x = _x(index + 1, len(days))
        yield f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 20}" text-anchor="middle">{day.day} {day:%b}</text>'
