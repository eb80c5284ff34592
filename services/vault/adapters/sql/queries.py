"""Finding documents in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.expressions import Bool, Expressions, after
from services.vault.adapters.sql.tables import DOCUMENTS, SORT_ENTRIES
from services.vault.adapters.sql.time_limit import Watch
from services.vault.domain.codes import next_kind
from services.vault.domain.filters import Condition, Filter, Operator
from services.vault.domain.indexing import SortIndex, demanded, sort_code
from services.vault.domain.sorting import SortField, SortKind
from services.vault.store import Found, Scope, Slice

_D: Final = DOCUMENTS.c
_E: Final = SORT_ENTRIES.c


class SqlQueries:
    """Finds documents of one collection."""

    def __init__(self, connection: AsyncConnection, watch: Watch) -> None:
        self._connection = connection
        self._watch = watch
        self._expressions = Expressions(connection.dialect.name)

    async def find(
        self,
        scope: Scope,
        wanted: Filter,
        order: Sequence[SortField],
        index: SortIndex | None,
        part: Slice,
    ) -> Sequence[Found]:
        """Documents that the filter lets through, in order, by an index where there is one."""
        values = [self._order_value(field, index) for field in order]
        query = select(_D.document_id, _D.size_bytes, *values)
        query = query.where(
            *self._in_collection(scope, index),
            is_live(scope.now_us),
            self._expressions.matches(wanted),
        )
        if index is not None:
            query = _by_index(query, index, wanted)
        if part.after is not None:
            query = query.where(after(values, order, part.after))
        query = query.order_by(*(v.desc() if f.descending else v.asc() for f, v in zip(order, values, strict=True)))
        async with self._watch.limit(self._connection):
            rows = await self._connection.execute(query.limit(part.limit))
        return [Found(row[0], row[1], tuple(row[2:])) for row in rows]

    def _in_collection(self, scope: Scope, index: SortIndex | None) -> tuple[Bool, ...]:
        account_id: ColumnElement[str] = _D.account_id
        collection: ColumnElement[str] = _D.collection
        if index is not None:
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


def _by_index(query: Select[Any], index: SortIndex, wanted: Filter) -> Select[Any]:
    bounds = [bound for one in demanded(wanted) if one.path == index.path for bound in _bounds(one)]
    joined = query.select_from(SORT_ENTRIES.join(DOCUMENTS, _E.document_id == _D.document_id))
    return joined.where(_E.index_id == index.index_id, *bounds)


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
