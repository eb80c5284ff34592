"""Indexes of what collections are sorted by, in SQL.

An index is of one path in one collection of one account. It has an entry for every document, the sort value and the
key, so that a page is read from where it begins. It is made when somebody sorts by the path, piece by piece behind the
calls, and from then on every store keeps it.

Expression indexes of the database's own would be one for each path in everybody's documents: what one account sorts
by would cost all others at each store, and customers' calls would change the schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, delete, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.expressions import Expressions
from services.vault.adapters.sql.tables import DOCUMENTS, ROW_ID, SORT_ENTRIES, SORT_INDEXES

_D: Final = DOCUMENTS.c
_I: Final = SORT_INDEXES.c
_E: Final = SORT_ENTRIES.c


class IndexState(IntEnum):
    """How far an index is."""

    BUILDING = 1
    READY = 2
    DROPPING = 3


class SortIndex(NamedTuple):
    """An index."""

    index_id: int
    path: tuple[str, ...]
    state: IndexState
    last_use_us: int


class SqlIndexes:
    """The indexes of one collection, whichever a method names."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._expressions = Expressions(connection.dialect.name)

    async def of(self, account_id: str, collection: str) -> Sequence[SortIndex]:
        """Every index of a collection."""
        query = select(_I.index_id, _I.path, _I.state, _I.last_use_us).where(
            _I.account_id == account_id, _I.collection == collection
        )
        return [
            SortIndex(index_id, tuple(json.loads(path)), IndexState(state), last_use_us)
            for index_id, path, state, last_use_us in await self._connection.execute(query)
        ]

    async def enter(self, account_id: str, collection: str, document_id: int) -> None:
        """Writes a document's entries anew."""
        indexes = [one for one in await self.of(account_id, collection) if one.state is not IndexState.DROPPING]
        if not indexes:
            return
        await self._connection.execute(delete(SORT_ENTRIES).where(_E.document_id == document_id))
        for index in indexes:
            await self._insert(self._entries(index).where(_D.document_id == document_id))

    def _entries(self, index: SortIndex) -> Select[Any]:
        """The entries of documents, as an index has them."""
        value = self._expressions.sort_value(index.path)
        return select(literal(index.index_id, ROW_ID), value, _D.key, _D.document_id)

    async def _insert(self, entries: Select[Any]) -> None:
        columns = [_E.index_id, _E.value, _E.key, _E.document_id]
        await self._connection.execute(insert(SORT_ENTRIES).from_select(columns, entries))

    async def drop_all(self, account_id: str, collection: str) -> None:
        """Drops the indexes of a collection that has no documents any more."""
        of = (_I.account_id == account_id, _I.collection == collection)
        await self._connection.execute(delete(SORT_INDEXES).where(*of))
