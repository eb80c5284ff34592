"""Codes sort as the values that they stand for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vault.domain.codes import EXPONENT_DIGITS_MAX, code_of, encode_name, next_kind
from services.vault.domain.json_text import JsonError, Number, parse

numbers = st.one_of(
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: str(number).lower()),
    st.tuples(st.sampled_from(("", "-")), st.text("0123456789", min_size=1, max_size=40), st.integers(-99, 99)).map(
        lambda parts: f"{parts[0]}{parts[1].lstrip('0') or '0'}.0{parts[1]}e{parts[2]}"
    ),
)


def code(text: str) -> str:
    return code_of(parse(text))


@given(left=numbers, right=numbers)
def test_numbers_sort_as_they_are(left: str, right: str) -> None:
    assert (code(left) < code(right)) == (Decimal(left) < Decimal(right))
    assert (code(left) == code(right)) == (Decimal(left) == Decimal(right))


@pytest.mark.parametrize(
    "ascending",
    [
        ["-1e999999998", "-1e400", "-100", "-99.5", "-10", "-9", "-1.01", "-1", "-0.1", "-1e-400", "-1e-999999998"],
        ["0", "1e-999999998", "1e-400", "0.1", "1", "1.01", "9", "10", "99.5", "100", "1e400", "1e999999998"],
        ["9007199254740992", "9007199254740992.5", "9007199254740993", "18446744073709551616"],
    ],
)
def test_numbers_beyond_pythons_sort_too(ascending: list[str]) -> None:
    codes = [code(text) for text in ascending]
    assert codes == sorted(codes)
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    "alike", [["0", "-0", "0.0", "0e5", "-0E-99999999999"], ["1", "1.0", "10e-1", "0.1E+1", "1e0"]]
)
def test_one_number_has_one_code(alike: list[str]) -> None:
    assert len({code(text) for text in alike}) == 1


@pytest.mark.parametrize("text", ["1e1000000000", "-1e-1000000001", "1e99999999999999999999999", "12e999999999"])
def test_an_exponent_is_bounded(text: str) -> None:
    with pytest.raises(JsonError, match=f"more than {EXPONENT_DIGITS_MAX} digits"):
        code(text)


@given(left=st.text(), right=st.text())
def test_texts_sort_by_code_point(left: str, right: str) -> None:
    assert (code_of(left).encode() < code_of(right).encode()) == (left < right)


def test_kinds_sort_apart() -> None:
    values: list[Any] = [None, Number("-1e9"), Number("1e9"), "", "\U0010ffff", False, True, [], {}]
    codes = [code_of(value) for value in values]
    assert codes[:-2] == sorted(codes[:-2])
    assert all(code > codes[6] for code in codes[7:])
    for value in (None, Number("9e9"), "\U0010ffff" * 9, True):
        assert code_of(value) < next_kind(code_of(value))


@pytest.mark.parametrize(
    ("left", "right", "are_equal"),
    [
        ('{"a":1,"b":[1.0]}', '{ "b" : [ 1 ], "a" : 1e0 }', True),
        ("[]", "{}", False),
        ("[1]", '{"0":1}', False),
        ("[1]", '{"0":1,"%a":""}', False),
        ("[1,2]", "[2,1]", False),
        ('{"a":null}', "{}", False),
        ('["1"]', "[1]", False),
        ("[true]", "[1]", False),
        ('{"\\u00e9":1}', '{"é":1}', True),
    ],
)
def test_objects_and_arrays_are_equal_or_not(left: str, right: str, are_equal: bool) -> None:
    assert (code(left) == code(right)) is are_equal


@given(names=st.lists(st.text().filter(lambda name: "\0" not in name), unique=True, max_size=30))
def test_names_stay_apart_and_need_no_escape(names: list[str]) -> None:
    encoded = [encode_name(name) for name in (*names, "", "%", "%a", "%25", '"', "\\", "\n")]
    assert len(set(encoded)) == len({*names, "", "%", "%a", "%25", '"', "\\", "\n"})
    assert not any(character in name or ord(character) < 32 for name in encoded for character in '"\\')
    assert "%a" not in encoded, "it tells arrays from objects"
