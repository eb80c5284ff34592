"""What the ledger holds: one row for each session event, for good."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

PARTITIONS: Final = 64
"""Quota spreads accounts over this many partitions, each with its own order of events. Fixed by quota's contract."""


def partition_of(account_id: str) -> int:
    """The partition of an account, by quota's contract."""
    return crc32(account_id.encode()) % PARTITIONS


class EventType(IntEnum):
    """What a session event says. The numbers are the contract's."""

    COMMITTED = 1
    RELEASED = 2
    EXPIRED = 3


class CredentialMode(IntEnum):
    """Whose credentials serve a session. The numbers are the contract's."""

    UNSPECIFIED = 0
    MANAGED = 1
    BYOK = 2


class LedgerEntry(NamedTuple):
    """A session event and the session after it. Times in microseconds since 1970, 0 where unset."""

    account_id: str
    session_id: str
    event: int
    event_us: int
    state: int
    period_start_us: int
    reserve_us: int
    expire_us: int
    resolve_us: int
    credential_mode: int
    """What the session counts as: the mode that served it, or its first choice's where none did."""
    served_provider: str
    served_model: str
    served_credential_mode: int
    input_tokens: int | None
    """Tokens are None where they are unknown, never 0 for unknown."""
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    tokens_estimated: bool
    finish_reason: int
    release_reason: int
    api_key_id: str
    request_id: str
    labels: str
    """A JSON object of strings."""
    detail: str
    """A JSON object of what is shown and never searched: candidates, attempts, latencies."""
    entitlement_revision: int
    provider_cost_micro: int | None = None
    """What the provider charges the caller, in micro-dollars: None where that is unknown, and on managed sessions."""
    price_table_version: str = ""
    """The version of the price table that the cost was computed with; empty where none was."""

    @property
    def key(self) -> LedgerKey:
        """What the entry is unique by."""
        return LedgerKey(self.account_id, self.session_id, self.event)


class PositionedEntry(NamedTuple):
    """A ledger entry and its place in quota's order of events."""

    partition: int
    cursor: str
    entry: LedgerEntry


class Watermark(NamedTuple):
    """A promise about a partition: every event before `watermark_us` has been sent."""

    partition: int
    watermark_us: int
    oldest_reserve_us: int
    """The start of the oldest lease that still runs; 0 where none does."""


class EventBatch(NamedTuple):
    """What quota sends at once. The watermarks hold once the entries have been taken in."""

    entries: tuple[PositionedEntry, ...]
    watermarks: tuple[Watermark, ...]


class LedgerKey(NamedTuple):
    """What a ledger entry is unique by, for good."""

    account_id: str
    session_id: str
    event: int


class PartitionLease(NamedTuple):
    """A partition that a reader holds, and how far it has been read."""

    partition: int
    fence: int
    """Raised whenever the partition changes hands; who writes with an older one has lost it."""
    cursor: str
    """Empty before the first event."""
    watermark_us: int
    """Every event before this time has been taken in; 0 where nothing is known."""
    oldest_reserve_us: int
    """The start of the oldest lease of a session that may still bring an event; 0 where there is none."""


class PeriodCounts(NamedTuple):
    """Counted sessions of an account's period, by whose credentials served them."""

    managed: int
    byok: int
    other: int
    """Of no known mode: a contract newer than this code has more of them."""

    @property
    def committed(self) -> int:
        """All of them."""
        return self.managed + self.byok + self.other


def advanced(leases: Mapping[int, PartitionLease], batch: EventBatch) -> dict[int, PartitionLease]:
    """The leases of the partitions that `batch` is about, as they are once it has been taken in.

    Entries come in order within a partition, and so do watermarks.
    """
    moved: dict[int, PartitionLease] = {}
    for partition, cursor in {positioned.partition: positioned.cursor for positioned in batch.entries}.items():
        moved[partition] = leases[partition]._replace(cursor=cursor)
    for partition, watermark_us, oldest_reserve_us in batch.watermarks:
        lease = moved.get(partition) or leases[partition]
        moved[partition] = lease._replace(watermark_us=watermark_us, oldest_reserve_us=oldest_reserve_us)
    return moved
