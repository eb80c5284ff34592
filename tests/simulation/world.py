"""One simulated world: built from a seed, broken for a while, healed, and checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.quota.domain.model import partition_of
from tests.simulation.billing_host import BillingHost
from tests.simulation.customers import Customers, ForeignClient, Plans, Wish
from tests.simulation.faults import Faults
from tests.simulation.hosts import HOLD_US, LEASE_S, Surroundings
from tests.simulation.oracle import COMMITTED, MANAGED, RESERVED, Oracle
from tests.simulation.quota_host import QuotaHost
from tests.simulation.router_host import RouterHost
from tests.support.clock import DAY_US, us
from tests.support.linearizability import History
from tests.support.simulation_loop import SimulatedLoop
from tests.support.simulation_net import Network

ACCOUNTS: Final = ("acct_a", "acct_b", "acct_c")
DRAIN_S: Final = LEASE_S + 4 * HOLD_US / 1e6 + 30
LINGERS_S: Final = 8.0
"""How long after the healing something that was on its way before may still arrive."""
LEAP_US: Final = 3 * DAY_US


class World:
    """Everything that one seed makes."""

    def __init__(self, seed: int, loop: SimulatedLoop, folder: Path) -> None:
        draw = random.Random(f"world {seed}")
        oracle = Oracle(loop, HOLD_US)
        near_month_end = draw.random() < 0.5
        start_us = us(2026, 4, 1) - draw.randrange(40_000_000) if near_month_end else us(2026, 4, 12, 7)
        self.around = Surroundings(seed, loop, Network(loop, seed), oracle, folder, start_us)
        self.oracle = oracle
        self.accounts = ACCOUNTS[: draw.randrange(1, len(ACCOUNTS) + 1)]
        self.chaos_s = draw.choice((15.0, 30.0, 45.0))
        self.requests = draw.randrange(10, 50)
        self.leaps = draw.random() < 0.3
        self.history = History(lambda: loop.steps)
        self.healed_s = 0.0
        self.quota = QuotaHost(self.around)
        partitions = sorted({partition_of(account_id) for account_id in self.accounts})
        self.billing = BillingHost(self.around, partitions)
        self.routers = [
            RouterHost(self.around, f"router-{number}", self.history) for number in range(draw.randrange(1, 4))
        ]
        self.faults = Faults(self.around, self.quota, self.billing, self.routers)
        self.customers = Customers(self.around, self.routers)
        self.foreign = ForeignClient(self.around, self.history)
        self.plans = Plans(self.around, us(2026, 1, draw.choice((1, 31))))

    async def run(self) -> None:
        """From the first start to the last check."""
        await self._begin()
        await self._break()
        await self._drain()
        await self._check_service()
        if self.leaps:
            await self._leap()
        await self._check_books()

    async def _begin(self) -> None:
        for host in (self.quota, self.billing, *self.routers):
            host.start()
        for account_id in self.accounts:
            await self.plans.put(account_id, plain=True)

    async def _break(self) -> None:
        """Traffic and faults at the same time; then only what nobody may break: the end of what has begun."""
        until_s = self.around.loop.time() + self.chaos_s
        revive = asyncio.create_task(self.faults.revive())
        work = [
            asyncio.create_task(self.customers.come(self.customers.wishes(self.requests, self.accounts), self.chaos_s)),
            asyncio.create_task(self.foreign.run(self.accounts[0], until_s)),
            asyncio.create_task(self.plans.run(self.accounts, until_s)),
        ]
        await self.faults.run(until_s)
        revive.cancel()
        self.around.loop.note("everything heals")
        self.faults.heal()
        self.healed_s = self.around.loop.time()
        await asyncio.gather(*work)

    async def _drain(self) -> None:
        """No session is left that holds a unit, nobody has anything to resolve, and billing has every event."""
        self.around.loop.note("drains")
        await asyncio.sleep(LINGERS_S)
        await self._until(lambda: not self.oracle.running(), f"sessions stay reserved: {self.oracle.running()}")
        await self._until(lambda: all(router.idle for router in self.routers), "a router goes on resolving")
        await self._until(lambda: not self._unbooked(), f"billing lacks {self._unbooked()}")
        self.oracle.check_owed(self.healed_s + LINGERS_S)

    async def _until(self, reached: Callable[[], bool], problem: str) -> None:
        deadline_s = self.around.loop.time() + DRAIN_S
        while not reached():
            if self.around.loop.time() > deadline_s:
                self.oracle.fail(f"after {DRAIN_S} s: {problem}")
                return
            await asyncio.sleep(0.25)

    def _unbooked(self) -> list[str]:
        return [
            row.session_id
            for row in self.oracle.sessions.values()
            if row.reserve_us and row.state != RESERVED and not self.billing.has(row.key)
        ]

    async def _check_service(self) -> None:
        """What has been healed serves: every account gets what it is entitled to, to the last unit and no more."""
        for account_id in self.accounts:
            used, period_us = await self._used(account_id)
            await self.plans.put(account_id, limit=used + 2, plain=True)
            answers = [await self._served(account_id, number) for number in range(3)]
            same_period = (await self._used(account_id))[1] == period_us
            if same_period and answers != ["COMMITTED", "COMMITTED", "SESSION_QUOTA_EXCEEDED"]:
                self.oracle.fail(f"{account_id} had 2 units left and got {answers}")
        await self._until(lambda: not self._unbooked(), "billing lacks the last sessions")

    async def _used(self, account_id: str) -> tuple[int, int]:
        """How many units of the present period are used, and when it began."""
        quota = await self.foreign.quota(account_id)
        period_us = quota.period_start_time.ToMicroseconds()
        counts = self.oracle.sums().get((account_id, period_us), (0, 0, 0))
        if (quota.sessions_reserved, quota.managed_sessions, quota.byok_sessions) != counts:
            self.oracle.fail(f"{account_id}'s quota is {quota}, and its sessions are {counts}")
        return sum(counts), period_us

    async def _served(self, account_id: str, number: int) -> str:
        """What a customer gets who tries until the providers do not fail."""
        for attempt in range(20):
            wish = Wish(number, account_id, "", byok=True, fallback=False, patience_s=1_000.0, tries=1)
            router = self.routers[number % len(self.routers)]
            answer = await self.customers.ask(router, wish, f"{account_id}.{number}.{attempt}")
            if not answer.startswith("PROVIDER_"):
                return answer
        return "nothing"

    async def _leap(self) -> None:
        """Three days pass while billing is down: what it has not got yet stays, the rest goes."""
        self.billing.kill()
        late = self.accounts[0]
        used, _ = await self._used(late)
        await self.plans.put(late, limit=used + 1, plain=True)
        await self._served(late, 0)
        for host in (self.quota, *self.routers):
            host.clock.skew_us += LEAP_US
        await asyncio.sleep(61)
        self.billing.start()
        await self._until(lambda: not self._unbooked(), "billing lacks what came before the leap")
        await asyncio.sleep(62)
        if kept := [key for key in self.oracle.sessions if key not in self.oracle.pruned]:
            self.oracle.fail(f"not pruned: {kept}")

    async def _check_books(self) -> None:
        """What was told still stands, and the ledger is what quota counted."""
        self.oracle.check_acknowledged()
        booked: dict[tuple[str, int], list[int]] = {}
        for entry in self.billing.books.entries.values():
            counts = booked.setdefault((entry.account_id, entry.period_start_us), [0, 0, 0])
            if entry.event == 1:
                counts[1 if entry.credential_mode == MANAGED else 2] += 1
        if {key: tuple(counts) for key, counts in booked.items()} != self.oracle.sums():
            self.oracle.fail(f"the ledger has {booked}, and quota {self.oracle.sums()}")
        for key, entry in self.billing.books.entries.items():
            if (entry.event == 1) != (self.oracle.sessions[key].state == COMMITTED):
                self.oracle.fail(f"the ledger has {key[1]} as {entry.event}")
