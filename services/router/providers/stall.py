"""Ends a wait on a provider that has gone silent."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from services.router.domain.outcome import AttemptFailure
from services.router.providers.port import ProviderError


class StallGuard:
    """Bounds each wait on a provider, and costs two attribute writes per wait.

    `asyncio.timeout` around every read would make and cancel a timer each time. This keeps one timer per call,
    which looks at its own firing whether anything has happened since, and is set anew only then.

    Use: `with guard:` around each await on the network, and `progress()` once the events of a read have been handed
    on, so that a slow client is never taken for a silent provider. Bytes that bring no event, such as comments, are
    no progress.
    """

    __slots__ = ("_fired", "_last_s", "_loop", "_stall_s", "_task", "_timer")

    def __init__(self, stall_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall_s = stall_s
        self._last_s = self._loop.time()
        self._task: asyncio.Task[object] | None = None
        self._fired = False
        self._timer = self._loop.call_later(stall_s, self._look)

    def progress(self) -> None:
        """An event has arrived and was handed on."""
        self._last_s = self._loop.time()

    def close(self) -> None:
        """Ends the guard."""
        self._timer.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        # As asyncio.timeout does it: only a cancellation that is ours alone becomes a failure.
        if self._fired and task is not None and kind is not None and task.uncancel() <= 0:
            raise ProviderError(AttemptFailure.STALLED) from None

    def _look(self) -> None:
        silent_s = self._loop.time() - self._last_s
        if silent_s < self._stall_s:
            self._timer = self._loop.call_later(self._stall_s - silent_s, self._look)
        elif self._task is None:
            # Nobody waits for the provider now: the session itself is busy, which is no fault of the provider's.
            self._last_s = self._loop.time()
            self._timer = self._loop.call_later(self._stall_s, self._look)
        else:
            self._fired = True
            self._task.cancel()
