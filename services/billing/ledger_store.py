"""The part of the store's port that the ledger needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from services.billing.domain.leases import Lacking
from services.billing.domain.ledger import (
    LedgerEntry,
    LedgerKey,
    PartitionLease,
    PeriodCounts,
    PositionedEntry,
)
from services.billing.domain.paging import Position
from services.shared.periods import Period


class LedgerInsert(NamedTuple):
    """What became of a batch of entries."""

    entries: Sequence[LedgerEntry]
    """Those that were new, in their order."""
    unknown_accounts: frozenset[str]
    """Accounts that billing does not know; their entries were kept aside."""


class SessionFilter(NamedTuple):
    """Which sessions of an account are listed. What is empty or None lets everything through."""

    account_id: str
    start_us: int | None = None
    """Reserved at or after."""
    end_us: int | None = None
    """Reserved before."""
    events: tuple[int, ...] | None = None
    provider: str = ""
    model: str = ""
    served_credential_mode: int = 0
    api_key_id: str = ""
    session_id: str = ""
    request_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    """A session has all of them."""
    period: Period | None = None


class SessionsFound(NamedTuple):
    """What a look at an account's sessions found."""

    entries: Sequence[LedgerEntry]
    looked_to: Position | None
    """How far it got, where it did not get to the end: after this there may be more. None otherwise."""


class Balance(NamedTuple):
    """How a replica stands after a move."""

    leases: Sequence[PartitionLease]
    """What it holds now."""
    lacking: Lacking


class Partitions(Protocol):
    """How far quota's partitions have been read, and which replica reads them."""

    async def balance(self, replica: str, now_us: int, lease_us: int) -> Balance:
        """Says that `replica` is alive for `lease_us` more, gives up and takes partitions; answers what it holds now.

        Never waits for another transaction: what is locked changes hands at a later time.
        """
        ...

    async def release(self, replica: str) -> None:
        """Gives up all that `replica` holds: it ends, and others can go on at once."""

    async def advance(self, leases: Sequence[PartitionLease], end_us: int) -> bool:
        """Stores how far partitions have been read, and keeps them until `end_us`.

        False where one of the fences is an old one: another replica has the partition. The transaction has to be
        undone then. The rows stay locked to its end, so that who takes over finds all that was stored before.
        """
        ...

    async def lock(self, partitions: Collection[int]) -> None:
        """Makes whoever books entries of these partitions wait for this transaction's end, and waits for them."""

    async def all(self) -> Sequence[PartitionLease]:
        """How far every partition has been read, whoever holds it."""
        ...

    async def watermark_us(self, partition: int) -> int:
        """Every event of the partition before this time has been read; 0 where nothing is known."""
        ...


class Ledger(Protocol):
    """The append-only ledger."""

    async def insert(self, entries: Sequence[PositionedEntry], now_us: int) -> LedgerInsert:
        """Appends what is new of `entries`; a repeat changes nothing, whenever it comes."""
        ...

    async def take_strays(self, limit: int) -> Sequence[PositionedEntry]:
        """Takes out, up to `limit`, what was kept aside of accounts that are known by now."""
        ...

    async def strays(self, account_id: str, after: LedgerKey | None, limit: int) -> Sequence[LedgerEntry]:
        """What is kept aside of one account, or of all where it is empty, by key."""
        ...

    async def counts(self, account_id: str, period_start_us: int) -> PeriodCounts:
        """Counted sessions of an account's period."""
        ...

    async def sessions(
        self, wanted: SessionFilter, after: Position | None, limit: int, looked_at_max: int
    ) -> SessionsFound:
        """Sessions of an account, those reserved last first, each with its cost.

        Args:
            wanted: the account and the filters.
            after: only those after this position.
            limit: how many at most.
            looked_at_max: how many that other filters than those by time, session and request may keep back, at most.
        """
        ...

    async def existing(self, keys: Collection[LedgerKey]) -> frozenset[LedgerKey]:
        """Which of `keys` the ledger has."""
        ...
