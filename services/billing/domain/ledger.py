"""What the ledger holds: one row for each session event, for good."""

from __future__ import annotations

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


class PartitionCursor(NamedTuple):
    """How far a partition has been read."""

    partition: int
    cursor: str
    """Empty before the first event."""
    watermark_us: int


class LedgerUsage(NamedTuple):
    """What the ledger knows of an account's current period."""

    committed_today: int
    """Counted sessions that were reserved since 00:00 UTC."""
    byok_in_period: int
    """Counted sessions of the period on the caller's credentials."""


def newest_cursors(entries: tuple[PositionedEntry, ...]) -> dict[int, str]:
    """The cursor of the last of `entries` in each partition; they come in order within each."""
    return {positioned.partition: positioned.cursor for positioned in entries}
