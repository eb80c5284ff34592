"""Quota alone in a simulated world, with callers that a test writes itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowstack_protos.quota.v1 import quota_service_pb2_grpc

from tests.simulation.customers import Plans
from tests.simulation.hosts import HOLD_US, Surroundings
from tests.simulation.oracle import Oracle
from tests.simulation.quota_host import QuotaHost
from tests.simulation.run import MEMORY, collector_off, defects_are_violations
from tests.support.clock import us
from tests.support.simulation_loop import HaltedError, Life, SimulatedLoop
from tests.support.simulation_net import FakeChannel, Network


class LoneQuota:
    """Quota, a network, an oracle, and whoever calls."""

    def __init__(self, seed: int, loop: SimulatedLoop, folder: Path, oracle: Oracle) -> None:
        self.loop = loop
        self.oracle = oracle
        self.around = Surroundings(seed, loop, Network(loop, seed), self.oracle, folder, us(2026, 4, 12, 7))
        self.quota = QuotaHost(self.around)
        self.plans = Plans(self.around, us(2026, 4, 1))

    def life(self, name: str) -> Life:
        """A process that calls quota."""
        return Life(self.loop, name)

    def stub(self, life: Life) -> Any:
        """The methods, called from a process."""
        return quota_service_pb2_grpc.QuotaServiceStub(FakeChannel(self.around.network, life, life.name))  # type: ignore[arg-type]

    def run(self, work: Any) -> None:
        """Starts quota and runs a coroutine to its end; fails with the first violation."""
        try:
            self.loop.run_until_complete(self._started(work))
        except HaltedError:
            pass  # the violation says why
        assert self.oracle.violations == []

    async def _started(self, work: Any) -> None:
        self.quota.start()
        await work


@contextmanager
def lone_quota(seed: int, disorder: float, oracle: type[Oracle] = Oracle) -> Iterator[LoneQuota]:
    """A world with quota in it."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None, prefix="simulation-"))
    loop = SimulatedLoop(seed, disorder)
    world = LoneQuota(seed, loop, folder, oracle(loop, HOLD_US))
    with collector_off(), defects_are_violations(world.oracle):
        try:
            yield world
        finally:
            loop.set_exception_handler(lambda *_: None)
            loop.end()
            world.quota.close()
            shutil.rmtree(folder)
