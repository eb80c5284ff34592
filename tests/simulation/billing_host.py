"""A host that runs billing's reader: the shipped one, on a ledger whose transactions hold as a whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

from services.billing.adapters.quota_client import QuotaClient
from services.billing.domain.leases import LeaseState, lacking, share
from services.billing.domain.ledger import LedgerEntry, PartitionLease, PositionedEntry
from services.billing.ledger_store import Balance, LedgerInsert
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.reader import SessionEventReader
from services.shared.background import Backoff, keep_running
from services.shared.channel import ServiceChannel
from tests.simulation.hosts import METADATA, HostClock, Surroundings
from tests.simulation.oracle import Key, Oracle
from tests.support.simulation_loop import Life
from tests.support.simulation_net import FakeChannel

T = TypeVar("T")

LEASE_S: Final = 2.0
"""Short beside a run, so that a killed reader's partitions change hands in it."""


@dataclass
class Books:
    """What is durable at billing."""

    leases: dict[int, PartitionLease]
    states: dict[int, LeaseState]
    alive: dict[str, int] = field(default_factory=dict)
    """When each replica's word that it is alive runs out."""
    promised: dict[int, PartitionLease] = field(default_factory=dict)
    """Each partition as it was when its newest watermark was stored."""
    entries: dict[Key, LedgerEntry] = field(default_factory=dict)
    newest_us: dict[int, int] = field(default_factory=dict)
    """The time of each partition's newest entry."""

    @classmethod
    def empty(cls, partitions: Sequence[int]) -> Books:
        """Nothing read, nobody reading."""
        return cls(
            {part: PartitionLease(part, 0, "", 0, 0) for part in partitions},
            {part: LeaseState(part, "", 0, 0) for part in partitions},
        )


class Partitions:
    """The partitions inside one transaction."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.news: dict[int, PartitionLease] = {}

    async def balance(self, replica: str, now_us: int, lease_us: int) -> Balance:
        """Shares the partitions as the shipped store does."""
        books, end_us = self._books, now_us + lease_us
        books.alive[replica] = end_us
        alive = {name: until_us for name, until_us in books.alive.items() if until_us > now_us}
        shares = share(tuple(books.states.values()), alive, replica, now_us)
        for part in (*shares.keep, *shares.take):
            changes_hands = part in shares.take
            fence = books.states[part].fence + changes_hands
            books.states[part] = LeaseState(part, replica, fence, end_us)
            books.leases[part] = books.leases[part]._replace(fence=fence)
        for part in shares.give:
            books.states[part] = books.states[part]._replace(owner="", end_us=0)
        held = [books.leases[part] for part, state in books.states.items() if state.owner == replica]
        return Balance(held, lacking(tuple(books.states.values()), alive, replica, now_us, held=len(held)))

    async def advance(self, leases: Sequence[PartitionLease], end_us: int) -> bool:
        """Stores how far partitions have been read; False where another reader has one since."""
        if any(lease.fence != self._books.states[lease.partition].fence for lease in leases):
            return False
        for lease in leases:
            self.news[lease.partition] = self._books.leases[lease.partition] = lease
            self._books.states[lease.partition] = self._books.states[lease.partition]._replace(end_us=end_us)
        return True


class Ledger:
    """The ledger inside one transaction."""

    def __init__(self, books: Books, partitions: Partitions, oracle: Oracle) -> None:
        self._books = books
        self._partitions = partitions
        self._oracle = oracle

    async def take_strays(self, limit: int) -> Sequence[PositionedEntry]:
        """Every account is known here."""
        return ()

    async def insert(self, entries: Sequence[PositionedEntry], now_us: int) -> LedgerInsert:
        """Appends what is new, and holds it against the promises that were made."""
        inserted: list[LedgerEntry] = []
        for partition, _, entry in entries:
            key = (entry.account_id, entry.session_id)
            known = self._books.entries.get(key)
            if known is None:
                inserted.append(entry)
                self._check_promises(partition, entry)
                self._books.entries[key] = entry
                self._books.newest_us[partition] = entry.event_us
            elif known != entry:
                self._oracle.fail(f"{entry.session_id} came again with other content")
        for partition, lease in self._partitions.news.items():
            promised = self._books.promised.get(partition)
            if promised is not None and lease.watermark_us < promised.watermark_us:
                self._oracle.fail(f"the watermark of partition {partition} fell")
            self._books.promised[partition] = lease
        return LedgerInsert(inserted, frozenset())

    def _check_promises(self, partition: int, entry: LedgerEntry) -> None:
        if entry.event_us < self._books.newest_us.get(partition, 0):
            self._oracle.fail(f"the event of {entry.session_id} came out of order")
        promised = self._books.promised.get(partition)
        if promised is None:
            return
        if entry.event_us < promised.watermark_us:
            self._oracle.fail(f"the event of {entry.session_id} came after the watermark that had passed it")
        if entry.reserve_us < min(promised.oldest_reserve_us or promised.watermark_us, promised.watermark_us):
            self._oracle.fail(f"{entry.session_id} was reserved before what was said to be the oldest")


class NoRollups:
    """No sums of the ledger are kept here."""

    async def add(self, entries: Sequence[LedgerEntry]) -> None:
        """Keeps nothing."""


class SimulatedBillingStore:
    """Transactions that take time, and that a crash undoes as a whole."""

    shared = True

    def __init__(self, host: BillingHost, life: Life) -> None:
        self._host = host
        self._life = life
        self._lock = asyncio.Lock()

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Runs `work`; what it changed is durable when this returns."""
        async with self._lock:
            draw = self._host.random.random
            await asyncio.sleep(draw() * 0.005)
            staged = deepcopy(self._host.books)
            partitions = Partitions(staged)
            ledger = Ledger(staged, partitions, self._host.around.oracle)
            result = await work(SimpleNamespace(ledger=ledger, partitions=partitions, rollups=NoRollups()))
            if draw() < self._host.crash_before:
                await self._die()
            self._host.books = staged
            self._host.around.oracle.booked.update(staged.entries)
            if draw() < self._host.crash_after:
                await self._die()
            await asyncio.sleep(draw() * 0.002)
            return result

    async def _die(self) -> None:
        self._life.kill()
        await asyncio.sleep(0)


