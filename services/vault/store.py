"""The port to the vault's store. A use case runs in a transaction: it reads, decides and writes; it all holds or none.

Every method names the account that it is about, and sees and changes nothing of another; only what looks for work
beside the calls, in `Indexes` and `Upkeep`, looks at all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from services.vault.domain.documents import Content, Document, Facts, Place
from services.vault.domain.filters import Filter
from services.vault.domain.indexing import IndexState, Path, SortIndex
from services.vault.domain.sorting import Position, SortField

ResultT = TypeVar("ResultT")


class TurnOver(Exception):  # noqa: N818  # no error: the work is done in smaller pieces
    """Work took longer than others can be kept waiting for it, where transactions run one at a time.

    Its transaction is undone. The same work goes on in smaller pieces.
    """


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


class Stretch(NamedTuple):
    """A part of what there is to be looked through."""

    walk: tuple[SortField, ...]
    """The order in which it is gone through; see `walk_of`."""
    after: Position | None
    """Where it begins, this place left out; None for the start."""
    until: Position | None
    """Where it ends, this place included; None for the end."""
    is_smallest: bool = False
    """Whether it cannot be made smaller, so that others have to wait for it however long it takes."""


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


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked for."""

    scope: Scope
    wanted: Filter
    order: Sequence[SortField]
    """Ends with the key, so that no two documents are alike in it."""
    part: Slice
    """How many, from where on."""


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

    async def find(self, look: Look, index: SortIndex | None, stretch: Stretch | None = None) -> Sequence[Found]:
        """Documents that the filter lets through, in order.

        Args:
            look: what is looked for.
            index: a ready index of the collection to read by; None to look through the collection.
            stretch: what is looked through; None for all there is.

        Raises:
            TurnOver: it takes too long.
            FlowStackError: CALL_TIME_LIMIT, it takes too long, and nothing can be done about it.
        """
        ...

    async def find_among(self, look: Look, document_ids: Sequence[int]) -> Sequence[Found]:
        """Those of some documents that the filter lets through, in order."""
        ...

    async def end_of_stretch(
        self, look: Look, index: SortIndex | None, stretch: Stretch, documents: int
    ) -> Position | None:
        """Where a stretch of so many documents ends that begins as `stretch` does; None where fewer are left."""
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


class Changes(Protocol):
    """What happens to a collection while it is looked through."""

    def take(self) -> set[int]:
        """The ids of documents that were stored or deleted since the last time, by transactions that have ended."""
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

    def changes(self, account_id: str, collection: str) -> AbstractContextManager[Changes]:
        """Notes what happens to a collection within the block. Only where transactions run one at a time."""
        ...
