"""Schemas of tools, JSON, and the arithmetic of the billing helpers."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstack import InvalidRequestError, ToolDefinitionError, _advice
from flowstack._json import NotJsonError, encode
from flowstack._tools import call, define


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def paint(area: float, color: Color = Color.RED, tags: list[str] | None = None, _json: Any = 1) -> str:
    """Paints a wall.

    With care.

    Args:
        area: square metres.
        color: of the paint.
    """
    return f"{area} {color.value} {tags} {_json}"


def test_a_schema_says_what_hints_and_docstring_say() -> None:
    tool = define(paint)
    schema = json.loads(tool.schema_json)
    assert (tool.name, tool.description) == ("paint", "Paints a wall.\n\nWith care.")
    assert schema["required"] == ["area"]
    assert schema["properties"]["area"] == {"type": "number", "description": "square metres."}
    assert schema["properties"]["color"]["default"] == "red"
    assert schema["$defs"]["Color"]["enum"] == ["red", "blue"]
    assert set(schema["properties"]) == {"area", "color", "tags", "_json"}
    assert "title" not in tool.schema_json
    assert call(tool, '{"area": 2, "color": "blue"}') == "2.0 blue None 1"


def takes_anything(*args: int) -> None: ...
def takes_names(**kwargs: int) -> None: ...
def positional(a: int, /) -> None: ...
def of_a_type_that_json_has_not(a: Callable[[], int]) -> None: ...
def of_an_unknown_type(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def generates() -> Any:
    yield 1


@pytest.mark.parametrize(
    "function",
    [takes_anything, takes_names, positional, of_a_type_that_json_has_not, of_an_unknown_type, generates, lambda: 1],
)
def test_what_a_model_cannot_call_is_refused_at_decoration(function: Callable[..., Any]) -> None:
    with pytest.raises(ToolDefinitionError, match=r"(?i)tool"):
        define(function)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).filter(lambda value: "\u0000decimal:" not in repr(value))
)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert json.loads(encode(value)) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_decimals_keep_every_digit(value: Decimal) -> None:
    assert json.loads(encode({"d": value}), parse_float=Decimal, parse_int=Decimal) == {"d": value}


@pytest.mark.parametrize("value", [float("inf"), Decimal("NaN"), object(), {(1, 2): 3}, {1, 2}])
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(NotJsonError):
        encode(value)


@pytest.mark.parametrize(
    ("text", "count", "parts"),
    [
        ("1. a\n2. b\nmore\n3) c", 3, ["a", "b\nmore", "c"]),
        ("Here:\n1. has 2. inside\n2. b", 2, ["has 2. inside", "b"]),
        ("Process: 1. a 2. b", 2, ["a", "b"]),
        ("**1.** a\n**2.** b", 2, ["a", "b"]),
        ("### 1. a\n### 2. b", 2, ["a", "b"]),
        ("1. a\n3. c", 3, ["a", "", "c"]),
        ("no numbers", 2, ["no numbers", ""]),
        ("", 0, []),
    ],
)
def test_answers_to_batches(text: str, count: int, parts: list[str]) -> None:
    assert _advice.split_batch(text, count) == parts


NOW = datetime(2026, 1, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "expired"),
    [(NOW, True), (NOW - timedelta(seconds=1), True), ("2026-01-11T00:00:01+00:00", False), (None, False)],
)
def test_expiry(moment: Any, expired: bool) -> None:
    assert _advice.expired({"expires_at": moment}, NOW) is expired


@pytest.mark.parametrize(
    ("history", "projected"),
    [
        ([], 310),  # 100 in ten days, and 21 to come
        ([("2026-01-10", 90), ("2026-01-11", 100)], 310),
        ([("2026-01-09", 60), ("2026-01-11", 100)], 520),
        ([("2025-12-30", 900), ("2026-01-11", 100)], 310),  # the period before says nothing
        ([("nonsense", 1), ("2026-01-11", 100)], 310),
        ([("2026-01-11", 50), ("2026-01-11T00:00:02", 100)], 310),  # two seconds apart
        ([("2026-01-11", 50), ("2026-01-11T23:59:59", 100)], 310),  # not quite a day
        ([("2099-01-11", 50), ("2026-01-11", 100)], 310),
    ],
)
def test_projections(history: list[tuple[str, int]], projected: int) -> None:
    snapshots = [
        {"timestamp": f"{day}T00:00:00+00:00" if len(day) == 10 else f"{day}+00:00", "sessions_used": used}
        for day, used in history
    ]
    assert _advice.project_sessions(snapshots, 100, START, END, NOW) == projected


START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


@given(
    st.lists(st.tuples(st.timedeltas(timedelta(days=-31), timedelta(days=62)), st.integers(0, 1000))),
    st.integers(0, 1000),
    st.timedeltas(timedelta(0), timedelta(days=31)),
)
def test_no_projection_is_faster_than_the_fastest_day(
    history: list[tuple[timedelta, int]], used: int, passed: timedelta
) -> None:
    snapshots = [{"timestamp": (START + after).isoformat(), "sessions_used": count} for after, count in history]
    projected = _advice.project_sessions(snapshots, used, START, END, START + passed)
    most = max([used, *(count for _, count in history)])
    assert used <= projected <= used + most * 31


@pytest.mark.parametrize(
    "history", [None, 5, "x", {}, ["x"], [{}], [{"sessions_used": "a"}], [{"sessions_used": float("nan")}]], ids=repr
)
def test_what_is_no_history_is_refused(history: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^history"):
        _advice.project_sessions(history, 100, START, END, NOW)


@pytest.mark.parametrize(("used", "saving"), [(10, 50.0), (100, 35.0), (900, 0.0)])
def test_savings_of_a_smaller_plan(used: int, saving: float) -> None:
    plans = [(0.0, 25), (15.0, 200), (50.0, 1000)]
    assert _advice.downgrade_saving(50.0, used, plans) == saving
