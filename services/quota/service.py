"""Quota's use cases beyond single commands: reading and following events, watching a quota, sweeping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

from services.quota.domain.cursors import Position
from services.quota.domain.decide import entitlement_missing, session_not_found
from services.quota.domain.model import PARTITIONS, Entitlement, Quota, Session
from services.quota.store import Committed, EventPage, Store
from services.shared.background import waited
from services.shared.errors import FlowStackError, Reason
from services.shared.log import frames_of, get_logger

PAGE_EVENTS_MAX: Final = 256
"""Events of one partition in one message of ReadSessionEvents."""

SWEEP_SECONDS: Final = 0.5
"""How often leases are looked at. Every command lets due ones expire too, so this matters to idle systems only."""

HEARTBEAT_SECONDS: Final = 5.0
"""How often followers get watermarks while nothing happens, and how often the clock is made durable for them."""

RECHECK_SECONDS: Final = 10.0
"""How often a watched quota is read though no session changed it: a period, a term or a block may have ended."""

PRUNE_SECONDS: Final = 60.0


class PartitionPage(NamedTuple):
    """A page of one partition's events."""

    partition: int
    page: EventPage


class QuotaService:
    """The use cases on a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._followers: dict[asyncio.Event, tuple[frozenset[int], set[int]]] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self.draining = asyncio.Event()
        self._log = get_logger()
        store.on_committed(self._wake)

    async def session(self, account_id: str, session_id: str) -> Session:
        """A session of the account.

        Raises:
            FlowStackError: SESSION_NOT_FOUND, QUOTA_UNAVAILABLE.
        """
        session = await self.store.session(account_id, session_id)
        if session is None:
            raise session_not_found()
        return session

    async def quota(self, account_id: str) -> Quota:
        """The account's quota now.

        Raises:
            FlowStackError: ENTITLEMENT_MISSING, QUOTA_UNAVAILABLE.
        """
        quota = await self.store.quota(account_id)
        if quota is None:
            raise entitlement_missing()
        return quota

    async def entitlement(self, account_id: str) -> Entitlement:
        """The stored entitlement.

        Raises:
            FlowStackError: ENTITLEMENT_MISSING, QUOTA_UNAVAILABLE.
        """
        entitlement = await self.store.entitlement(account_id)
        if entitlement is None:
            raise entitlement_missing()
        return entitlement

    async def drain(self) -> None:
        """Ends every stream that would not end by itself, so that its reader turns to the next server."""
        self.draining.set()
        for woken in self._followers:
            woken.set()
        for watchers in self._watchers.values():
            for changed in watchers:
                changed.set()

    def check_draining(self) -> None:
        """Ends a stream of a service that is shutting down.

        Raises:
            FlowStackError: SHUTTING_DOWN.
        """
        if self.draining.is_set():
            raise FlowStackError(Reason.SHUTTING_DOWN, "Quota is shutting down. Connect again and go on from there.")

    async def watch_quota(self, account_id: str) -> AsyncIterator[Quota]:
        """The account's quota at once and after each change; changes that come faster are merged.

        Raises:
            FlowStackError: as `quota`.
        """
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(account_id, set())
        watchers.add(changed)
        try:
            last: Quota | None = None
            while True:
                self.check_draining()
                changed.clear()
                quota = await self.quota(account_id)
                if quota != last:
                    yield quota
                    last = quota
                await waited(changed, RECHECK_SECONDS)
        finally:
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(account_id, None)

    async def read_events(self, positions: Sequence[Position], follow: bool) -> AsyncIterator[list[PartitionPage]]:
        """Pages of events, each partition in order from after its position; with `follow` for ever.

        Raises:
            FlowStackError: INVALID_REQUEST for a position of another history, QUOTA_UNAVAILABLE.
        """
        at = {position.partition: position for position in positions}
        woken = asyncio.Event()
        fresh: set[int] = set(at)
        self._followers[woken] = (frozenset(at), fresh)
        try:
            while True:
                woken.clear()
                pending = sorted(fresh)
                fresh.clear()
                async for pages in self._read_up(at, pending):
                    yield pages
                if not follow:
                    return
                self.check_draining()
                if not await waited(woken, HEARTBEAT_SECONDS):
                    fresh.update(at)
        finally:
            del self._followers[woken]

    async def _read_up(self, at: dict[int, Position], pending: Iterable[int]) -> AsyncIterator[list[PartitionPage]]:
        """Reads the pending partitions up to their ends."""
        while pending:
            pages = await asyncio.gather(*(self.store.read_events(at[p], PAGE_EVENTS_MAX) for p in pending))
            found = [PartitionPage(partition, page) for partition, page in zip(pending, pages, strict=True)]
            for partition, page in found:
                if page.events:
                    newest = page.events[-1]
                    at[partition] = Position(partition, newest.position, newest.time_us)
            yield found
            pending = [partition for partition, page in found if page.has_more]

    def _wake(self, committed: Committed) -> None:
        for woken, (partitions, fresh) in self._followers.items():
            new = committed.partitions & partitions
            if new:
                fresh.update(new)
                woken.set()
        if self._watchers:
            for account_id in committed.accounts:
                for changed in self._watchers.get(account_id, ()):
                    changed.set()

    async def _prune(self) -> None:
        for partition in range(PARTITIONS):
            while await self.store.prune(partition):
                pass

    async def maintain(self) -> None:
        """Expires, keeps watermarks moving and prunes, until cancelled."""
        loop = asyncio.get_running_loop()
        next_heartbeat_s = next_prune_s = loop.time()
        while True:
            try:
                await self.store.sweep()
                if self._followers and loop.time() >= next_heartbeat_s:
                    next_heartbeat_s = loop.time() + HEARTBEAT_SECONDS
                    await self.store.move_clock()
                if loop.time() >= next_prune_s:
                    next_prune_s = loop.time() + PRUNE_SECONDS
                    await self._prune()
            except FlowStackError as error:
                self._log.warning("sweep_failed", reason=error.reason.value)
            except Exception as error:
                # A defect of ours. The next round may be free of it, and leases have to run out whatever happens.
                self._log.error("defect", error_type=type(error).__name__, traceback=frames_of(error))
            await asyncio.sleep(SWEEP_SECONDS)
