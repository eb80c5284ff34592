"""Finding documents, and listing collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.shared.clock import Clock
from services.shared.paging import PAGE_SIZE_DEFAULT, PageTokens
from services.vault.domain.documents import Document
from services.vault.domain.filters import parse_filter
from services.vault.domain.indexing import plan
from services.vault.domain.sorting import Position, SortField, whole_order
from services.vault.service.indexing import Indexing, Wish
from services.vault.service.scans import Findings, step_by_step
from services.vault.store import Collection, Found, Look, Scope, Slice, Store, Transaction, TurnOver, Usage

PAGE_BYTES_MAX: Final = 3 * 1024 * 1024
"""Of the documents on a page. With all that is said about each it stays below the 4 MiB that gRPC's clients take."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for."""

    account_id: str
    collection: str
    filter_text: str
    sort: tuple[SortField, ...]
    limit: int
    """At most this many on a page; 0 for the default."""
    page_token: str


class DocumentPage(NamedTuple):
    """One page of documents, and the token of the next; empty on the last."""

    documents: Sequence[Document]
    next_token: str


class CollectionPage(NamedTuple):
    """One page of collections, and what the account's documents use of what they may."""

    collections: Sequence[Collection]
    next_token: str
    used_bytes: int
    capacity_bytes: int


@dataclass(frozen=True, slots=True)
class QueryService:
    """Use cases that read many documents."""

    database: Store
    clock: Clock
    page_tokens: PageTokens[Position]
    indexing: Indexing
    capacity_bytes: int

    async def query(self, query: Query) -> DocumentPage:
        """Reads a page of the documents that a filter lets through.

        Raises:
            FlowStackError: INVALID_REQUEST about the filter, or for another call's page token.
        """
        wanted = parse_filter(query.filter_text)
        order = whole_order(query.sort)
        sort = "".join(f"{field.kind.value}/{'.'.join(field.path)}/{field.descending}\n" for field in query.sort)
        token_scope = ("Query", query.account_id, query.collection, query.filter_text, sort)
        after = self.page_tokens.open(token_scope, query.page_token)
        limit = query.limit or PAGE_SIZE_DEFAULT
        # One more than asked for tells whether there is a next page.
        scope = Scope(query.account_id, query.collection, self.clock.now_us())
        look = Look(scope, wanted, order, Slice(after, limit + 1))

        async def read(transaction: Transaction, findings: Findings) -> DocumentPage:
            page = _fitting(findings.found[:limit])
            documents = await transaction.documents.read(query.account_id, [one.document_id for one in page])
            last = page[-1].position if len(page) < len(findings.found) else findings.horizon
            return DocumentPage(documents, "" if last is None else self.page_tokens.seal(token_scope, last))

        async def find_and_read(transaction: Transaction) -> DocumentPage:
            return await read(transaction, await self._find(transaction, look))

        try:
            return await self.database.transact(find_and_read, snapshot=True)
        except TurnOver:
            return await step_by_step(self.database, self.clock, look, read)

    async def _find(self, transaction: Transaction, look: Look) -> Findings:
        scope = look.scope
        indexes = await transaction.indexes.of(scope.account_id, scope.collection)
        planned = plan(look.wanted, look.order, indexes, scope.now_us)
        if planned.wish is not None:
            self.indexing.wish(Wish(scope.account_id, scope.collection, planned.wish))
        found = await transaction.queries.find(look, planned.index)
        return Findings(found, found[-1].position if len(found) == look.part.limit else None)

    async def list_collections(self, account_id: str, page_size: int, page_token: str) -> CollectionPage:
        """Reads a page of the collections that hold documents.

        Raises:
            FlowStackError: INVALID_REQUEST for another call's page token.
        """
        token_scope = ("ListCollections", account_id)
        after = self.page_tokens.open(token_scope, page_token)
        size = page_size or PAGE_SIZE_DEFAULT

        async def read(transaction: Transaction) -> CollectionPage:
            documents = transaction.documents
            expired = await documents.expired(account_id, self.clock.now_us())
            kept = await documents.collections(account_id, str(after[0]) if after else "", size + 1)
            next_token = self.page_tokens.seal(token_scope, (kept[size - 1].name,)) if len(kept) > size else ""
            # What has just expired may leave a collection without documents: a page is shorter then.
            live = [_without(one, expired.get(one.name)) for one in kept[:size]]
            used_bytes = await documents.used_bytes(account_id) - sum(usage.size_bytes for usage in expired.values())
            return CollectionPage(
                [one for one in live if one.document_count], next_token, used_bytes, self.capacity_bytes
            )

        return await self.database.transact(read, snapshot=True)


def _fitting(found: Sequence[Found]) -> Sequence[Found]:
    """As many of the first documents as a page may hold; always one."""
    total = 0
    for count, one in enumerate(found):
        total += one.size_bytes
        if total > PAGE_BYTES_MAX and count:
            return found[:count]
    return found


def _without(collection: Collection, expired: Usage | None) -> Collection:
    if expired is None:
        return collection
    return collection._replace(
        document_count=collection.document_count - expired.documents,
        size_bytes=collection.size_bytes - expired.size_bytes,
    )
