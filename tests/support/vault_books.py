"""The vault's use cases on a database, without servers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from services.shared.clock import Clock
from services.shared.paging import PageTokens
from services.shared.secret import Secret
from services.vault.convert import sort_from_proto
from services.vault.domain.indexing import IndexState
from services.vault.service.documents import DocumentService, NewDocument
from services.vault.service.indexing import Indexing, Wish
from services.vault.service.queries import Query, QueryService
from services.vault.store import Store
from tests.support.vault import sorts


class VaultBooks:
    """Use cases, with an account named at each."""

    def __init__(self, database: Store, clock: Clock, capacity_bytes: int = 1024**3) -> None:
        self.database = database
        self.clock = clock
        self.indexing = Indexing(database, clock)
        self.documents = DocumentService(database, clock, secrets.token_bytes, capacity_bytes)
        self.queries = QueryService(
            database, clock, PageTokens(Secret("a key of the tests")), self.indexing, capacity_bytes
        )

    async def store(self, account_id: str, collection: str, key: str, text: str, *, ttl_us: int | None = None) -> None:
        """Stores a document."""
        await self.documents.store(account_id, NewDocument(collection, key, text, ttl_us, None))

    async def query(
        self, account_id: str, collection: str, filter_text: str, sort: Sequence[str] = (), limit: int = 0
    ) -> list[str]:
        """The keys on all pages of a query."""
        fields = tuple(sort_from_proto(one) for one in sorts(sort))
        keys: list[str] = []
        token = ""
        while True:
            page = await self.queries.query(Query(account_id, collection, filter_text, fields, limit, token))
            keys += [document.key for document in page.documents]
            assert len(page.documents) <= (limit or 50)
            token = page.next_token
            if not token:
                return keys

    async def build_index(self, account_id: str, collection: str, path: tuple[str, ...]) -> None:
        """Makes an index, however few documents there are."""

        async def add(transaction: object) -> None:
            await transaction.indexes.add(account_id, collection, path, self.clock.now_us())  # type: ignore[attr-defined]

        await self.database.transact(add)
        await self.work_on_indexes()

    async def work_on_indexes(self, *wishes: Wish) -> None:
        """Grants wishes, and works until nothing is left to do."""
        for wish in wishes:
            self.indexing.wish(wish)
        while await self.indexing.run_once():
            pass

    async def indexes(self, account_id: str, collection: str) -> dict[tuple[str, ...], IndexState]:
        """A collection's indexes."""
        found = await self.database.transact(lambda t: t.indexes.of(account_id, collection))
        return {index.path: index.state for index in found}
