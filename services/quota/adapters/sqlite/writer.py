"""The one thread that owns the engine: takes whatever is queued as one group, commits it, and answers all of it.

No timer: an idle store commits a lone command at once, and a busy one commits what came in while the last commit was
on its way to the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from services.quota.adapters.sqlite.engine import Engine, Group, Transaction
from services.quota.adapters.sqlite.events import unavailable
from services.quota.store import Committed
from services.shared.clock import Clock
from services.shared.errors import FlowStackError
from services.shared.log import get_logger

GROUP_WEIGHT_MAX: Final = 4_096
"""Commands in one commit at most, so that nobody waits for an endless group."""

Step = Callable[[Transaction], Any]


class _Job(NamedTuple):
    """Work that waits for its commit."""

    step: Step
    weight: int
    future: asyncio.Future[Any]


class Writer:
    """Runs steps on the engine in groups, in the order in which they were submitted."""

    def __init__(self, engine: Engine, clock: Clock, on_committed: Callable[[Committed], None]) -> None:
        self._engine = engine
        self._clock = clock
        self._on_committed = on_committed
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="quota-writer", daemon=True)
        self._closed = False
        self._log = get_logger()
        self._thread.start()

    def submit(self, step: Step, weight: int = 1) -> asyncio.Future[Any]:
        """Queues a step; the future has its result once it is durable.

        The future fails with FlowStackError QUOTA_UNAVAILABLE where the group could not be stored, and with what the
        step itself raised.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(unavailable())
        else:
            self._queue.put(_Job(step, weight, future))
        return future

    async def close(self) -> None:
        """Runs what is queued, then ends the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        ended = False
        while not ended:
            jobs, ended = self._next_group()
            if jobs:
                self._run(jobs)

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Waits for a job and takes what else is there; and whether this was the end."""
        jobs: list[_Job] = []
        weight = 0
        item = self._queue.get()
        while item is not None:
            jobs.append(item)
            weight += item.weight
            if weight >= GROUP_WEIGHT_MAX:
                return jobs, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True

    def _run(self, jobs: list[_Job]) -> None:
        steps = [_guarded(job.step) for job in jobs]
        try:
            group = self._engine.run(steps, self._clock.now_us(), self._clock.monotonic_s())
        except Exception as error:
            self._recover(error)
            if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.IntegrityError):
                # A defect of ours. Whoever else was in the group must not pay for it.
                self._isolate(jobs, error)
                return
            group = _failed(jobs, unavailable())
        self._loop.call_soon_threadsafe(self._answer, jobs, group)

    def _isolate(self, jobs: list[_Job], error: Exception) -> None:
        if len(jobs) > 1:
            for job in jobs:
                self._run([job])
        else:
            self._loop.call_soon_threadsafe(self._answer, jobs, _failed(jobs, error))

    def _recover(self, error: Exception) -> None:
        self._log.error("store_failed", error_type=type(error).__name__, detail=str(error))
        try:
            self._engine.recover()
        except sqlite3.Error as again:
            # The file cannot even be read. The next group tries again, and is answered the same way until it can.
            self._log.error("recovery_failed", error_type=type(again).__name__, detail=str(again))
            self._engine.must_recover = True

    def _answer(self, jobs: list[_Job], group: Group) -> None:
        for job, result in zip(jobs, group.results, strict=True):
            if job.future.done():
                continue  # its caller was cancelled; what was decided stands
            if isinstance(result, _Raised):
                job.future.set_exception(result.error)
            else:
                job.future.set_result(result)
        if group.committed.partitions or group.committed.accounts:
            self._on_committed(group.committed)


class _Raised(NamedTuple):
    """An error in a result's place: a step raised it before it changed anything, or its group failed."""

    error: Exception


def _failed(jobs: list[_Job], error: Exception) -> Group:
    return Group([_Raised(error)] * len(jobs), Committed(frozenset(), frozenset()))


def _guarded(step: Step) -> Step:
    def run(transaction: Transaction) -> Any:
        try:
            return step(transaction)
        except FlowStackError as error:
            return _Raised(error)

    return run
