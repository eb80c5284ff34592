"""Filters and orders of documents. Pure.

    {"path": value}, {"path": {"$op": operand, …}}, {"$and": […]}, {"$or": […]}, {"$not": {…}}

A path names a value by the names and array positions that lead to it. $gt and its like compare numbers with numbers,
texts with texts by code point and booleans with booleans; with another kind, or where nothing is there, they do not
hold. $ne, $nin and $not hold exactly where $eq, $in or the filter does not, also where nothing is there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from flowstack.testing._json import JsonError, parse_object

LEVELS_MAX: Final = 16
CONDITIONS_MAX: Final = 256

Predicate: TypeAlias = Callable[[Any], bool]

NOTHING: Final = object()
"""What a path leads to where nothing is there."""

_ORDERINGS: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
)
_NAMES: Final = "$eq, $gt, $gte, $lt, $lte, $in, $exists, $ne, $nin, $and, $or, $not"


def parse_filter(text: str) -> Predicate:
    """The filter of a text; empty means every document.

    Raises:
        JsonError: it is no filter, or larger than filters may be.
    """
    value = parse_object(text) if text else {}
    return _Reader().filter(value, 1) if value else lambda _: True


def value_at(document: Any, path: str) -> Any:
    """The value at a dotted path; NOTHING where there is none."""
    value = document
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and str(int(name)) == name and int(name) < len(value):
            value = value[int(name)]
        else:
            return NOTHING
    return value


def kind_of(value: Any) -> int:
    """The kind of a value, in the order in which kinds sort."""
    if value is NOTHING:
        return 0
    if value is None:
        return 1
    if isinstance(value, bool):
        return 4
    if isinstance(value, Decimal):
        return 2
    return 3 if isinstance(value, str) else 5


def sort_key(value: Any) -> tuple[Any, ...]:
    """What a value sorts by: its kind first; objects and arrays are alike."""
    kind = kind_of(value)
    return (kind, value) if kind in (2, 3, 4) else (kind,)


def _equal(value: Any, other: Any) -> bool:
    # True is 1 to Python, and not to JSON.
    if kind_of(value) != kind_of(other):
        return False
    if isinstance(value, dict):
        return (
            isinstance(other, dict)
            and value.keys() == other.keys()
            and all(_equal(one, other[name]) for name, one in value.items())
        )
    if isinstance(value, list):
        return isinstance(other, list) and len(value) == len(other) and all(map(_equal, value, other))
    return bool(value == other)


class _Reader:
    """Reads one filter, and counts its conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, value: Any, level: int) -> Predicate:
        if not isinstance(value, dict) or not value:
            raise JsonError("must hold objects that are not empty where filters stand")
        if level > LEVELS_MAX:
            raise JsonError(f"must not have more than {LEVELS_MAX} levels")
        parts = [self._member(name, one, level) for name, one in value.items()]
        return lambda document: all(part(document) for part in parts)

    def _member(self, name: str, value: Any, level: int) -> Predicate:
        if name == "$not":
            inner = self.filter(value, level + 1)
            return lambda document: not inner(document)
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise JsonError("must have an array of filters, not empty, after $and and $or")
            parts = [self.filter(one, level + 1) for one in value]
            together = all if name == "$and" else any
            return lambda document: together(part(document) for part in parts)
        if name.startswith("$"):
            raise JsonError(f"holds an operator where a path stands; operators are {_NAMES}")
        if not name:
            raise JsonError("must not have an empty path")
        if not isinstance(value, dict) or not any(one.startswith("$") for one in value):
            value = {"$eq": value}
        tests = [self._test(operator_name, operand) for operator_name, operand in value.items()]
        return lambda document: all(test(value_at(document, name)) for test in tests)

    def _test(self, name: str, operand: Any) -> Predicate:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            raise JsonError(f"must not have more than {CONDITIONS_MAX} conditions")
        if name in ("$eq", "$ne"):
            return lambda value: _equal(value, operand) == (name == "$eq")
        if name in ("$in", "$nin"):
            if not isinstance(operand, list):
                raise JsonError("must have an array after $in and $nin")
            return lambda value: any(_equal(value, one) for one in operand) == (name == "$in")
        if name == "$exists":
            if not isinstance(operand, bool):
                raise JsonError("must have true or false after $exists")
            return lambda value: (value is not NOTHING) == operand
        compare = _ORDERINGS.get(name)
        if compare is None:
            raise JsonError(f"holds an operator that does not compare a value; operators are {_NAMES}")
        if isinstance(operand, dict | list):
            raise JsonError("must compare with a number, a text, a boolean or null: objects and arrays have no order")
        if operand is None:
            return lambda value: value is None and name in ("$gte", "$lte")
        return lambda value: kind_of(value) == kind_of(operand) and compare(value, operand)
