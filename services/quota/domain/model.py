"""What quota knows: sessions, entitlements and counters. Plain tuples, because a batch makes thousands."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

PARTITIONS: Final = 64
"""Accounts are spread over this many partitions, each with its own order of events. Never changes: it is part of
every cursor."""

DAY_US: Final = 24 * 3600 * 1_000_000


def partition_of(account_id: str) -> int:
    """The partition of an account."""
    return crc32(account_id.encode()) % PARTITIONS


class CredentialMode(IntEnum):
    """Whose credentials serve a session. The numbers are the contract's."""

    UNSPECIFIED = 0
    MANAGED = 1
    BYOK = 2


class SessionState(IntEnum):
    """Where a session stands. The numbers are the contract's."""

    RESERVED = 1
    COMMITTED = 2
    RELEASED = 3
    EXPIRED = 4


class EventType(IntEnum):
    """What a session event says. The numbers are the contract's."""

    TOMBSTONE = 0
    """Not sent: a release of a session that was never reserved. It stands among the events to be pruned with them."""
    COMMITTED = 1
    RELEASED = 2
    EXPIRED = 3


class BlockReason(IntEnum):
    """Why new sessions of an account are refused. The numbers are the contract's."""

    BUDGET_EXCEEDED = 1
    PAYMENT_OVERDUE = 2
    ACCOUNT_SUSPENDED = 3


class Candidate(NamedTuple):
    """A provider and model that may serve a session."""

    provider: str
    model: str
    credential_mode: int


class Outcome(NamedTuple):
    """How a session ended. Quota counts by the credential mode; the rest it keeps as it came."""

    served_credential_mode: int
    payload: bytes
    """The caller's encoding of the whole outcome; equal outcomes have equal bytes."""


class Session(NamedTuple):
    """A session, at one moment. Times in microseconds since 1970, 0 where unset."""

    session_id: str
    account_id: str
    state: SessionState
    candidates: tuple[Candidate, ...]
    period_start_us: int
    reserve_us: int
    expire_us: int
    resolve_us: int
    outcome: Outcome | None
    release_reason: int
    request_id: str
    api_key_id: str
    labels: tuple[tuple[str, str], ...]
    """Sorted by key."""
    entitlement_revision: int

    @property
    def is_tombstone(self) -> bool:
        """True for a release that came before its reserve."""
        return self.reserve_us == 0


class Term(NamedTuple):
    """What an account may use from `effective_us` on."""

    effective_us: int
    plan_id: str
    session_limit: int
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int
    max_output_tokens: int
    max_tool_rounds: int
    upgrade_plan_id: str


class Block(NamedTuple):
    """Refuses new sessions, until `until_us` where that is not 0."""

    reason: BlockReason
    message: str
    until_us: int


class Entitlement(NamedTuple):
    """What an account may use, from its anchor on."""

    account_id: str
    revision: int
    subscription_id: str
    period_anchor_us: int
    terms: tuple[Term, ...]
    end_us: int
    """0 where it goes on."""
    block: Block | None


class InForce(NamedTuple):
    """An entitlement at one moment, and how long that holds."""

    term: Term
    period_start_us: int
    period_end_us: int
    has_ended: bool
    from_us: int
    until_us: int
    """From this moment on it has to be worked out again. A block's end is not in it."""


@dataclass(slots=True)
class Counters:
    """What one account used and holds in one period. committed = managed + byok."""

    reserved: int = 0
    managed: int = 0
    byok: int = 0

    @property
    def committed(self) -> int:
        """Sessions that were counted."""
        return self.managed + self.byok


@dataclass(slots=True)
class Account:
    """The state that decisions on one account need. Changed by `apply` alone."""

    account_id: str
    partition: int
    entitlement: Entitlement | None = None
    counters: dict[int, Counters] = field(default_factory=dict)
    """By period start. A period that is missing here is at zero."""
    running: int = 0
    """Sessions that are reserved, in all periods."""
    in_force: InForce | None = None
    """What `in_force` last answered, so that most decisions need no calendar."""


class Quota(NamedTuple):
    """An account's quota in its current period."""

    account_id: str
    term: Term
    period_start_us: int
    period_end_us: int
    managed_sessions: int
    byok_sessions: int
    sessions_reserved: int
    refusal_reason: str
    """Empty where a reservation would be granted."""
    entitlement_revision: int


class SessionEvent(NamedTuple):
    """A session event at its place in its partition."""

    partition: int
    position: int
    type: EventType
    time_us: int
    session: Session
