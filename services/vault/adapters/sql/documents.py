"""Documents in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.changes import ChangeLog
from services.vault.adapters.sql.dialect import upsert
from services.vault.adapters.sql.expressions import Bool, Expressions
from services.vault.adapters.sql.indexes import SqlIndexes
from services.vault.adapters.sql.queries import is_live
from services.vault.adapters.sql.tables import ACCOUNTS, COLLECTIONS, DOCUMENTS
from services.vault.domain.documents import Content, Document, Facts, Place
from services.vault.store import Collection, Stored, Usage

_D: Final = DOCUMENTS.c
_C: Final = COLLECTIONS.c
_SEEN: Final = (_D.collection, _D.key, _D.text, _D.version, _D.create_us, _D.update_us, _D.expire_us)


class SqlDocuments:
    """Documents of one account, whichever a method names."""

    def __init__(self, connection: AsyncConnection, changes: ChangeLog) -> None:
        self._connection = connection
        self._changes = changes
        self._indexes = SqlIndexes(connection)
        self._expressions = Expressions(connection.dialect.name)

    async def lock_account(self, account_id: str) -> int:
        """Locks the account's row, which is made where there is none."""
        statement = upsert(self._connection, ACCOUNTS).values(account_id=account_id, used_bytes=0, check_us=0)
        # An update that changes nothing locks the row as well.
        locking = statement.on_conflict_do_update(
            index_elements=[ACCOUNTS.c.account_id], set_={"account_id": statement.excluded.account_id}
        )
        return int((await self._connection.execute(locking.returning(ACCOUNTS.c.used_bytes))).scalar_one())

    async def used_bytes(self, account_id: str) -> int:
        """What the account's row says."""
        query = select(ACCOUNTS.c.used_bytes).where(ACCOUNTS.c.account_id == account_id)
        return (await self._connection.execute(query)).scalar_one_or_none() or 0

    async def expired(self, account_id: str, now_us: int) -> dict[str, Usage]:
        """What has expired since the last sweep, by collection."""
        query = (
            select(_D.collection, func.count(), func.sum(_D.size_bytes))
            .where(_D.expire_us > 0, _D.expire_us <= now_us, _D.account_id == account_id)
            .group_by(_D.collection)
        )
        return {name: Usage(count, int(size)) for name, count, size in await self._connection.execute(query)}

    async def count(self, account_id: str, collection: str) -> int:
        """What the collection's row says."""
        query = select(_C.document_count).where(_C.account_id == account_id, _C.collection == collection)
        return (await self._connection.execute(query)).scalar_one_or_none() or 0

    async def facts(self, place: Place) -> Facts | None:
        """What is known about a document."""
        columns = (_D.document_id, _D.version, _D.create_us, _D.expire_us, _D.size_bytes)
        row = (await self._connection.execute(select(*columns).where(*_at(place)))).one_or_none()
        return None if row is None else Facts(*row)

    async def put(self, place: Place, kept: Facts | None, stored: Stored, content: Content) -> None:
        """Writes a document, its collection's sums, its account's, and its entries in indexes."""
        values = {**stored._asdict(), "body": content.body, "text": content.text}
        if kept is None:
            where = {"account_id": place.account_id, "collection": place.collection, "key": place.key}
            statement = insert(DOCUMENTS).values(**where, **values).returning(_D.document_id)
            document_id = int((await self._connection.execute(statement)).scalar_one())
        else:
            document_id = kept.document_id
            await self._connection.execute(update(DOCUMENTS).where(*_at(place)).values(**values))
        self._changes.note(place.account_id, place.collection, [document_id])
        growth = stored.size_bytes - (0 if kept is None else kept.size_bytes)
        await self._count(place.account_id, place.collection, int(kept is None), growth, stored.update_us)
        await self._indexes.enter(place.account_id, place.collection, document_id)

    async def get(self, place: Place, now_us: int) -> Document | None:
        """A live document."""
        query = select(*_SEEN).where(*_at(place), is_live(now_us))
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else Document(*row)

    async def read(self, account_id: str, document_ids: Sequence[int]) -> Sequence[Document]:
        """Documents by their ids, in that order."""
        if not document_ids:
            return ()
        of_account = self._expressions.unindexed(_D.account_id) == account_id
        query = select(_D.document_id, *_SEEN).where(of_account, _D.document_id.in_(document_ids))
        rows = {row[0]: row for row in await self._connection.execute(query)}
        return [Document(*rows[document_id][1:]) for document_id in document_ids]

    async def delete(self, account_id: str, collection: str, keys: Sequence[str]) -> Usage:
        """Deletes documents; their entries in indexes go with them."""
        if not keys:
            return Usage(0, 0)
        statement = delete(DOCUMENTS).where(_D.account_id == account_id, _D.collection == collection, _D.key.in_(keys))
        rows = (await self._connection.execute(statement.returning(_D.document_id, _D.size_bytes))).all()
        self._changes.note(account_id, collection, [document_id for document_id, _ in rows])
        deleted = Usage(len(rows), sum(size_bytes for _, size_bytes in rows))
        if deleted.documents:
            await self._count(account_id, collection, -deleted.documents, -deleted.size_bytes, 0)
        return deleted

    async def _count(self, account_id: str, collection: str, documents: int, size_bytes: int, update_us: int) -> None:
        """Adds to the sums of a collection and its account; `update_us` is 0 where nothing was stored."""
        connection = self._connection
        await connection.execute(
            update(ACCOUNTS)
            .where(ACCOUNTS.c.account_id == account_id)
            .values(used_bytes=ACCOUNTS.c.used_bytes + size_bytes)
        )
        at = (_C.account_id == account_id, _C.collection == collection)
        sums = {"document_count": _C.document_count + documents, "size_bytes": _C.size_bytes + size_bytes}
        if update_us:
            first = upsert(connection, COLLECTIONS).values(
                account_id=account_id,
                collection=collection,
                document_count=documents,
                size_bytes=size_bytes,
                update_us=update_us,
            )
            key = [_C.account_id, _C.collection]
            await connection.execute(
                first.on_conflict_do_update(index_elements=key, set_=sums | {"update_us": update_us})
            )
            return
        await connection.execute(update(COLLECTIONS).where(*at).values(**sums))
        emptied = await connection.execute(delete(COLLECTIONS).where(*at, _C.document_count == 0))
        if emptied.rowcount:
            await self._indexes.drop_all(account_id, collection)

    async def collections(self, account_id: str, after: str, limit: int) -> Sequence[Collection]:
        """Collections by name."""
        query = (
            select(_C.collection, _C.document_count, _C.size_bytes, _C.update_us)
            .where(_C.account_id == account_id, _C.collection > after)
            .order_by(_C.collection)
            .limit(limit)
        )
        return [Collection(*row) for row in await self._connection.execute(query)]


def _at(place: Place) -> tuple[Bool, ...]:
    return (_D.account_id == place.account_id, _D.collection == place.collection, _D.key == place.key)
