"""Filters and orders as SQL: bound values only, and the same meaning on SQLite and PostgreSQL.

The codes that documents are projected to (see `domain/codes.py`) are compared as text, byte by byte. All that differs
between the two stores is how the code at a path is got out of the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    String,
    UnaryExpression,
    and_,
    any_,
    bindparam,
    case,
    cast,
    collate,
    false,
    func,
    not_,
    or_,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.operators import custom_op

from services.vault.adapters.sql.tables import DOCUMENTS, JsonbText
from services.vault.domain.codes import CONTAINER, next_kind
from services.vault.domain.filters import All, AnyOf, Condition, Filter, Not, Operator
from services.vault.domain.sorting import SORT_CHARACTERS_MAX, Position, SortField, SortKind

Bool = ColumnElement[bool]

_OWN: Final = {
    SortKind.KEY: DOCUMENTS.c.key,
    SortKind.CREATE_TIME: DOCUMENTS.c.create_us,
    SortKind.UPDATE_TIME: DOCUMENTS.c.update_us,
}


_PLUS: Final[custom_op[str]] = custom_op("+")


class Expressions:
    """Makes expressions over the documents table for one kind of database."""

    def __init__(self, dialect: str) -> None:
        self._is_postgresql = dialect == "postgresql"

    def code(self, path: Sequence[str]) -> ColumnElement[str]:
        """The code at a path; the empty text where nothing is there, so that no comparison is ever NULL."""
        if self._is_postgresql:
            code: ColumnElement[str] = collate(type_coerce(DOCUMENTS.c.body.op("#>>")(_names(path)), String), "C")
        else:
            # An encoded name has nothing in it that would end it or that SQLite would take for an escape.
            text = "$" + "".join(f'."{name}"' for name in path)
            code = func.json_extract(DOCUMENTS.c.body, text, type_=String)
        return func.coalesce(code, "", type_=String)

    def sort_value(self, path: Sequence[str]) -> ColumnElement[str]:
        """What the value at a path sorts as; nothing there sorts before every value."""
        code = self.code(path)
        return case((code >= CONTAINER, CONTAINER), else_=func.substr(code, 1, SORT_CHARACTERS_MAX, type_=String))

    def unindexed(self, column: ColumnElement[str]) -> ColumnElement[str]:
        """A column to be compared without being looked up in an index of the database's own.

        Where there are better ways to the documents it would rather look through the collection: it knows nothing of a
        LIMIT that is reached soon, nor of how few the others leave.
        """
        if self._is_postgresql:
            return column.concat("")
        return UnaryExpression(column, operator=_PLUS, type_=String())

    def matches(self, wanted: Filter) -> Bool:
        """Whether a document is let through: true or false, never NULL, so that NOT means what it says."""
        if isinstance(wanted, All):
            return and_(true(), *(self.matches(one) for one in wanted.filters))
        if isinstance(wanted, AnyOf):
            return or_(false(), *(self.matches(one) for one in wanted.filters))
        if isinstance(wanted, Not):
            return not_(self.matches(wanted.filter))
        return self._condition(wanted)

    def _condition(self, condition: Condition) -> Bool:
        code = self.code(condition.path)
        if condition.operator is Operator.EXISTS:
            return code > ""
        if condition.operator in (Operator.EQ, Operator.IN):
            return self._is_one_of(condition.path, condition.codes)
        (operand,) = condition.codes
        return and_(*range_of(code, condition.operator, operand))

    def _is_one_of(self, path: Sequence[str], operands: Sequence[str]) -> Bool:
        """One expression for all operands: databases bound how deep an expression nests."""
        code = self.code(path)
        if not self._is_postgresql:
            # Objects and arrays were written by the same hand, names in order and without spaces.
            return code.in_(operands)
        scalars = [one for one in operands if one < CONTAINER]
        containers = [one for one in operands if one >= CONTAINER]
        parts: list[Bool] = [code.in_(scalars)] if scalars else []
        if containers:
            inner = type_coerce(DOCUMENTS.c.body.op("#>")(_names(path)), JsonbText())
            held = cast(bindparam(None, containers, type_=ARRAY(String)), ARRAY(JsonbText()))
            parts.append(and_(code >= CONTAINER, func.coalesce(inner == any_(held), false())))
        return or_(false(), *parts)

    def order_value(self, field: SortField) -> ColumnElement[Any]:
        """What a field of an order compares."""
        own = _OWN.get(field.kind)
        return self.sort_value(field.path) if own is None else own


def _names(path: Sequence[str]) -> ColumnElement[Any]:
    return bindparam(None, list(path), type_=ARRAY(String))


def range_of(code: ColumnElement[str], operator: Operator, operand: str) -> list[Bool]:
    """The bounds of an ordering operator, within the operand's kind."""
    if operator is Operator.GT:
        return [code > operand, code < next_kind(operand)]
    if operator is Operator.GTE:
        return [code >= operand, code < next_kind(operand)]
    if operator is Operator.LT:
        return [code < operand, code >= operand[0]]
    return [code <= operand, code >= operand[0]]


def after(values: Sequence[ColumnElement[Any]], order: Sequence[SortField], position: Position) -> Bool:
    """Whether a document comes after a position in an order."""
    alternatives: list[Bool] = []
    alike: list[Bool] = []
    for value, field, held in zip(values, order, position, strict=True):
        alternatives.append(and_(*alike, value < held if field.descending else value > held))
        alike.append(value == held)
    # Implied by the rest, and what an index can use.
    first = values[0] <= position[0] if order[0].descending else values[0] >= position[0]
    return and_(first, or_(*alternatives))
