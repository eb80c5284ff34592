"""What filters and sorts mean, said once more: in plain Python over decoded documents, with no code of the vault's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, Final

MISSING: Final = object()
CUT: Final = 127
"""How many characters of a text decide about its place."""


def decode(text: str) -> Any:
    """A document's value; every number is a Decimal."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def value_at(document: Any, path: str) -> Any:
    """The value at a dotted path; MISSING where nothing is there."""
    value = document
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and str(int(name)) == name:
            if int(name) >= len(value):
                return MISSING
            value = value[int(name)]
        else:
            return MISSING
    return value


def kind(value: Any) -> int:
    """The place of a value's kind among the kinds."""
    if value is MISSING:
        return 0
    if value is None:
        return 1
    if isinstance(value, bool):
        return 4
    if isinstance(value, Decimal):
        return 2
    if isinstance(value, str):
        return 3
    return 5


def equal(left: Any, right: Any) -> bool:
    """Whether two values are the same; true is not 1."""
    if kind(left) != kind(right):
        return False
    if isinstance(left, dict) or isinstance(right, dict):
        both = isinstance(left, dict) and isinstance(right, dict)
        return both and left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def matches(document: Any, wanted: Any) -> bool:
    """Whether a filter lets a document through."""
    return all(_member(document, name, value) for name, value in wanted.items())


def _member(document: Any, name: str, value: Any) -> bool:
    if name == "$and":
        return all(matches(document, one) for one in value)
    if name == "$or":
        return any(matches(document, one) for one in value)
    if name == "$not":
        return not matches(document, value)
    held = value_at(document, name)
    if isinstance(value, dict) and any(operator.startswith("$") for operator in value):
        return all(_compares(held, operator, operand) for operator, operand in value.items())
    return equal(held, value)


def _compares(held: Any, operator: str, operand: Any) -> bool:
    match operator:
        case "$eq":
            return equal(held, operand)
        case "$ne":
            return not equal(held, operand)
        case "$in":
            return any(equal(held, one) for one in operand)
        case "$nin":
            return not any(equal(held, one) for one in operand)
        case "$exists":
            return (held is not MISSING) is operand
    if kind(held) != kind(operand):
        return False
    order = compare(held, operand)
    return {"$gt": order > 0, "$gte": order >= 0, "$lt": order < 0, "$lte": order <= 0}[operator]


def compare(left: Any, right: Any) -> int:
    """Below 0 where `left` comes first, 0 where neither does."""
    if kind(left) != kind(right):
        return kind(left) - kind(right)
    if kind(left) in (0, 1, 5):
        return 0
    return int(left > right) - int(left < right)


@dataclass
class Kept:
    """A document as the reference keeps it."""

    key: str
    value: Any


def query(documents: list[Kept], wanted: Any, sort: list[str]) -> list[str]:
    """The keys of the documents that a filter lets through, sorted; a minus before a name makes it descend."""

    def order(left: Kept, right: Kept) -> int:
        for name in sort:
            path = name.removeprefix("-")
            if path == "_key":
                found = int(left.key > right.key) - int(left.key < right.key)
            else:
                found = compare(_cut(value_at(left.value, path)), _cut(value_at(right.value, path)))
            if found:
                return -found if name.startswith("-") else found
        return int(left.key > right.key) - int(left.key < right.key)

    through = [one for one in documents if matches(one.value, wanted)]
    return [one.key for one in sorted(through, key=cmp_to_key(order))]


def _cut(value: Any) -> Any:
    return value[:CUT] if isinstance(value, str) else value
