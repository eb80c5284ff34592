"""An event loop with virtual time and a schedule that a seed decides, and the hosts that live in it.

Nothing waits: when no callback is ready, time jumps to the next timer. Which of the ready callbacks runs next is drawn
from the seed, so that one seed is one interleaving, always the same. There is no I/O and there are no threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
STEPS_MAX: Final = 1_000_000
ROUNDS_MAX: Final = 100
"""How often a task is cancelled, at most, until it has ended."""

_LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class Life:
    """One run of a process, from its start to its end. What it scheduled never runs once it has been killed.

    A killed process does nothing any more: no `finally` runs, no callback, no timer, as after SIGKILL.
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._listeners: dict[Callable[[], None], None] = {}
        self._context = contextvars.Context()
        self._context.run(_LIFE.set, self)
        loop.lives.append(self)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs a function as this process: what it schedules is the process's."""
        return self._context.copy().run(function, *arguments)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task of this process."""
        return self._loop.create_task(work, context=self._context.copy())

    def on_end(self, listener: Callable[[], None]) -> None:
        """Calls `listener` as nobody's work once this process has been killed."""
        self._listeners[listener] = None

    def off_end(self, listener: Callable[[], None]) -> None:
        """Calls it no more."""
        self._listeners.pop(listener, None)

    def kill(self) -> None:
        """Ends the process between two of its steps."""
        if self.alive:
            self.alive = False
            self._loop.note(f"{self.name} dies")
            self.ended.set_result(None)
            listeners, self._listeners = self._listeners, {}
            for listener in listeners:
                self._loop.outside(0, listener)


class StuckError(Exception):
    """Nothing is ready and no timer runs: everything waits for something that cannot come."""


class RunawayError(Exception):
    """More happened than a world can need."""


class HaltedError(Exception):
    """Enough has been seen."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's docstring.

    Args:
        seed: decides the schedule.
        disorder: how often a callback runs out of turn, 0 (never, as in asyncio) to 1 (any that is ready).
    """

    def __init__(self, seed: int, disorder: float) -> None:
        super().__init__()
        self._random = random.Random(f"schedule {seed}")
        self._disorder = disorder
        self._now_s = 0.0
        self._digest = hashlib.sha256()
        self._tasks: list[asyncio.Task[Any]] = []
        self._owners: dict[asyncio.Task[Any], Life | None] = {}
        self._before: tuple[int, Callable[[], object]] | None = None
        self._dropped: list[asyncio.Handle] = []
        """What killed processes would have run next; only `end` does, so that their tasks can be cancelled."""
        self.notes: list[str] = []
        self.lives: list[Life] = []
        self.steps = 0
        self._halted = self._ending = False
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Virtual seconds since the simulation began."""
        return self._now_s

    def note(self, text: str) -> None:
        """Adds a line to the trace."""
        line = f"{self._now_s:12.6f} {text}"
        self.notes.append(line)
        self._digest.update(line.encode())

    def before_step(self, number: int, function: Callable[[], object]) -> None:
        """Calls a function right before the callback that will be the loop's `number`-th."""
        self._before = (number, function)

    def unfinished(self, life: Life) -> list[asyncio.Task[Any]]:
        """The tasks of a process that have not ended."""
        return [task for task in self._tasks if not task.done() and self._owners[task] is life]

    def halt(self) -> None:
        """Ends the run before its next step."""
        self._halted = True

    def digest(self) -> str:
        """Names the whole schedule and trace so far: two runs of one seed have equal ones."""
        return self._digest.copy().hexdigest()

    def outside(self, delay_s: float, function: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        """Calls a function later as nobody's work: a message on its way goes on when its sender dies."""
        return self.call_later(delay_s, function, *arguments, context=contextvars.Context())

    def end(self) -> None:
        """Ends every task in good order, those of killed processes included, so that nothing is left behind."""
        self._ending, self.steps = True, 0
        for life in self.lives:
            life.alive = True
        for _ in range(ROUNDS_MAX):
            waiting = [task for task in self._tasks if not task.done()]
            if not waiting:
                break
            for task in waiting:
                task.cancel()
            self._ready.extend(self._dropped)
            self._dropped.clear()
            self.run_until_complete(asyncio.sleep(0.01))
        self.close()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **options)
        self._tasks.append(task)
        self._owners[task] = options.get("context", contextvars.copy_context()).get(_LIFE)
        return task

    def _run_once(self) -> None:
        if self._halted and not self._ending:
            raise HaltedError
        if self.steps > STEPS_MAX:
            raise RunawayError
        self._take_due()
        while not self._ready:
            self._jump()
            self._take_due()
        place = 0
        if len(self._ready) > 1 and self._random.random() < self._disorder:
            place = self._random.randrange(len(self._ready))
        self._ready.rotate(-place)
        handle = self._ready.popleft()
        self._ready.rotate(place)
        life = handle._context.get(_LIFE)
        if handle._cancelled:
            return
        if life is not None and not life.alive:
            self._dropped.append(handle)
            return
        self.steps += 1
        if self._before is not None and self._before[0] == self.steps:
            self._before[1]()
        self._digest.update(b"%d/%d" % (place, len(self._ready)))
        handle._run()

    def _take_due(self) -> None:
        while self._scheduled and (self._scheduled[0]._cancelled or self._scheduled[0]._when <= self._now_s):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._ready.append(timer)

    def _jump(self) -> None:
        if not self._scheduled:
            raise StuckError
        self._now_s = self._scheduled[0]._when

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count: a cancelled timer is dropped when its time comes."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is no other thread."""
