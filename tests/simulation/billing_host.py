"""A host that runs billing's reader: the shipped one, on a ledger whose transactions hold as a whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from services.billing.adapters.quota_client import QuotaClient
from services.billing.domain.ledger import LedgerEntry, PartitionCursor, PositionedEntry, Watermark
from services.billing.service.background import Backoff, keep_running
from services.billing.service.context import Context
from services.billing.service.reader import SessionEventReader
from services.billing.store import LedgerInsert
from services.shared.channel import ServiceChannel
from tests.simulation.hosts import METADATA, HostClock, Surroundings
from tests.simulation.oracle import Key, Oracle
from tests.support.simulation_loop import Life
from tests.support.simulation_net import FakeChannel

T = TypeVar("T")


@dataclass
class Books:
    """What is durable at billing."""

    partitions: tuple[int, ...]
    fence: int = 0
    cursors: dict[int, str] = field(default_factory=dict)
    watermarks: dict[int, Watermark] = field(default_factory=dict)
    entries: dict[Key, LedgerEntry] = field(default_factory=dict)
    newest_us: dict[int, int] = field(default_factory=dict)
    """The time of each partition's newest entry."""


class Ledger:
    """The ledger inside one transaction."""

    def __init__(self, books: Books, oracle: Oracle) -> None:
        self._books = books
        self._oracle = oracle

    async def claim(self) -> tuple[int, Sequence[PartitionCursor]]:
        """Takes over every partition."""
        self._books.fence += 1
        cursors, watermarks = self._books.cursors, self._books.watermarks
        return self._books.fence, [
            PartitionCursor(part, cursors.get(part, ""), watermarks[part].watermark_us if part in watermarks else 0)
            for part in self._books.partitions
        ]

    async def advance(self, fence: int, cursors: Mapping[int, str], watermarks: Sequence[Watermark]) -> bool:
        """Moves cursors and watermarks; False where another reader has claimed since."""
        if fence != self._books.fence:
            return False
        self._books.cursors |= cursors
        self._news = {watermark.partition: watermark for watermark in watermarks}
        return True

    async def insert(self, entries: Sequence[PositionedEntry], now_us: int) -> LedgerInsert:
        """Appends what is new, and holds it against the promises that were made."""
        inserted = 0
        for partition, _, entry in entries:
            key = (entry.account_id, entry.session_id)
            known = self._books.entries.get(key)
            if known is None:
                inserted += 1
                self._check_promises(partition, entry)
                self._books.entries[key] = entry
                self._books.newest_us[partition] = entry.event_us
            elif known != entry:
                self._oracle.fail(f"{entry.session_id} came again with other content")
        for partition, watermark in self._news.items():
            promised = self._books.watermarks.get(partition)
            if promised is not None and watermark.watermark_us < promised.watermark_us:
                self._oracle.fail(f"the watermark of partition {partition} fell")
            self._books.watermarks[partition] = watermark
        return LedgerInsert(inserted, frozenset())

    def _check_promises(self, partition: int, entry: LedgerEntry) -> None:
        if entry.event_us < self._books.newest_us.get(partition, 0):
            self._oracle.fail(f"the event of {entry.session_id} came out of order")
        promised = self._books.watermarks.get(partition)
        if promised is None:
            return
        if entry.event_us < promised.watermark_us:
            self._oracle.fail(f"the event of {entry.session_id} came after the watermark that had passed it")
        if entry.reserve_us < min(promised.oldest_reserve_us or promised.watermark_us, promised.watermark_us):
            self._oracle.fail(f"{entry.session_id} was reserved before what was said to be the oldest")


class SimulatedBillingStore:
    """Transactions that take time, and that a crash undoes as a whole."""

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
            result = await work(SimpleNamespace(ledger=Ledger(staged, self._host.around.oracle)))
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
        self.books = Books(tuple(partitions))
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
        reader = SessionEventReader(context, cast("Any", NoDispatcher(self.around.oracle)))
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
