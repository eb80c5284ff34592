"""Runs work on the engine in groups: whatever is queued is decided together, committed once, and answered together.

Decisions are made in the event loop, because they take microseconds; only the commit, which waits for the disk, has a
thread. While one commit is on its way, what comes in queues up and makes the next group. A lone command is committed at
once. Where groups have company in them, the next one gathers for a moment before it is taken, because a commit costs as
much as deciding a dozen commands; that ends by itself as soon as a group turns out to be of one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

from services.quota.adapters.sqlite.engine import Engine, Group, Transaction
from services.quota.adapters.sqlite.events import unavailable
from services.quota.domain.commands import Command, Result
from services.quota.store import Committed
from services.shared import failpoints
from services.shared.clock import Clock
from services.shared.errors import FlowStackError
from services.shared.log import get_logger

GROUP_WEIGHT_MAX: Final = 384
"""Commands in one group, beyond the first job's. It bounds how long the loop decides without a pause (about 8 ms), and
leaves work for the next group while the callers of this one are answered: with larger groups they take turns."""

GATHER_SECONDS_EACH: Final = 0.0004
GATHER_SECONDS_MAX: Final = 0.006
GATHER_WEIGHT_MAX: Final = 64
"""How long a group gathers for each command that the last one had, at most, and how many commands are enough. A commit
costs as much as deciding a dozen commands, so waiting pays in proportion to how many are about to come."""

Step = Callable[[Transaction], Any]


class _Job(NamedTuple):
    """Work that waits for its commit: commands, or another step."""

    commands: Sequence[Command]
    step: Step | None
    future: asyncio.Future[Any]

    @property
    def weight(self) -> int:
        """How much of a group it takes."""
        return len(self.commands) or 1


class _Raised(NamedTuple):
    """An error in a result's place: a step raised it before it changed anything, or its group failed."""

    error: Exception


class Committer(Protocol):
    """Runs one commit at a time, outside the event loop's turn in which it was asked for."""

    def commit(self, commit: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        """Runs `commit`, then `done` in the event loop with what it raised."""
        ...

    async def close(self) -> None:
        """Ends once its work is done."""
        ...


class CommitThread:
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
        self._company = 0
        """How many commands the last group had, where it had more than one job."""
        self._alone = 0
        """How many of the next jobs have to go alone, because a group of theirs met a defect."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._log = get_logger()

    def execute(self, commands: Sequence[Command]) -> asyncio.Future[list[Result]]:
        """Queues commands; the future has their results, in order, once all are durable. Fails as `submit`."""
        return self._enqueue(_Job(commands, None, self._loop.create_future()))

    def submit(self, step: Step) -> asyncio.Future[Any]:
        """Queues a step; the future has its result once it is durable.

        The future fails with FlowStackError QUOTA_UNAVAILABLE where the group could not be stored, and with what the
        step itself raised. A caller that goes away changes nothing: what it submitted is decided and stored.
        """
        return self._enqueue(_Job((), step, self._loop.create_future()))

    def _enqueue(self, job: _Job) -> asyncio.Future[Any]:
        if self._closed:
            job.future.set_exception(unavailable())
            return job.future
        self._queue.append(job)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._next)
        return job.future

    async def close(self) -> None:
        """Runs what is queued, then ends the thread."""
        self._closed = True
        await self._idle.wait()
        await self._committer.close()

    def _next(self) -> None:
        """Takes the next group: at once, or after a moment of gathering where there is company."""
        if self._company and not self._is_enough():
            self._loop.call_later(min(GATHER_SECONDS_EACH * self._company, GATHER_SECONDS_MAX), self._take)
        else:
            self._take()

    def _is_enough(self) -> bool:
        """Whether what is queued makes a group that is worth a commit."""
        weight = 0
        for job in self._queue:
            weight += job.weight
            if weight >= GATHER_WEIGHT_MAX:
                return True
        return False

    def _take(self) -> None:
        if self._queue:
            jobs = self._take_group()
            self._company = sum(job.weight for job in jobs) if len(jobs) > 1 else 0
            self._run(jobs)
        else:
            self._company = 0
            self._busy = False
            self._idle.set()

    def _take_group(self) -> list[_Job]:
        jobs = [self._queue.popleft()]
        if self._alone:
            self._alone -= 1
            return jobs
        weight = jobs[0].weight
        while self._queue and weight + self._queue[0].weight <= GROUP_WEIGHT_MAX:
            jobs.append(self._queue.popleft())
            weight += jobs[-1].weight
        return jobs

    def _run(self, jobs: list[_Job]) -> None:
        try:
            group = self._engine.prepare(_steps(jobs), self._clock.now_us(), self._clock.monotonic_s())
        except Exception as error:
            self._fail(jobs, error)
            return
        self._committer.commit(self._engine.commit, lambda failure: self._committed(jobs, group, failure))

    def _committed(self, jobs: list[_Job], group: Group, failure: Exception | None) -> None:
        if failure is not None:
            self._fail(jobs, failure)
            return
        self._engine.committed(group)
        failpoints.hit("quota.before_answer")
        results = [result for results in group.results for result in results]
        # The next group is on its way to the disk while the callers of this one are answered.
        self._next()
        self._answer(jobs, results)
        if group.committed.partitions or group.committed.accounts:
            self._on_committed(group.committed)

    def _fail(self, jobs: list[_Job], error: Exception) -> None:
        is_outage = isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError)
        self._recover(error, is_outage)
        if is_outage:
            self._answer(jobs, [_Raised(unavailable())] * len(jobs))
        elif len(jobs) == 1:
            self._answer(jobs, [_Raised(error)])
        else:
            # A defect of ours, in one of them. The others must not pay for it: each goes alone now, in its order.
            self._alone = len(jobs)
            self._queue.extendleft(reversed(jobs))
        self._loop.call_soon(self._next)

    def _recover(self, error: Exception, is_outage: bool) -> None:
        self._log.error("store_failed", error_type=type(error).__name__, detail=str(error))
        try:
            self._engine.recover(is_outage=is_outage)
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


def _steps(jobs: list[_Job]) -> list[Callable[[Transaction], list[Any]]]:
    """What the engine is to run: neighbouring commands in one step, each other step alone. One result for each job."""
    steps: list[Callable[[Transaction], list[Any]]] = []
    for is_commands, some in groupby(jobs, key=lambda job: job.step is None):
        if is_commands:
            steps.append(_command_step(list(some)))
        else:
            steps.extend(_guarded(job.step) for job in some if job.step is not None)
    return steps


def _command_step(jobs: list[_Job]) -> Callable[[Transaction], list[Any]]:
    def run(transaction: Transaction) -> list[Any]:
        results = transaction.execute([command for job in jobs for command in job.commands])
        ends = accumulate(len(job.commands) for job in jobs)
        return [results[end - len(job.commands) : end] for job, end in zip(jobs, ends, strict=True)]

    return run


def _guarded(step: Step) -> Callable[[Transaction], list[Any]]:
    def run(transaction: Transaction) -> list[Any]:
        try:
            return [step(transaction)]
        except FlowStackError as error:
            return [_Raised(error)]

    return run
