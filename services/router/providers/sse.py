"""Server-sent events from raw bytes (WHATWG HTML, section 9.2.6), for every provider that speaks them."""

from __future__ import annotations

from typing import Final

from services.router.providers.port import FormatError

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest event that is taken. A bound on memory: a real delta is a thousandth of it."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class SseOverflowError(FormatError):
    """An event is larger than EVENT_BYTES_MAX."""

    def __init__(self) -> None:
        super().__init__("The provider sent an event over the limit.")


class SseParser:
    """Cuts a byte stream into the data of its events, wherever its reads happen to end.

    Works on bytes, so a character that is split over two reads needs no care. Lines end in LF, CRLF or CR; comments
    and the fields `event`, `id` and `retry` are skipped, because every format that is read here says in the data what
    kind of event it is. An event that is cut off at the end is never given out.
    """

    __slots__ = ("_data", "_line", "_line_bytes", "_size", "_skip_newline", "_started")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._size = 0
        self._skip_newline = False
        self._started = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes.

        Raises:
            SseOverflowError: an event grows over the limit.
        """
        found: list[bytes] = []
        data = self._data
        for line in self._lines(chunk):
            if line.startswith(b"data: "):
                data.append(line[6:])
                self._size += len(line)
                if self._size > EVENT_BYTES_MAX:
                    raise SseOverflowError
            elif not line:
                if data:
                    found.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
                    self._size = 0
            elif line == b"data" or line.startswith(b"data:"):
                data.append(line[5:])
                self._size += len(line)
                if self._size > EVENT_BYTES_MAX:
                    raise SseOverflowError
        return found

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
