"""The port that every store of quota implements.

A store decides by the domain's rules, makes every change durable before it answers, and answers UNAVAILABLE with
nothing half done where it cannot. Commands on one account are decided in the order in which they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from services.quota.domain.commands import Command, Result
from services.quota.domain.cursors import Position
from services.quota.domain.model import Entitlement, Quota, Session, SessionEvent


class EventPage(NamedTuple):
    """Events of a partition, and what is known to be complete once they have been read."""

    events: list[SessionEvent]
    has_more: bool
    watermark_us: int
    """No event before this time is still to come, once `has_more` is False. It moves with the durable clock."""
    oldest_reserve_us: int
    """When the oldest session still reserved was reserved; 0 where none is."""


class Committed(NamedTuple):
    """What a durable group of changes touched."""

    partitions: frozenset[int]
    """Partitions with new events."""
    accounts: frozenset[str]
    """Accounts whose quota changed."""


class Store(Protocol):
    """Where quota keeps its state."""

    @property
    def epoch(self) -> str:
        """Names this store's history: a new store has a new epoch."""
        ...

    async def execute(self, commands: Sequence[Command]) -> list[Result]:
        """Decides the commands and makes the changes durable; one result for each, in order.

        Commands of one account are decided in order. A store that spreads partitions over machines may fail for
        some commands only: those get QUOTA_UNAVAILABLE as their result.
        """
        ...

    async def put_entitlement(self, entitlement: Entitlement) -> Entitlement:
        """Stores an entitlement. Raises FlowStackError INVALID_REQUEST, STALE_REVISION, QUOTA_UNAVAILABLE."""
        ...

    async def entitlement(self, account_id: str) -> Entitlement | None:
        """The stored entitlement."""
        ...

    async def session(self, account_id: str, session_id: str) -> Session | None:
        """A session of the account."""
        ...

    async def quota(self, account_id: str) -> Quota | None:
        """The account's quota now; None where no entitlement is in force."""
        ...

    async def read_events(self, after: Position, limit: int) -> EventPage:
        """Up to `limit` events of one partition after a position.

        Raises:
            FlowStackError: INVALID_REQUEST for a position of another history.
        """
        ...

    async def acknowledge(self, positions: Sequence[Position]) -> None:
        """Marks everything up to the positions as stored elsewhere for good.

        Raises:
            FlowStackError: INVALID_REQUEST for a position of another history.
        """
        ...

    async def sweep(self) -> None:
        """Expires the leases that ran out."""
        ...

    async def move_clock(self) -> None:
        """Makes the present time durable, so that watermarks go on while nothing happens."""
        ...

    async def prune(self, partition: int) -> bool:
        """Deletes some sessions of a partition that were acknowledged, and resolved over 48 h ago.

        Answers whether there may be more of them.
        """
        ...

    def on_committed(self, listener: Callable[[Committed], None]) -> None:
        """Calls `listener` in the event loop after each durable change."""
        ...

    async def close(self) -> None:
        """Finishes what is queued and closes the store."""
        ...
