"""The picture of a period."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest

from flowstack.charts import HEIGHT, WIDTH, ChartDay, usage_svg

START = datetime(2026, 3, 10, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def day(number: int, sessions: int, spread: int = 0, *, actual: bool = True) -> ChartDay:
    end = START + timedelta(days=number + 1)
    return ChartDay(end, sessions, sessions - spread, sessions + spread, actual)


def drawn(days: list[ChartDay], limit: int = 1_000, title: str = "March") -> ET.Element:
    used = max((one.sessions for one in days if one.actual), default=0)
    return ET.fromstring(usage_svg(title, days, sessions_used=used, sessions_limit=limit))


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [one for one in root.iter() if one.get("class") == name]


def test_days_are_columns_and_the_rest_a_range() -> None:
    days = [day(0, 100), day(1, 300), day(2, 400, 50, actual=False), day(3, 500, 90, actual=False)]
    root = drawn(days)
    heights = [float(one.attrib["height"]) for one in of_class(root, "bar")]
    # The second day had twice the sessions of the first.
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    (limit,) = of_class(root, "limit")
    (forecast,) = of_class(root, "forecast")
    (area,) = of_class(root, "range")
    ends = [tuple(map(float, point.split(","))) for point in forecast.attrib["points"].split()]
    corners = [tuple(map(float, point.split(","))) for point in area.attrib["points"].split()]
    assert len(ends) == 3
    assert float(limit.attrib["y1"]) < ends[-1][1] < ends[0][1], (
        "the limit lies above what is projected, that above now"
    )
    assert min(y for _, y in corners) < ends[-1][1] < max(y for x, y in corners if x == ends[-1][0])
    assert "300 of 1,000 sessions used; 500 projected (410 to 590)" in "".join(root.itertext())


@pytest.mark.parametrize(
    "days",
    [[], [day(0, 0)], [day(0, 3, 3, actual=False)], [day(n, 10**9 * (n + 1)) for n in range(31)]],
    ids=["nothing", "an empty day", "only ahead", "very many"],
)
@pytest.mark.parametrize("limit", [0, 25, 2_000_000_000])
def test_everything_lies_within_the_picture(days: list[ChartDay], limit: int) -> None:
    root = drawn(days, limit)
    for one in root.iter():
        for name, bound in (("x", WIDTH), ("y", HEIGHT), ("x1", WIDTH), ("y1", HEIGHT), ("y2", HEIGHT)):
            assert 0 <= float(one.get(name, 0)) <= bound
        for point in one.get("points", "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_text_of_callers_stays_text() -> None:
    root = drawn([day(0, 1)], title='<script>alert("x")</script>&\x00')
    assert not list(root.iter(f"{SVG}script"))
    assert '<script>alert("x")</script>&\ufffd' in "".join(root.itertext())
