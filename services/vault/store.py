"""The port to the vault's store. A use case runs in a transaction: it reads, decides and writes; it all holds or none.

Every method names the account that it is about, and sees and changes nothing of another. Maintenance is the exception
that says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from services.vault.domain.documents import Content, Document, Facts, Place
from services.vault.domain.filters import Filter
from services.vault.domain.sorting import SortField

ResultT = TypeVar("ResultT")

Position = tuple[int | str, ...]
"""The place of a document in an order: what each field of it sorts as."""


class Found(NamedTuple):
    """A document that a query has found."""

    document_id: int
    size_bytes: int
    position: Position


class Stored(NamedTuple):
    """What is written about a document, beside its content. Times are microseconds since 1970."""

    version: int
    create_us: int
    update_us: int
    expire_us: int
    size_bytes: int


class Collection(NamedTuple):
    """A collection that holds documents."""

    name: str
    document_count: int
    size_bytes: int
    update_us: int


class Usage(NamedTuple):
    """What documents there are, or were."""

    documents: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Which documents are looked at: those of a collection that are live."""

    account_id: str
    collection: str
    now_us: int


class Documents(Protocol):
    """Documents of one account."""

    async def lock_account(self, account_id: str) -> int:
        """Makes other writers of the account wait for this transaction's end; answers its used bytes."""
        ...

    async def used_bytes(self, account_id: str) -> int:
        """The bytes of all documents, of expired ones too."""
        ...

    async def expired(self, account_id: str, now_us: int) -> dict[str, Usage]:
        """What has expired and is still kept, by collection."""
        ...

    async def facts(self, place: Place) -> Facts | None:
        """What is known about a document, expired or not."""
        ...

    async def put(self, place: Place, kept: Facts | None, stored: Stored, content: Content) -> None:
        """Writes a document in the place of what is kept under its key. The account is locked."""

    async def get(self, place: Place, now_us: int) -> Document | None:
        """A live document."""
        ...

    async def read(self, account_id: str, document_ids: Sequence[int]) -> Sequence[Document]:
        """Documents by their ids, in that order."""
        ...

    async def find(
        self, scope: Scope, wanted: Filter, order: Sequence[SortField], after: Position | None, limit: int
    ) -> Sequence[Found]:
        """Documents that the filter lets through, in order, from a position on."""
        ...

    async def find_for_deletion(self, scope: Scope, wanted: Filter, after_key: str, limit: int) -> Sequence[str]:
        """Keys of documents that the filter lets through, by key, after one of them."""
        ...

    async def delete(self, account_id: str, collection: str, keys: Sequence[str]) -> Usage:
        """Deletes documents, expired or not; answers what there was. The account is locked."""
        ...

    async def collections(self, account_id: str, after: str, limit: int) -> Sequence[Collection]:
        """Collections by name, after one of them; their expired documents are still counted."""
        ...


class Transaction(Protocol):
    """One transaction."""

    @property
    def documents(self) -> Documents:
        """Documents."""
        ...


class Store(Protocol):
    """The store."""

    async def transact(self, work: Callable[[Transaction], Awaitable[ResultT]], *, snapshot: bool = False) -> ResultT:
        """Runs `work` in a transaction, which commits when it returns and is undone where it raises.

        Args:
            work: reads, decides and writes.
            snapshot: everything that `work` reads is of one moment; it writes nothing.

        Raises:
            FlowStackError: VAULT_UNAVAILABLE where the database does not answer.
        """
        ...
