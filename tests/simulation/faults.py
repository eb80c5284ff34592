"""What goes wrong: each seed draws which faults there are, and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.billing_host import BillingHost
from tests.simulation.hosts import Surroundings
from tests.simulation.quota_host import Disk, QuotaHost
from tests.simulation.router_host import RouterHost

HOUR_US = 3_600_000_000
BILLINGS_MAX = 2
Fault = Callable[[], Coroutine[Any, Any, None]]


class Faults:
    """Breaks things, and puts them right at the end."""

    def __init__(self, around: Surroundings, quota: QuotaHost, billing: BillingHost, routers: list[RouterHost]) -> None:
        self._around = around
        self._quota = quota
        self._billing = billing
        self._routers = routers
        self._random = random.Random(f"faults {around.seed}")
        self._clients = [router.name for router in routers] + ["billing", "foreign", "plans"]
        self._skew_us_max = 0
        every: list[Fault] = [
            self._quota_dies,
            self._router_dies,
            self._billing_dies,
            self._second_billing,
            self._cut,
            self._one_way,
            self._partition,
            self._slow_link,
            self._wall_clock_jumps,
            self._disk_refuses,
        ]
        self._chosen = [fault for fault in every if self._random.random() < 0.6]

    async def run(self, until_s: float) -> None:
        """Breaks something now and then, until a time."""
        draw, loop = self._random, self._around.loop
        self._begin()
        pause_s = draw.choice((0.7, 2.0, 6.0))
        running = set()
        while loop.time() < until_s and self._chosen:
            await asyncio.sleep(draw.expovariate(1 / pause_s))
            task = asyncio.create_task(draw.choice(self._chosen)())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(max(0.0, until_s - loop.time()))
        for task in list(running):
            task.cancel()

    def _begin(self) -> None:
        """What goes wrong all the time in this seed."""
        draw, disk = self._random, self._quota.disk
        if draw.random() < 0.5:
            disk.crash_before = draw.random() * 0.01
            disk.crash_after = draw.random() * 0.01
        if draw.random() < 0.4:
            disk.full = draw.random() * 0.03
            disk.unsure = draw.random() * 0.03
            disk.slow = draw.random() * 0.03
        if draw.random() < 0.4:
            self._billing.crash_before = self._billing.crash_after = draw.random() * 0.05
        self._around.network.ghosts = draw.choice((0.0, 0.5, 1.0))
        for client in self._clients:
            self._around.network.link(client).latency_s = draw.choice((0.0005, 0.005, 0.1))
        self._around.loop.note(f"faults {[fault.__name__.strip('_') for fault in self._chosen]}, {disk}")

    def heal(self) -> None:
        """Nothing goes wrong any more: everything runs, and clocks have caught up with the farthest one."""
        network = self._around.network
        self._quota.disk = Disk()
        self._billing.crash_before = self._billing.crash_after = 0.0
        network.ghosts = 0.0
        for client in self._clients:
            network.link(client).slow = 0.0
            network.mend(client)
        self._quota.refuse_writes(False)
        self._skew(self._skew_us_max)
        for host in (self._quota, self._billing, *self._routers):
            if not host.up:
                host.start()

    async def revive(self) -> None:
        """Brings up what is down, as a supervisor does, until cancelled."""
        while True:
            await asyncio.sleep(0.5 + self._random.random() * 3)
            for host in (self._quota, self._billing, *self._routers):
                if not host.up and self._random.random() < 0.5:
                    host.start()

    async def _quota_dies(self) -> None:
        if self._quota.up:
            self._quota.kill("at any moment")

    async def _router_dies(self) -> None:
        router = self._random.choice(self._routers)
        if router.up:
            router.kill()

    async def _billing_dies(self) -> None:
        self._billing.kill()

    async def _second_billing(self) -> None:
        if self._billing.running < BILLINGS_MAX:
            self._billing.start()

    async def _cut(self) -> None:
        self._around.network.cut(self._random.choice(self._clients))

    async def _one_way(self) -> None:
        client = self._random.choice(self._clients)
        self._around.network.kill_direction(client, self._random.choice(("to server", "to client")))
        await asyncio.sleep(self._random.random() * 10)
        if self._random.random() < 0.5:
            self._around.network.cut(client)
        self._around.network.mend(client)

    async def _partition(self) -> None:
        client = self._random.choice(self._clients)
        self._around.network.link(client).partitioned = True
        self._around.network.cut(client)
        await asyncio.sleep(self._random.random() * 10)
        self._around.network.mend(client)

    async def _slow_link(self) -> None:
        link = self._around.network.link(self._random.choice(self._clients))
        link.slow = self._random.random() * 0.3
        await asyncio.sleep(self._random.random() * 10)
        link.slow = 0.0

    async def _wall_clock_jumps(self) -> None:
        self._skew(self._quota.clock.skew_us + self._random.choice((-1, 1)) * self._random.randrange(HOUR_US))
        router = self._random.choice(self._routers)
        router.clock.skew_us = self._random.randrange(-HOUR_US, HOUR_US)

    def _skew(self, skew_us: int) -> None:
        clock = self._quota.clock
        if skew_us > clock.skew_us:
            self._around.oracle.leaps_s.append(self._around.loop.time())
        self._around.loop.note(f"quota's clock is set by {skew_us - clock.skew_us} us")
        clock.skew_us = skew_us
        self._skew_us_max = max(self._skew_us_max, skew_us)

    async def _disk_refuses(self) -> None:
        self._quota.refuse_writes(True)
        await asyncio.sleep(self._random.random() * 4)
        self._quota.refuse_writes(False)
