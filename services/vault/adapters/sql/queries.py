"""Finding documents in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.expressions import Bool, Expressions, after
from services.vault.adapters.sql.indexes import IndexState, SortIndex, SqlIndexes
from services.vault.adapters.sql.tables import DOCUMENTS, SORT_ENTRIES
from services.vault.domain.filters import Filter
from services.vault.domain.sorting import SortField, SortKind
from services.vault.store import Found, Position, Scope

_D: Final = DOCUMENTS.c
_E: Final = SORT_ENTRIES.c


class SqlQueries:
    """Finds documents of one collection."""

    def __init__(self, connection: AsyncConnection, indexes: SqlIndexes) -> None:
        self._connection = connection
        self._indexes = indexes
        self._expressions = Expressions(connection.dialect.name)

    async def find(
        self, scope: Scope, wanted: Filter, order: Sequence[SortField], position: Position | None, limit: int
    ) -> Sequence[Found]:
        """Documents that the filter lets through, in order, by an index where there is one."""
        values = [self._expressions.order_value(field) for field in order]
        index = await self._index_for(scope, order[0])
        if index is not None:
            values = [
                _E.value,
                *(_E.key if field.kind is SortKind.KEY else value for field, value in _rest(order, values)),
            ]
        query = select(_D.document_id, _D.size_bytes, *values).where(
            *in_scope(scope), self._expressions.matches(wanted)
        )
        if index is not None:
            query = _by_index(query, index)
        if position is not None:
            query = query.where(after(values, order, position))
        query = query.order_by(*(v.desc() if f.descending else v.asc() for f, v in zip(order, values, strict=True)))
        rows = await self._connection.execute(query.limit(limit))
        return [Found(row[0], row[1], tuple(row[2:])) for row in rows]

    async def _index_for(self, scope: Scope, field: SortField) -> SortIndex | None:
        if field.kind is not SortKind.PATH:
            return None
        for index in await self._indexes.of(scope.account_id, scope.collection):
            if index.path == field.path and index.state is IndexState.READY:
                return index
        return None

    async def find_for_deletion(self, scope: Scope, wanted: Filter, after_key: str, limit: int) -> Sequence[str]:
        """Keys of documents that the filter lets through, by key."""
        query = (
            select(_D.key)
            .where(*in_scope(scope), _D.key > after_key, self._expressions.matches(wanted))
            .order_by(_D.key)
            .limit(limit)
        )
        return (await self._connection.execute(query)).scalars().all()


def in_scope(scope: Scope) -> tuple[Bool, ...]:
    """The documents of a collection that are live."""
    return (
        _D.account_id == scope.account_id,
        _D.collection == scope.collection,
        or_(_D.expire_us == 0, _D.expire_us > scope.now_us),
    )


def _rest(order: Sequence[SortField], values: Sequence[ColumnElement[Any]]) -> Sequence[Any]:
    return list(zip(order, values, strict=True))[1:]


def _by_index(query: Select[Any], index: SortIndex) -> Select[Any]:
    # SQLite would rather look through the collection: it knows nothing of a LIMIT that is reached soon.
    return (
        query.join_from(SORT_ENTRIES, DOCUMENTS, _E.document_id == _D.document_id)
        .where(_E.index_id == index.index_id)
        .with_hint(DOCUMENTS, "NOT INDEXED", "sqlite")
    )
