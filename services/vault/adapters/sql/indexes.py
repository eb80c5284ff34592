"""Indexes of what collections are sorted by, in SQL.

An index is of one path in one collection of one account. It is made when somebody sorts by the path, piece by piece
behind the calls, and from then on every store keeps it.

Expression indexes of the database's own would be one for each path in everybody's documents: what one account sorts
by would cost all others at each store, and customers' calls would change the schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Select, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.dialect import upsert
from services.vault.adapters.sql.expressions import Expressions
from services.vault.adapters.sql.tables import DOCUMENTS, ROW_ID, SORT_ENTRIES, SORT_INDEXES
from services.vault.domain.indexing import IndexState, Path, SortIndex
from services.vault.store import IndexWork

_D: Final = DOCUMENTS.c
_I: Final = SORT_INDEXES.c
_E: Final = SORT_ENTRIES.c
_ENTRY: Final = (_E.index_id, _E.value, _E.key, _E.document_id)


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

    async def count(self, account_id: str) -> int:
        """How many indexes an account has."""
        query = select(func.count()).where(_I.account_id == account_id)
        return (await self._connection.execute(query)).scalar_one()

    async def add(self, account_id: str, collection: str, path: Path, now_us: int) -> None:
        """Begins an index. The account is locked, so that no store misses it."""
        row = {
            "account_id": account_id,
            "collection": collection,
            "path": json.dumps(path, ensure_ascii=False),
            "state": int(IndexState.BUILDING),
            "built_key": "",
            "last_use_us": now_us,
        }
        await self._connection.execute(insert(SORT_INDEXES), row)

    async def note_use(self, account_id: str, index: SortIndex, now_us: int) -> None:
        """Writes that an index was used."""
        await self._set(account_id, index.index_id, last_use_us=now_us)

    async def begin_drop(self, account_id: str, index: SortIndex) -> None:
        """Takes an index out of use; its entries go piece by piece."""
        await self._set(account_id, index.index_id, state=int(IndexState.DROPPING))

    async def _set(self, account_id: str, index_id: int, **values: Any) -> None:
        one = (_I.account_id == account_id, _I.index_id == index_id)
        await self._connection.execute(update(SORT_INDEXES).where(*one).values(**values))

    async def enter(self, account_id: str, collection: str, document_id: int) -> None:
        """Writes a document's entries anew."""
        indexes = [one for one in await self.of(account_id, collection) if one.state is not IndexState.DROPPING]
        if not indexes:
            return
        await self._connection.execute(delete(SORT_ENTRIES).where(_E.document_id == document_id))
        for index in indexes:
            entries = self._entries(account_id, index.index_id, index.path).where(_D.document_id == document_id)
            await self._connection.execute(insert(SORT_ENTRIES).from_select(_ENTRY, entries))

    def _entries(self, account_id: str, index_id: int, path: Path) -> Select[Any]:
        """The entries of an account's documents, as an index has them."""
        value = self._expressions.sort_value(path)
        entries = select(literal(index_id, ROW_ID), value, _D.key, _D.document_id)
        return entries.where(_D.account_id == account_id)

    async def drop_all(self, account_id: str, collection: str) -> None:
        """Drops the indexes of a collection that has no documents, and so no entries, any more."""
        of = (_I.account_id == account_id, _I.collection == collection)
        await self._connection.execute(delete(SORT_INDEXES).where(*of))

    async def next_work(self) -> IndexWork | None:
        """Something to be built or dropped, of whichever account, the oldest first."""
        query = (
            select(_I.index_id, _I.account_id, _I.state)
            .where(_I.state != int(IndexState.READY))
            .order_by(_I.index_id)
            .limit(1)
        )
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else IndexWork(row[0], row[1], IndexState(row[2]))

    async def build_some(self, work: IndexWork, limit: int) -> None:
        """Enters some more documents; the index is ready once there are none left. The account is locked."""
        one = (_I.index_id == work.index_id, _I.account_id == work.account_id, _I.state == int(IndexState.BUILDING))
        query = select(_I.collection, _I.path, _I.built_key).where(*one)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            return
        collection, path, built_key = row
        rest = (_D.account_id == work.account_id, _D.collection == collection, _D.key > built_key)
        last = select(_D.key).where(*rest).order_by(_D.key).offset(limit - 1).limit(1)
        until_key = (await self._connection.execute(last)).scalar_one_or_none()
        entries = self._entries(work.account_id, work.index_id, tuple(json.loads(path))).where(*rest)
        if until_key is not None:
            entries = entries.where(_D.key <= until_key)
        # What was stored since the index was begun has its entry.
        statement = upsert(self._connection, SORT_ENTRIES).from_select(_ENTRY, entries).on_conflict_do_nothing()
        await self._connection.execute(statement)
        if until_key is None:
            await self._set(work.account_id, work.index_id, state=int(IndexState.READY))
        else:
            await self._set(work.account_id, work.index_id, built_key=until_key)

    async def drop_some(self, work: IndexWork, limit: int) -> None:
        """Deletes some entries, and the index with the last of them. The account is locked."""
        some = select(_E.value, _E.key).where(_E.index_id == work.index_id).order_by(_E.value, _E.key).limit(limit)
        statement = delete(SORT_ENTRIES).where(_E.index_id == work.index_id, tuple_(_E.value, _E.key).in_(some))
        if (await self._connection.execute(statement)).rowcount < limit:
            one = (_I.index_id == work.index_id, _I.account_id == work.account_id)
            await self._connection.execute(delete(SORT_INDEXES).where(*one))
