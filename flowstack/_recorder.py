"""Notes in the vault which provider served each counted chat, off the caller's path."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from flowstack._client import Client
from flowstack._documents import NOTES
from flowstack._errors import FlowStackError
from flowstack._json import encode
from flowstack._methods import VaultService

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowstack._connection import Connection

KEEP_SECONDS: Final = 100 * 24 * 3600
"""Three periods and a margin: what an analysis of costs looks back on."""
WAITING_MAX: Final = 1000
QUIET_SECONDS: Final = 0.1
"""Notes wait until chats pause for so long: a note is a call too, and beside the next chat it would slow that."""
TOGETHER_MAX: Final = 200
WAIT_SECONDS_MAX: Final = 5.0
"""So many notes, or the oldest after so long, are stored also while chats go on."""
FLUSH_SECONDS: Final = 5.0
CALL_SECONDS: Final = 5.0


class Recorder:
    """Notes of one agent. What is waiting outlives it, and is stored also where nobody closes it.

    Notes help an analysis and are no accounts: what does not fit, or what the vault does not take, is dropped.
    """

    def __init__(self, connection: Connection, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._connection = connection
        self._now = now
        self._lock = threading.Lock()
        self._work = self._new_work()

    @property
    def dropped(self) -> int:
        """How many notes were lost."""
        return self._work.dropped

    def note(self, session_id: str, **fields: Any) -> None:
        """Takes a note of a session; returns at once."""
        document = {"timestamp": self._now().isoformat(), "session_id": session_id, **fields}
        request = pb.StoreRequest(collection=NOTES, key=session_id, document_json=encode(document))
        request.ttl.FromSeconds(KEEP_SECONDS)
        self._here().add(request)

    def flush(self) -> None:
        """Returns once everything that was noted before is stored or dropped, or after FLUSH_SECONDS."""
        self._here().flush(FLUSH_SECONDS)

    def close(self) -> None:
        """Flushes and ends the thread. Repeatable."""
        self._here().close()

    def _here(self) -> _Work:
        """A child after a fork has no thread, and what waits is its parent's to store."""
        if self._work.process != os.getpid():
            with self._lock:
                if self._work.process != os.getpid():
                    self._work = self._new_work()
        return self._work

    def _new_work(self) -> _Work:
        work = _Work(self._connection)
        weakref.finalize(self, work.end).atexit = False
        return work


class _Work:
    """A bounded queue and one thread that stores what is in it. Knows nothing of the agent, so that this can be freed.

    Attributes:
        process: whose it is.
        dropped: how many notes were lost.
    """

    def __init__(self, connection: Connection) -> None:
        self.process = os.getpid()
        self.dropped = 0
        self._connection = connection
        # Unlike other queues it can be put into from a finalizer, whatever lock that interrupts.
        self._waiting: queue.SimpleQueue[pb.StoreRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._unfinished = 0
        self._hurrying = 0
        self._newest_s = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, request: pb.StoreRequest) -> None:
        with self._changed:
            if self._closed or self._unfinished >= WAITING_MAX or not self._started():
                self.dropped += 1
                return
            self._unfinished += 1
            self._newest_s = time.monotonic()
            self._waiting.put(request)
            if self._unfinished >= TOGETHER_MAX:
                self._changed.notify_all()

    def _started(self) -> bool:
        if self._thread is None:
            # A daemon, so that a process whose vault hangs can end; close() and the process's end are what waits.
            thread = threading.Thread(target=self._serve, name="flowstack-recorder", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False  # no more threads here, or the process is ending
            self._thread = thread
            _at_work.add(self)
        return True

    def flush(self, seconds: float) -> None:
        with self._changed:
            self._hurrying += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: not self._unfinished, seconds)
            finally:
                self._hurrying -= 1

    def end(self) -> None:
        """Lets the thread end once it has stored what waits."""
        self._waiting.put(None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self.flush(FLUSH_SECONDS)
            self.end()
            thread.join(CALL_SECONDS)

    def _serve(self) -> None:
        with Client(self._connection) as client:
            while (request := self._waiting.get()) is not None:
                self._wait_for_quiet()
                self._store(client, request)
                while not self._waiting.empty():
                    following = self._waiting.get()
                    if following is None:
                        return
                    self._store(client, following)

    def _wait_for_quiet(self) -> None:
        until_s = time.monotonic() + WAIT_SECONDS_MAX
        with self._changed:
            while not self._hurrying and not self._closed and self._unfinished < TOGETHER_MAX:
                wait_s = min(self._newest_s + QUIET_SECONDS, until_s) - time.monotonic()
                if wait_s <= 0:
                    return
                self._changed.wait(wait_s)

    def _store(self, client: Client, request: pb.StoreRequest) -> None:
        try:
            # A key of its own makes the repeat of a store harmless.
            client.call(VaultService.Store, request, safe=True, timeout_s=CALL_SECONDS)
        except FlowStackError:
            self.dropped += 1
        finally:
            with self._changed:
                self._unfinished -= 1
                self._changed.notify_all()


_at_work: Final[weakref.WeakSet[_Work]] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    """At the process's end: FLUSH_SECONDS for all agents together."""
    until_s = time.monotonic() + FLUSH_SECONDS
    for work in list(_at_work):
        if work.process == os.getpid():
            work.flush(max(0.0, until_s - time.monotonic()))
