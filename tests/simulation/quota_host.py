"""The host that runs quota: the shipped store, service and servicer on a file that survives it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowstack_protos.quota.v1 import quota_service_pb2, quota_service_pb2_grpc

from services.quota.adapters.sqlite import SqliteStore
from services.quota.adapters.sqlite.schema import open_database
from services.quota.service import QuotaService
from services.quota.servicer import POLICIES, QuotaServicer
from services.shared.auth import Authenticator
from services.shared.interceptor import RpcInterceptor
from tests.simulation.hosts import HOLD_US, TOKEN, HostClock, Surroundings
from tests.support.simulation_loop import Life
from tests.support.simulation_net import Server

SERVICE = quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"]


@dataclass
class Disk:
    """How commits fare. Each is how often, 0 to 1."""

    crash_before: float = 0.0
    crash_after: float = 0.0
    full: float = 0.0
    """The commit fails, and nothing is stored."""
    unsure: float = 0.0
    """The commit fails, and all is stored."""
    slow: float = 0.0


class SimulatedCommitter:
    """Commits later, in virtual time, or dies doing it."""

    def __init__(self, host: QuotaHost, life: Life) -> None:
        self._host = host
        self._life = life
        self._loop = host.around.loop

    def commit(self, commit: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        """As the store's own thread, in three steps: asked, durable, known."""
        prepared_us = self._host.around.oracle.prepared(self._host.clock.now_us())
        self._loop.call_later(self._delay_s(), self._store, commit, done, prepared_us)

    async def close(self) -> None:
        """There is no thread."""

    def _delay_s(self) -> float:
        draw = self._host.random.random
        return draw() * 3 if draw() < self._host.disk.slow else 0.0002 + draw() * 0.002

    def _store(self, commit: Callable[[], None], done: Callable[[Exception | None], None], prepared_us: int) -> None:
        disk, draw, oracle = self._host.disk, self._host.random.random, self._host.around.oracle
        if draw() < disk.crash_before:
            self._host.kill("before its commit")
            return
        failure: sqlite3.Error | None = None
        if draw() < disk.full:
            failure = sqlite3.OperationalError("database or disk is full")
        else:
            commit()
            oracle.stored(self._host.connection, prepared_us)
            if draw() < disk.crash_after:
                self._host.kill("after its commit")
                return
            if draw() < disk.unsure:
                failure = sqlite3.OperationalError("disk I/O error")
        self._loop.call_later(draw() * 0.001, self._answer, done, failure)

    def _answer(self, done: Callable[[Exception | None], None], failure: sqlite3.Error | None) -> None:
        if failure is not None:
            self._host.around.loop.note(f"a commit fails: {failure}")
        done(failure)


class QuotaHost:
    """Starts, kills and restarts quota."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.random = random.Random(f"quota {around.seed}")
        self.clock = HostClock(around.loop, around.start_us)
        self.disk = Disk()
        self.life: Life | None = None
        self._runs = 0
        self._store: SqliteStore | None = None

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self.life is not None and self.life.alive

    @property
    def connection(self) -> sqlite3.Connection:
        """The store's connection."""
        assert self._store is not None
        return self._store._connection

    @property
    def _path(self) -> Path:
        return self.around.folder / f"run-{self._runs}" / "quota.db"

    def start(self) -> None:
        """Opens what the last run left and serves it."""
        self.around.loop.note("quota starts")
        self.life = Life(self.around.loop, "quota")
        self.life.run(self._boot, self.life)

    def _boot(self, life: Life) -> None:
        if not self._path.exists():
            name_history(self._path, f"{self.around.seed:016x}")
        self.around.oracle.starts()
        self._store = SqliteStore.open(self._path, self.clock, HOLD_US, SimulatedCommitter(self, life))
        service = QuotaService(self._store)
        server = Server(life)
        policies = {f"/{SERVICE.full_name}/{name}": policy for name, policy in POLICIES.items()}
        guarded = RpcInterceptor(
            server,  # type: ignore[arg-type]
            Authenticator(policies, internal_tokens=(TOKEN,)),
            monotonic_s=self.clock.monotonic_s,
        )
        quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(QuotaServicer(service), guarded)  # type: ignore[arg-type]
        life.start(service.maintain())
        self.around.network.listen(server)

    def kill(self, why: str) -> None:
        """Kills the process and leaves the file as it is at this moment."""
        assert self.life is not None
        self.around.loop.note(f"quota is killed {why}")
        self.life.kill()
        left, connection = self._path.parent, self.connection
        self._runs += 1
        shutil.copytree(left, self._path.parent)
        connection.close()
        shutil.rmtree(left)

    def refuse_writes(self, refuses: bool) -> None:
        """The file takes no writes, or takes them again."""
        if self.up:
            self.connection.execute(f"PRAGMA query_only = {'ON' if refuses else 'OFF'}")

    def close(self) -> None:
        """Closes the file."""
        if self.up:
            self.connection.close()


def name_history(path: Path, epoch: str) -> None:
    """Makes the file, with an epoch that is the seed's and not the machine's."""
    connection = open_database(path)
    connection.execute("UPDATE meta SET epoch = ?", (epoch,))
    connection.close()
