"""The port to the vault's store. A use case runs in a transaction: it reads, decides and writes; it all holds or none.

Every method names the account that it is about, and sees and changes nothing of another; only what looks for work
beside the calls, in `Indexes` and `Upkeep`, looks at all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from services.vault.domain.documents import Content, Document, Facts, Place
from services.vault.domain.filters import Filter
from services.vault.domain.indexing import IndexState, Path, SortIndex
from services.vault.domain.sorting import SortField

ResultT = TypeVar("ResultT")

Position = tuple[int | str, ...]
"""The place of a document in an order: what each field of it sorts as."""


class Found(NamedTuple):
    """A document that a query has found."""

    document_id: int
    size_bytes: int
    position: Position


class Slice(NamedTuple):
    """A part of what a query finds."""

    after: Position | None
    """Where the part before ended; None for the first."""
    limit: int
    """At most this many."""


class Stored(NamedTuple):
    """What is written about a document, beside its content. Times are microseconds since 1970."""

    version: int
    create_us: int
    update_us: int
    expire_us: int
    size_bytes: int


class IndexWork(NamedTuple):
    """An index that is not as it should be."""

    index_id: int
    account_id: str
    state: IndexState


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

    async def count(self, account_id: str, collection: str) -> int:
        """How many documents a collection has, expired ones included."""
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

    async def delete(self, account_id: str, collection: str, keys: Sequence[str]) -> Usage:
        """Deletes documents, expired or not; answers what there was. The account is locked."""
        ...

    async def collections(self, account_id: str, after: str, limit: int) -> Sequence[Collection]:
        """Collections by name, after one of them; their expired documents are still counted."""
        ...


class Queries(Protocol):
    """Finding documents of one collection."""

    async def find(
        self,
        scope: Scope,
        wanted: Filter,
        order: Sequence[SortField],
        index: SortIndex | None,
        part: Slice,
    ) -> Sequence[Found]:
        """Documents that the filter lets through, in order.

        Args:
            scope: where.
            wanted: the filter.
            order: ends with the key, so that no two documents are alike in it.
            index: a ready index of the collection to read by; None to look through the collection.
            part: how many, from where on.
        """
        ...


class Indexes(Protocol):
    """Indexes of collections."""

    async def of(self, account_id: str, collection: str) -> Sequence[SortIndex]:
        """Every index of a collection."""
        ...

    async def count(self, account_id: str) -> int:
        """How many indexes an account has."""
        ...

    async def add(self, account_id: str, collection: str, path: Path, now_us: int) -> None:
        """Begins an index, which is to be built. The account is locked."""

    async def note_use(self, account_id: str, index: SortIndex, now_us: int) -> None:
        """Writes that an index was used."""

    async def begin_drop(self, account_id: str, index: SortIndex) -> None:
        """Takes an index out of use. The account is locked."""

    async def next_work(self) -> IndexWork | None:
        """An index to be built or dropped, of whichever account; None for nothing to do."""
        ...

    async def build_some(self, work: IndexWork, limit: int) -> None:
        """Enters some more documents into an index. The account is locked."""

    async def drop_some(self, work: IndexWork, limit: int) -> None:
        """Deletes some of an index's entries, and in the end the index. The account is locked."""


class Upkeep(Protocol):
    """What is done for all accounts, beside the calls."""

    async def expired_account(self, now_us: int) -> str | None:
        """An account with documents that have expired; None for none."""
        ...

    async def expired_keys(self, account_id: str, now_us: int, limit: int) -> dict[str, list[str]]:
        """Keys of an account's documents that have expired, by collection."""
        ...

    async def accounts_to_check(self, now_us: int, limit: int) -> Sequence[str]:
        """Accounts of which billing is to be asked by now whether they are deleted."""
        ...

    async def check_again(self, account_id: str, check_us: int) -> None:
        """Sets when billing is asked next."""

    async def some_keys(self, account_id: str, limit: int) -> dict[str, list[str]]:
        """Keys of an account's documents, live or not, by collection."""
        ...

    async def forget_account(self, account_id: str) -> None:
        """Deletes what is kept about an account without documents. The account is locked."""


class Transaction(Protocol):
    """One transaction."""

    @property
    def documents(self) -> Documents:
        """Documents."""
        ...

    @property
    def queries(self) -> Queries:
        """Finding documents."""
        ...

    @property
    def indexes(self) -> Indexes:
        """Indexes."""
        ...

    @property
    def upkeep(self) -> Upkeep:
        """What is done for all accounts."""
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
