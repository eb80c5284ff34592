"""Finding documents in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.expressions import Bool, Expressions, after
from services.vault.adapters.sql.tables import DOCUMENTS, SORT_ENTRIES
from services.vault.adapters.sql.time_limit import Watch
from services.vault.domain.codes import next_kind
from services.vault.domain.filters import Condition, Filter, Operator
from services.vault.domain.indexing import SortIndex, demanded, sort_code
from services.vault.domain.sorting import Position, SortField, SortKind
from services.vault.store import Found, Look, Scope, Stretch

_D: Final = DOCUMENTS.c
_E: Final = SORT_ENTRIES.c


class SqlQueries:
    """Finds documents of one collection."""

    def __init__(self, connection: AsyncConnection, watch: Watch) -> None:
        self._connection = connection
        self._watch = watch
        self._expressions = Expressions(connection.dialect.name)

    async def find(self, look: Look, index: SortIndex | None, stretch: Stretch | None = None) -> Sequence[Found]:
        """Documents that the filter lets through, in order, by an index where there is one."""
        query = self._select(look, index, is_looked_up=index is not None)
        if index is not None:
            query = query.select_from(SORT_ENTRIES.join(DOCUMENTS, _E.document_id == _D.document_id))
            query = query.where(*_in_index(index, look.wanted))
        if stretch is not None:
            query = query.where(*self._within(stretch, index))
        has_turns = stretch is None or not stretch.is_smallest
        async with self._watch.limit(self._connection, has_turns=has_turns, by_index=index is not None):
            return await self._found(query)

    async def find_among(self, look: Look, document_ids: Sequence[int]) -> Sequence[Found]:
        """Those of some documents that the filter lets through, looked up by their ids."""
        query = self._select(look, None, is_looked_up=True)
        return await self._found(query.where(_D.document_id.in_(document_ids)))

    async def end_of_stretch(
        self, look: Look, index: SortIndex | None, stretch: Stretch, documents: int
    ) -> Position | None:
        """Where a stretch ends, by an index alone: no document is read."""
        values = [self._order_value(field, index) for field in stretch.walk]
        among = self._in_collection(look.scope) if index is None else _in_index(index, look.wanted)
        query = select(*values).where(*among, *self._within(stretch, index))
        query = query.order_by(*_sorted(values, stretch.walk)).offset(documents - 1).limit(1)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else tuple(row)

    def _select(self, look: Look, index: SortIndex | None, *, is_looked_up: bool) -> Select[Any]:
        values = [self._order_value(field, index) for field in look.order]
        query = select(_D.document_id, _D.size_bytes, *values).where(
            *self._in_collection(look.scope, is_looked_up=is_looked_up),
            is_live(look.scope.now_us),
            self._expressions.matches(look.wanted),
        )
        if look.part.after is not None:
            query = query.where(after(values, look.order, look.part.after))
        return query.order_by(*_sorted(values, look.order)).limit(look.part.limit)

    async def _found(self, query: Select[Any]) -> Sequence[Found]:
        return [Found(row[0], row[1], tuple(row[2:])) for row in await self._connection.execute(query)]

    def _within(self, stretch: Stretch, index: SortIndex | None) -> list[Bool]:
        place = tuple_(*(self._order_value(field, index) for field in stretch.walk))
        descending = stretch.walk[0].descending
        bounds: list[Bool] = []
        if stretch.after is not None:
            bounds.append(place < stretch.after if descending else place > stretch.after)
        if stretch.until is not None:
            bounds.append(place >= stretch.until if descending else place <= stretch.until)
        return bounds

    def _in_collection(self, scope: Scope, *, is_looked_up: bool = False) -> tuple[Bool, ...]:
        account_id: ColumnElement[str] = _D.account_id
        collection: ColumnElement[str] = _D.collection
        if is_looked_up:
            account_id, collection = (self._expressions.unindexed(one) for one in (account_id, collection))
        return (account_id == scope.account_id, collection == scope.collection)

    def _order_value(self, field: SortField, index: SortIndex | None) -> ColumnElement[Any]:
        if index is not None and field.kind is SortKind.KEY:
            return _E.key
        if index is not None and field.path == index.path:
            return _E.value
        return self._expressions.order_value(field)


def is_live(now_us: int) -> Bool:
    """Whether a document has not expired."""
    return or_(_D.expire_us == 0, _D.expire_us > now_us)


def _sorted(values: Sequence[ColumnElement[Any]], order: Sequence[SortField]) -> list[ColumnElement[Any]]:
    return [value.desc() if field.descending else value.asc() for field, value in zip(order, values, strict=True)]


def _in_index(index: SortIndex, wanted: Filter) -> list[Bool]:
    """Where in an index the documents are."""
    bounds = [bound for one in demanded(wanted) if one.path == index.path for bound in _bounds(one)]
    return [_E.index_id == index.index_id, *bounds]


def _bounds(condition: Condition) -> list[Bool]:
    """Where in an index the documents are that a condition on its path lets through.

    Entries are cut short, so that the bounds take in what is alike as far as that; the condition itself decides.
    """
    operator = condition.operator
    if operator is Operator.EXISTS:
        return [_E.value > ""]
    if operator is Operator.IN:
        return [_E.value.in_(sorted({sort_code(code) for code in condition.codes}))]
    (code,) = condition.codes
    cut = sort_code(code)
    if operator is Operator.EQ:
        return [_E.value == cut]
    if operator in (Operator.GT, Operator.GTE):
        return [_E.value >= cut, _E.value < next_kind(code)]
    return [_E.value <= cut, _E.value >= code[0]]
