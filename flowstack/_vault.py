"""`agent.vault`: JSON documents of the account, by collection and key. Costs no session and works at the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from flowstack import _documents
from flowstack._client import AsyncClient, Client
from flowstack._documents import NOTES, CollectionInfo, Document, Sort, StoredKey


class Vault:
    """The account's documents, for blocking calls. Every method can raise FlowStackError."""

    def __init__(self, client: Client, flush: Callable[[], None]) -> None:
        self._client = client
        self._flush = flush

    def store(
        self,
        collection: str,
        document: Mapping[str, Any],
        key: str | None = None,
        *,
        ttl: timedelta | float | None = None,
        if_version: int | None = None,
    ) -> StoredKey:
        """Stores a document, in place of what the key held.

        Args:
            collection: where; made by its first document.
            document: a dict that JSON can express; datetimes go in as text, Decimals as numbers.
            key: made where None.
            ttl: how long to keep it, as timedelta or seconds, up to 10 years; for good where None.
            if_version: only if the key's document has this version; 0: only if there is none.

        Raises:
            InvalidRequestError: a document that JSON cannot express or over 1 MiB; a bad name.
            ConflictError: another version is there.
        """
        return self._client.run(_documents.store(collection, document, key, ttl, if_version))

    def retrieve(self, collection: str, key: str) -> Document | None:
        """Reads a document; None where there is none."""
        return self._client.run(_documents.retrieve(collection, key))

    def query(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # the word that users of document stores know
        *,
        sort: Sort | None = None,
        limit: int | None = 100,
    ) -> list[Document]:
        """Reads the documents that a filter lets through.

        Args:
            collection: where; an unknown one is empty. Notes of this agent's earlier chats are in theirs by then.
            filter: `{"path": value}`, `{"path": {"$gte": value}}`, with $eq $ne $gt $gte $lt $lte $in $nin $exists and
                $and $or $not; all documents where None.
            sort: such as [('timestamp', -1)]; by key where None.
            limit: at most so many; None for all.

        Raises:
            InvalidRequestError: a bad filter, sort or limit.
        """
        if collection == NOTES:
            self._flush()
        return self._client.run(_documents.query(collection, filter, sort, limit))

    def delete(
        self,
        collection: str,
        key: str | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # as above
        all: bool = False,  # noqa: A002  # reads as what it does
        if_version: int | None = None,
    ) -> int:
        """Deletes one document, those that a filter lets through, or a whole collection.

        Returns:
            How many documents were deleted; 0 also where a call broke off after it had deleted, and was repeated.

        Raises:
            InvalidRequestError: not exactly one of key, filter and all; an empty filter.
            ConflictError: another version is there.
        """
        return self._client.run(_documents.delete(collection, key, filter, all, if_version))

    def collections(self) -> list[CollectionInfo]:
        """The collections that hold documents, by name."""
        return self._client.run(_documents.collections())


class AsyncVault:
    """The account's documents; each method is Vault's of the same name."""

    def __init__(self, client: AsyncClient, flush: Callable[[], None]) -> None:
        self._client = client
        self._flush = flush

    async def store(
        self,
        collection: str,
        document: Mapping[str, Any],
        key: str | None = None,
        *,
        ttl: timedelta | float | None = None,
        if_version: int | None = None,
    ) -> StoredKey:
        """As Vault.store."""
        return await self._client.run(_documents.store(collection, document, key, ttl, if_version))

    async def retrieve(self, collection: str, key: str) -> Document | None:
        """As Vault.retrieve."""
        return await self._client.run(_documents.retrieve(collection, key))

    async def query(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # as in Vault
        *,
        sort: Sort | None = None,
        limit: int | None = 100,
    ) -> list[Document]:
        """As Vault.query."""
        if collection == NOTES:
            await asyncio.to_thread(self._flush)
        return await self._client.run(_documents.query(collection, filter, sort, limit))

    async def delete(
        self,
        collection: str,
        key: str | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  # as in Vault
        all: bool = False,  # noqa: A002  # as in Vault
        if_version: int | None = None,
    ) -> int:
        """As Vault.delete."""
        return await self._client.run(_documents.delete(collection, key, filter, all, if_version))

    async def collections(self) -> list[CollectionInfo]:
        """As Vault.collections."""
        return await self._client.run(_documents.collections())
