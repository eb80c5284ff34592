"""Filters: which documents a query or a deletion means.

    {"path": value}                 equality
    {"path": {"$op": operand, …}}   every comparison holds
    {"$and": [filter, …]}, {"$or": [filter, …]}, {"$not": filter}

A path names a value by the names and array positions that lead to it. Nothing is there where one of them is not.

- $eq holds for an equal value: 1 equals 1.0, an object equals one with the same members in any order. null equals
  null alone; an array is compared as a whole.
- $gt, $gte, $lt, $lte compare numbers with numbers, texts with texts by code point, and false with true; with another
  kind, or where nothing is there, they do not hold.
- $ne, $nin and $not hold exactly where $eq, $in or the filter does not: also where nothing is there.
- $exists says whether anything is there, null included.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from services.shared.errors import FlowStackError, invalid_request
from services.vault.domain.codes import CONTAINER, code_of, encode_path
from services.vault.domain.json_text import JsonError, ValueOfJson, parse

FIELD: Final = "filter_json"
LEVELS_MAX: Final = 16
CONDITIONS_MAX: Final = 256


class Operator(Enum):
    """What compares a value with codes."""

    EQ = "$eq"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"
    IN = "$in"
    EXISTS = "$exists"


@dataclass(frozen=True, slots=True)
class Condition:
    """The value at a path, compared."""

    path: tuple[str, ...]
    """Encoded names and positions."""
    operator: Operator
    codes: tuple[str, ...] = ()
    """The operand's code; of IN each one's; of EXISTS none."""


@dataclass(frozen=True, slots=True)
class All:
    """Every filter holds. Without any, every document is meant."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one filter holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The filter does not hold."""

    filter: Filter


Filter: TypeAlias = "Condition | All | AnyOf | Not"

EVERYTHING: Final = All(())

_NEGATED: Final = {"$ne": Operator.EQ, "$nin": Operator.IN}
_ORDERING: Final = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_COMPARISONS: Final = {operator.value: operator for operator in Operator} | _NEGATED
_NAMES: Final = ", ".join([*_COMPARISONS, "$and", "$or", "$not"])


def parse_filter(text: str) -> Filter:
    """The filter of a text; empty means every document.

    Raises:
        FlowStackError: INVALID_REQUEST about `filter_json`: it is no filter, or larger than filters may be.
    """
    if not text:
        return EVERYTHING
    try:
        value = parse(text)
        if not isinstance(value, dict):
            raise JsonError("must be a JSON object")
        return _Reader().filter(value, 1) if value else EVERYTHING
    except JsonError as error:
        raise _invalid(str(error)) from None


def parse_deletion(text: str) -> Filter:
    """The filter of a deletion, which has to say which documents.

    Raises:
        FlowStackError: INVALID_REQUEST, also for an empty filter.
    """
    found = parse_filter(text)
    if found == EVERYTHING:
        raise _invalid("must not be empty: to delete a whole collection set all_documents")
    return found


def _invalid(description: str) -> FlowStackError:
    return invalid_request(FIELD, description)


class _Reader:
    """Reads one filter, and counts its conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, value: ValueOfJson, level: int) -> Filter:
        if not isinstance(value, dict) or not value:
            raise JsonError("must hold objects that are not empty where filters stand")
        if level > LEVELS_MAX:
            raise JsonError(f"must not have more than {LEVELS_MAX} levels")
        parts = tuple(self._member(name, one, level) for name, one in value.items())
        return parts[0] if len(parts) == 1 else All(parts)

    def _member(self, name: str, value: ValueOfJson, level: int) -> Filter:
        if name == "$not":
            return Not(self.filter(value, level + 1))
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise JsonError("must have an array of filters, not empty, after $and and $or")
            parts = tuple(self.filter(one, level + 1) for one in value)
            return All(parts) if name == "$and" else AnyOf(parts)
        if name.startswith("$"):
            raise JsonError(f"holds an operator where a path stands; operators are {_NAMES}")
        if not name:
            raise JsonError("must not have an empty path")
        return self._comparisons(encode_path(name), value)

    def _comparisons(self, path: tuple[str, ...], value: ValueOfJson) -> Filter:
        if not isinstance(value, dict) or not any(name.startswith("$") for name in value):
            return self._condition(path, "$eq", value)
        parts = tuple(self._condition(path, name, operand) for name, operand in value.items())
        return parts[0] if len(parts) == 1 else All(parts)

    def _condition(self, path: tuple[str, ...], name: str, operand: ValueOfJson) -> Filter:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            raise JsonError(f"must not have more than {CONDITIONS_MAX} conditions")
        operator = _COMPARISONS.get(name)
        if operator is None:
            raise JsonError(f"holds an operator that does not compare a value; operators are {_NAMES}")
        if operator is Operator.EXISTS:
            if not isinstance(operand, bool):
                raise JsonError("must have true or false after $exists")
            exists = Condition(path, operator)
            return exists if operand else Not(exists)
        condition = Condition(path, operator, _codes(operator, operand))
        return Not(condition) if name in _NEGATED else condition


def _codes(operator: Operator, operand: ValueOfJson) -> tuple[str, ...]:
    if operator is Operator.IN:
        if not isinstance(operand, list):
            raise JsonError("must have an array after $in and $nin")
        return tuple(sorted({code_of(one) for one in operand}))
    code = code_of(operand)
    if operator in _ORDERING and code >= CONTAINER:
        raise JsonError("must compare with a number, a text, a boolean or null: objects and arrays have no order")
    return (code,)