class BillingHost:
    """Starts and kills billing, and sometimes starts a second one beside it."""

    def __init__(self, around: Surroundings, partitions: Sequence[int]) -> None:
        self.around = around
        self.books = Books.empty(partitions)
        self.random = random.Random(f"billing {around.seed}")
        self.clock = HostClock(around.loop, around.start_us)
        self.crash_before = 0.0
        self.crash_after = 0.0
        self._lives: list[Life] = []

    @property
    def running(self) -> int:
        """How many run."""
        return sum(life.alive for life in self._lives)

    @property
    def up(self) -> bool:
        """Whether one runs."""
        return self.running > 0

    def start(self) -> None:
        """Starts one more reader on the same books."""
        self.around.loop.note("billing starts")
        life = Life(self.around.loop, "billing")
        self._lives.append(life)
        life.run(self._boot, life)

    def _boot(self, life: Life) -> None:
        channel = FakeChannel(self.around.network, life, "billing")
        client = QuotaClient(ServiceChannel(channel, METADATA))  # type: ignore[arg-type]
        store = SimulatedBillingStore(self, life)
        context = Context(
            store=cast("Any", store),
            quota=client,
            catalogue=cast("Any", None),
            page_tokens=cast("Any", None),
            clock=self.clock,
            randomness=self.random.randbytes,
        )
        replica = f"billing-{len(self._lives)}"
        dispatcher = cast("Any", NoDispatcher(self.around.oracle))
        reader = SessionEventReader(context, dispatcher, Booking(context), replica, LEASE_S)
        life.start(keep_running("session events", reader.run_once, Backoff(0.1, 1.0, self.random.random)))

    def kill(self) -> None:
        """Kills every one that runs."""
        for life in self._lives:
            life.kill()

    def has(self, key: Key) -> bool:
        """Whether the ledger has a session's event."""
        return key in self.books.entries


class NoDispatcher:
    """Entitlements are put by the world here; a replaced store is no part of it."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    async def renew(self) -> None:
        """Called where quota's history is another one, which it never is."""
        self._oracle.fail("billing was told that quota's store had been replaced")
