"""Hands a session's events from the task that makes them to the one that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.router.domain.coalesce import coalesced, size_bytes
from services.router.domain.events import SessionEvent


class ReaderStalledError(Exception):
    """The client has taken nothing for too long."""


class EventBuffer:
    """A bounded queue with one writer and one reader, and an end.

    A full buffer makes the writer wait, and so slows the provider down to the client's pace. The reader gets all
    that is waiting at once, its deltas made one. Neither side waits while there is room and something to take.

    Args:
        events_max: How many events make it full.
        bytes_max: How many bytes of text do. What one `put` brings is taken whole.
        stall_s: How long the reader may take nothing while it is full, in seconds.
    """

    def __init__(self, events_max: int, bytes_max: int, stall_s: float) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._stall_s = stall_s
        self._events: list[SessionEvent] = []
        self._bytes = 0
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._closed = False
        self._abandoned = False

    async def put(self, events: Sequence[SessionEvent]) -> None:
        """Adds `events`, and waits while the buffer is full. What an abandoned buffer is given is dropped.

        A writer that is ahead of its reader lets others run: one whose provider is quick would not wait by itself, and
        keep everybody else's events, and quota's answers, from coming.

        Raises:
            ReaderStalledError: the reader took nothing for the stall time.
        """
        ahead = self._abandoned or bool(self._events)
        self._add(events)
        if (len(self._events) < self._events_max and self._bytes < self._bytes_max) or self._abandoned:
            if ahead:
                await asyncio.sleep(0)
            return
        self._wake_writer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._stall_s):
                await self._wake_writer
        except TimeoutError:
            raise ReaderStalledError from None
        finally:
            self._wake_writer = None

    def close(self, *last: SessionEvent, error: Exception | None = None) -> None:
        """Ends the stream after what is in it: with a last event, or with `error`. Never waits."""
        self._add(last)
        self._error = error
        self._closed = True
        _wake(self._wake_reader)

    def abandon(self) -> None:
        """The reader is gone: everything is dropped, and the writer is not held up."""
        self._abandoned = True
        self._events.clear()
        self._bytes = 0
        _wake(self._wake_writer)

    async def take(self) -> Sequence[SessionEvent]:
        """All events that are waiting, at least one; none once the stream has ended.

        Raises:
            FlowStackError: the stream ended with it.
        """
        while not self._events:
            if self._closed:
                if self._error is not None:
                    raise self._error
                return ()
            self._wake_reader = asyncio.get_running_loop().create_future()
            try:
                await self._wake_reader
            finally:
                self._wake_reader = None
        events, self._events, self._bytes = self._events, [], 0
        _wake(self._wake_writer)
        return coalesced(events)

    def _add(self, events: Sequence[SessionEvent]) -> None:
        if not self._abandoned:
            self._events.extend(events)
            self._bytes += size_bytes(events)
            _wake(self._wake_reader)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
