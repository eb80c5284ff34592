"""Notes in the vault which provider served each counted chat, off the caller's path."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from flowstack._client import Client
from flowstack._errors import FlowStackError
from flowstack._json import encode
from flowstack._methods import VaultService

COLLECTION: Final = "provider_switches"
KEEP_SECONDS: Final = 100 * 24 * 3600
"""Three periods and a margin: what an analysis of costs looks back on."""
WAITING_MAX: Final = 1000
FLUSH_SECONDS: Final = 5.0
CALL_SECONDS: Final = 5.0


class Recorder:
    """A bounded queue and one thread that stores what is in it.

    Notes help an analysis and are no accounts: what does not fit, or what the vault does not take, is dropped.

    Attributes:
        dropped: how many notes were lost.
    """

    def __init__(self, client: Callable[[], Client], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._client = client
        self._now = now
        self._waiting: queue.Queue[pb.StoreRequest | None] = queue.Queue(WAITING_MAX)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.dropped = 0

    def note(self, session_id: str, **fields: Any) -> None:
        """Takes a note of a session; returns at once."""
        document = {"timestamp": self._now().isoformat(), "session_id": session_id, **fields}
        request = pb.StoreRequest(collection=COLLECTION, key=session_id, document_json=encode(document))
        request.ttl.FromSeconds(KEEP_SECONDS)
        with self._lock:
            if self._closed:
                self.dropped += 1
                return
            if self._thread is None:
                # A daemon, so that a process without close() can end; close() is what waits.
                self._thread = threading.Thread(target=self._work, name="flowstack-recorder", daemon=True)
                self._thread.start()
            try:
                self._waiting.put_nowait(request)
            except queue.Full:
                self.dropped += 1

    def flush(self) -> None:
        """Returns once everything that was noted before is stored or dropped, or after FLUSH_SECONDS."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, FLUSH_SECONDS)

    def close(self) -> None:
        """Flushes and ends the thread. Repeatable."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self.flush()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return  # the vault hangs; the thread is a daemon
        thread.join(CALL_SECONDS)

    def _work(self) -> None:
        while (request := self._waiting.get()) is not None:
            try:
                # A key of its own makes the repeat of a store harmless.
                self._client().call(VaultService.Store, request, safe=True, timeout_s=CALL_SECONDS)
            except FlowStackError:
                self.dropped += 1
            finally:
                self._waiting.task_done()
        self._waiting.task_done()
