"""Storing, retrieving and deleting documents."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.vault.domain.documents import (
    Account,
    Content,
    Document,
    Place,
    Randomness,
    check_capacity,
    check_version,
    new_key,
    read_content,
    size_of,
)
from services.vault.domain.filters import EVERYTHING, Filter, parse_deletion
from services.vault.domain.indexing import plan
from services.vault.domain.looking import Pace
from services.vault.domain.sorting import Position, whole_order
from services.vault.store import Look, Scope, Slice, Store, Stored, Stretch, Transaction, TurnOver

LARGE_CHARACTERS: Final = 32_768
"""From this size on a document is read in a thread, so that it does not hold up other calls."""

DELETIONS_AT_ONCE: Final = 500
"""Documents that one transaction deletes."""

_ORDER: Final = whole_order(())


class NewDocument(NamedTuple):
    """A document to be stored."""

    collection: str
    key: str | None
    """None to have one made."""
    text: str
    """Its JSON."""
    ttl_us: int | None
    """How long to keep it, in microseconds; None for good."""
    if_version: int | None
    """The version that the present document has to have; 0 for none at all, None for any."""


class StoredDocument(NamedTuple):
    """Where a document was stored."""

    key: str
    version: int
    expire_us: int


@dataclass(frozen=True, slots=True)
class DocumentService:
    """Use cases of documents."""

    database: Store
    clock: Clock
    randomness: Randomness
    capacity_bytes: int

    async def store(self, account_id: str, new: NewDocument) -> StoredDocument:
        """Stores a document under a key, or under a new one.

        Raises:
            FlowStackError: INVALID_REQUEST about the document; VERSION_MISMATCH; VAULT_CAPACITY_EXCEEDED.
        """
        content = await _read_content(new.text)
        return await self.database.transact(lambda transaction: self._put(transaction, account_id, new, content))

    async def _put(
        self, transaction: Transaction, account_id: str, new: NewDocument, content: Content
    ) -> StoredDocument:
        documents = transaction.documents
        used_bytes = await documents.lock_account(account_id)
        # The time is told after the wait for the lock, so that it goes on from version to version.
        now_us = self.clock.now_us()
        place = Place(account_id, new.collection, new_key(now_us, self.randomness) if new.key is None else new.key)
        kept = await documents.facts(place)
        check_version(kept, new.if_version, now_us)
        size_bytes = size_of(place.key, content.text)
        expired_bytes = 0
        if used_bytes + size_bytes > self.capacity_bytes:
            expired = await documents.expired(account_id, now_us)
            expired_bytes = sum(usage.size_bytes for usage in expired.values())
        check_capacity(Account(used_bytes, expired_bytes, self.capacity_bytes), kept, size_bytes, now_us)
        live = kept if kept is not None and kept.is_live(now_us) else None
        stored = Stored(
            live.version + 1 if live else 1,
            live.create_us if live else now_us,
            now_us,
            now_us + new.ttl_us if new.ttl_us is not None else 0,
            size_bytes,
        )
        await documents.put(place, kept, stored, content)
        return StoredDocument(place.key, stored.version, stored.expire_us)

    async def retrieve(self, place: Place) -> Document:
        """Reads a document.

        Raises:
            FlowStackError: DOCUMENT_NOT_FOUND.
        """
        now_us = self.clock.now_us()
        found = await self.database.transact(lambda transaction: transaction.documents.get(place, now_us))
        if found is None:
            raise FlowStackError(
                Reason.DOCUMENT_NOT_FOUND,
                "There is no such document, or it has expired. Check the collection and the key.",
            )
        return found

    async def delete_key(self, place: Place, if_version: int | None) -> int:
        """Deletes a document; answers how many there were, 0 or 1.

        Raises:
            FlowStackError: VERSION_MISMATCH, also where there is no document.
        """

        async def delete(transaction: Transaction) -> int:
            now_us = self.clock.now_us()
            documents = transaction.documents
            await documents.lock_account(place.account_id)
            kept = await documents.facts(place)
            check_version(kept, if_version, now_us)
            await documents.delete(place.account_id, place.collection, [place.key])
            return int(kept is not None and kept.is_live(now_us))

        return await self.database.transact(delete)

    async def delete_matching(self, account_id: str, collection: str, filter_text: str) -> int:
        """Deletes the documents that a filter lets through; answers how many.

        Raises:
            FlowStackError: INVALID_REQUEST about the filter.
        """
        return await self._delete_all(account_id, collection, parse_deletion(filter_text))

    async def delete_collection(self, account_id: str, collection: str) -> int:
        """Deletes every document of a collection; answers how many."""
        return await self._delete_all(account_id, collection, EVERYTHING)

    async def _delete_all(self, account_id: str, collection: str, wanted: Filter) -> int:
        """Deletes in transactions of bounded size, by key; each key is passed once, so that it comes to an end.

        Others get their turn between two of them.
        """
        scope = Scope(account_id, collection, self.clock.now_us())
        deleted = 0
        after: Position | None = None
        pace = Pace()
        while True:
            try:
                some = await self.database.transact(partial(_delete_some, scope, wanted, after, pace.documents))
            except TurnOver:
                pace.slow_down()
                continue
            pace.speed_up()
            deleted += some.deleted
            if some.last is None:
                return deleted
            after = some.last


class _Deletion(NamedTuple):
    deleted: int
    last: Position | None
    """Where to go on; None once nothing is left."""


async def _delete_some(
    scope: Scope, wanted: Filter, after: Position | None, documents_max: int, transaction: Transaction
) -> _Deletion:
    """Looks at some documents, and deletes those that are meant. The account is locked for no longer than that."""
    documents = transaction.documents
    await documents.lock_account(scope.account_id)
    indexes = await transaction.indexes.of(scope.account_id, scope.collection)
    index = plan(wanted, _ORDER, indexes, scope.now_us).index
    queries = transaction.queries
    rest = Stretch(_ORDER, after, None, is_smallest=documents_max == 1)
    look = Look(scope, wanted, _ORDER, Slice(None, DELETIONS_AT_ONCE))
    until = await queries.end_of_stretch(look, index, rest, documents_max)
    found = await queries.find(look, index, rest._replace(until=until))
    keys = [str(one.position[0]) for one in found]
    deleted = await documents.delete(scope.account_id, scope.collection, keys)
    return _Deletion(deleted.documents, found[-1].position if len(found) == DELETIONS_AT_ONCE else until)


async def _read_content(text: str) -> Content:
    if len(text) < LARGE_CHARACTERS:
        return read_content(text)
    return await asyncio.to_thread(read_content, text)
