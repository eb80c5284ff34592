"""Server-sent events from raw bytes (WHATWG HTML, section 9.2.6), for every provider that speaks them."""

from __future__ import annotations

from typing import Final, NamedTuple

from services.router.providers.port import FormatError

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest event that is taken. A bound on memory: a real delta is a thousandth of it."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event: its type, empty where the server named none, and its data."""

    event: bytes
    data: bytes


class SseOverflowError(FormatError):
    """An event is larger than EVENT_BYTES_MAX."""

    def __init__(self) -> None:
        super().__init__("The provider sent an event over the limit.")


class SseParser:
    """Cuts a byte stream into events, wherever its reads happen to end.

    Works on bytes, so a character that is split over two reads needs no care. Lines end in LF, CRLF or CR; comments
    and the fields `id` and `retry` are skipped, and an event that is cut off at the end is never given out.
    """

    __slots__ = ("_data", "_event", "_line", "_line_bytes", "_size", "_skip_newline", "_started")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._skip_newline = False
        self._started = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes.

        Raises:
            SseOverflowError: an event grows over the limit.
        """
        events: list[SseEvent] = []
        for line in self._lines(chunk):
            if not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append(SseEvent(self._event, data))
                    self._data = []
                    self._size = 0
                self._event = b""
            elif line.startswith(b"data:"):
                self._add(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:"):
                self._event = line[7:] if line[6:7] == b" " else line[6:]
            elif line == b"data":
                self._add(b"")
        return events

    def _add(self, data: bytes) -> None:
        self._size += len(data) + 1
        if self._size > EVENT_BYTES_MAX:
            raise SseOverflowError
        self._data.append(data)

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes; what follows the last line end is kept for the next chunk."""
        chunk = self._unified(chunk)
        if b"\n" not in chunk:
            # Kept in pieces: joining at every read would take quadratic time over a long line.
            self._keep(chunk)
            return []
        if self._line:
            chunk = b"".join((*self._line, chunk))
            self._line = []
        lines = chunk.split(b"\n")
        self._line_bytes = 0
        self._keep(lines.pop())
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines

    def _unified(self, chunk: bytes) -> bytes:
        """`chunk` with LF as the only line end."""
        if self._skip_newline and chunk:
            # The carriage return that ended the chunk before has ended its line already.
            self._skip_newline = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._skip_newline = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._line_bytes += len(rest)
            if self._line_bytes > EVENT_BYTES_MAX:
                raise SseOverflowError
            self._line.append(rest)
