"""One connection to a provider, and the answers that come on it, one after the other (HTTP/1.1, RFC 9112).

The bytes are parsed by llhttp, as Node's and aiohttp's are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

READ_BYTES: Final = 32 * 1024
"""How much is read from a connection at once. Reading pauses when so much of a body waits to be taken, so that one read
of a body hands on less than twice that: it is the most that is parsed in one turn of the event loop, and two hundred
providers at full speed do not keep new calls waiting."""

OVERHEAD_BYTES_MAX: Final = 128 * 1024
"""The most that may come in a row without a byte of a body: heads, trailers, and what stands around chunks."""


class HttpError(Exception):
    """The connection broke, or what came on it is no HTTP. The text is for programmers."""


class Connection(asyncio.BufferedProtocol):
    """A connection that is asked by one caller at a time.

    Args:
        buffer: READ_BYTES of memory. Every connection of an event loop can share them: what is read is parsed at once.
        on_lost: Told once the connection has ended.
    """

    def __init__(self, buffer: memoryview, on_lost: Callable[[Connection], None]) -> None:
        self._buffer = buffer
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._overhead = 0
        self._paused = False
        self._ends_with_connection = False
        self._head_complete = False
        self._complete = True
        self._error: Exception | None = None
        self.status = 0
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.reusable = True
        """Whether another request can follow the answer, once that was read to its end."""
        self.idle_since_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def at_end(self) -> bool:
        """Whether the answer was read to its end."""
        return self._complete and not self._pieces

    def close(self) -> None:
        """Closes it at once, whatever was still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, head: bytes, body: bytes) -> None:
        """Sends a request, and waits for the head of its answer.

        Raises:
            HttpError, OSError: the connection broke.
        """
        self._head_complete = self._complete = self._ends_with_connection = False
        self._overhead = 0
        if self._transport is None:
            raise HttpError("the connection was closed")
        self._transport.write(head + body)
        while not self._head_complete:
            await self._arrival()

    async def read(self) -> bytes:
        """What has arrived of the body, less than twice READ_BYTES; empty at the end.

        Raises:
            HttpError, OSError: the connection broke.
        """
        while not self._pieces:
            if self._complete:
                return b""
            await self._arrival()
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def _arrival(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self._complete:
            # Nobody has asked for them.
            self.close()
            return
        self._overhead += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break(HttpError("what came is no HTTP"))
        else:
            if self._overhead > OVERHEAD_BYTES_MAX:
                self._break(HttpError("too much came that is no body"))
            elif self._size >= READ_BYTES and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The other side sends nothing more: asyncio closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._ends_with_connection and exc is None:
            self._complete = True
        self._break(exc or HttpError("the connection was closed"))
        self._transport = None
        self._wake()
        self._on_lost(self)

    def _break(self, error: Exception) -> None:
        """Closes the connection. What is left of an answer cannot be had any more."""
        self.reusable = False
        if not self._complete and self._error is None:
            self._error = error
        self.close()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """An answer begins; a second one to the same request never does."""
        if self._complete:
            raise HttpError("an answer came that nobody asked for")
        self.raw_headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what comes after the body, in a trailer, says nothing that is used."""
        if not self._head_complete:
            self.raw_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is whole: the answer's, or one of those that may come before it and say nothing (1xx)."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self._head_complete = True
        self.reusable = self._parser.should_keep_alive()
        names = {name.lower() for name, _ in self.raw_headers}
        self._ends_with_connection = not names & {b"content-length", b"transfer-encoding"}

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._overhead = 0
        self._pieces.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was one that comes before it."""
        if self._head_complete:
            self._complete = True
