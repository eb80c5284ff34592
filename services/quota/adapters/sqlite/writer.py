"""Runs work on the engine in groups: whatever is queued is decided together, committed once, and answered together.

Decisions are made in the event loop, because they take microseconds; only the commit, which waits for the disk, has a
thread. While one commit is on its way, what comes in queues up and makes the next group. There is no timer: an idle
store commits a lone command at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from services.quota.adapters.sqlite.engine import Engine, Group, Transaction
from services.quota.adapters.sqlite.events import unavailable
from services.quota.store import Committed
from services.shared.clock import Clock
from services.shared.errors import FlowStackError
from services.shared.log import get_logger

GROUP_WEIGHT_MAX: Final = 512
"""Commands in one group, beyond the first job's: it bounds how long the loop decides without a pause (about 10 ms)."""

Step = Callable[[Transaction], Any]


class _Job(NamedTuple):
    """Work that waits for its commit."""

    step: Step
    weight: int
    future: asyncio.Future[Any]


class _Raised(NamedTuple):
    """An error in a result's place: a step raised it before it changed anything, or its group failed."""

    error: Exception


class Committer:
    """A thread that runs one commit at a time and reports back to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[tuple[Callable[[], None], Callable[[Exception | None], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="quota-commit", daemon=True)
        self._thread.start()

    def commit(self, commit: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        """Runs `commit` in the thread, then `done` in the loop with what it raised."""
        self._work.put((commit, done))

    async def close(self) -> None:
        """Ends the thread once its work is done."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            commit, done = item
            failure: Exception | None = None
            try:
                commit()
            except Exception as error:
                failure = error
            self._loop.call_soon_threadsafe(done, failure)


class Writer:
    """Runs steps on the engine in groups, in the order in which they were submitted."""

    def __init__(
        self, engine: Engine, clock: Clock, committer: Committer, on_committed: Callable[[Committed], None]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._committer = committer
        self._on_committed = on_committed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._log = get_logger()

    def submit(self, step: Step, weight: int = 1) -> asyncio.Future[Any]:
        """Queues a step; the future has its result once it is durable.

        The future fails with FlowStackError QUOTA_UNAVAILABLE where the group could not be stored, and with what the
        step itself raised. A caller that goes away changes nothing: what it submitted is decided and stored.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(unavailable())
            return future
        self._queue.append(_Job(step, weight, future))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: what else arrived in this turn of the loop goes into the same group.
            self._loop.call_soon(self._next_group)
        return future

    async def close(self) -> None:
        """Runs what is queued, then ends the thread."""
        self._closed = True
        await self._idle.wait()
        await self._committer.close()

    def _next_group(self) -> None:
        if not self._queue:
            self._busy = False
            self._idle.set()
            return
        jobs = [self._queue.popleft()]
        weight = jobs[0].weight
        while self._queue and weight + self._queue[0].weight <= GROUP_WEIGHT_MAX:
            jobs.append(self._queue.popleft())
            weight += jobs[-1].weight
        self._run(jobs)

    def _run(self, jobs: list[_Job]) -> None:
        try:
            steps = [_guarded(job.step) for job in jobs]
            group = self._engine.prepare(steps, self._clock.now_us(), self._clock.monotonic_s())
        except Exception as error:
            self._fail(jobs, error)
            return
        self._committer.commit(self._engine.commit, lambda failure: self._committed(jobs, group, failure))

    def _committed(self, jobs: list[_Job], group: Group, failure: Exception | None) -> None:
        if failure is not None:
            self._fail(jobs, failure)
            return
        self._engine.committed(group)
        self._next_group()
        self._answer(jobs, group.results)
        if group.committed.partitions or group.committed.accounts:
            self._on_committed(group.committed)

    def _fail(self, jobs: list[_Job], error: Exception) -> None:
        self._recover(error)
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            self._answer(jobs, [_Raised(unavailable())] * len(jobs))
        elif len(jobs) == 1:
            self._answer(jobs, [_Raised(error)])
        else:
            # A defect of ours, in one of them. The others must not pay for it: each goes alone now, in its order.
            self._queue.extendleft(job._replace(weight=GROUP_WEIGHT_MAX) for job in reversed(jobs))
        self._loop.call_soon(self._next_group)

    def _recover(self, error: Exception) -> None:
        self._log.error("store_failed", error_type=type(error).__name__, detail=str(error))
        try:
            self._engine.recover()
        except sqlite3.Error as again:
            # The file cannot even be read. The next group tries again, and is answered the same way until it can.
            self._log.error("recovery_failed", error_type=type(again).__name__, detail=str(again))
            self._engine.must_recover = True

    @staticmethod
    def _answer(jobs: list[_Job], results: list[Any]) -> None:
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():
                continue  # its caller was cancelled; what was decided stands
            if isinstance(result, _Raised):
                job.future.set_exception(result.error)
            else:
                job.future.set_result(result)


def _guarded(step: Step) -> Step:
    def run(transaction: Transaction) -> Any:
        try:
            return step(transaction)
        except FlowStackError as error:
            return _Raised(error)

    return run
