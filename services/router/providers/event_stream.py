"""AWS's event stream encoding (smithy.io/2.0/aws/amazon-eventstream.html) from raw bytes, parsed by botocore."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from services.router.providers.port import FormatError

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest frame that is taken. A bound on memory: a real delta is a thousandth of it."""

_PRELUDE: Final = struct.Struct("!III")
"""Length of the frame, length of its headers, checksum of the two."""
_FRAME_BYTES_MIN: Final = 16


class EventStreamParser:
    """Cuts a byte stream into frames, wherever its reads happen to end.

    botocore's buffer is given whole frames only: it would copy what it holds at every read of a long one.
    """

    __slots__ = ("_buffer", "_held", "_held_bytes", "_needed")

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed = _PRELUDE.size

    def feed(self, chunk: bytes) -> Iterator[EventStreamMessage]:
        """The frames that `chunk` completes.

        Raises:
            FormatError: a checksum or a length is wrong, or a frame is over the limit.
        """
        self._held_bytes += len(chunk)
        self._held.append(chunk)
        if self._held_bytes < self._needed:
            return
        data = b"".join(self._held) if len(self._held) > 1 else chunk
        start, size = 0, len(data)
        while (length := self._length(data, start)) <= size - start:
            yield self._frame(data[start : start + length])
            start += length
        self._needed = length
        self._held = [data[start:]] if start < size else []
        self._held_bytes = size - start

    def _length(self, data: bytes, start: int) -> int:
        """How many bytes the frame at `start` has; as many as its length needs where that is not there yet."""
        if len(data) - start < _PRELUDE.size:
            return _PRELUDE.size
        length, _, checksum = _PRELUDE.unpack_from(data, start)
        if length > len(data) - start and crc32(data[start : start + 8]) != checksum:
            # Told at once, not when as many bytes have come as a broken length says.
            raise FormatError("The provider sent a frame whose checksum is wrong.")
        if not _FRAME_BYTES_MIN <= length <= FRAME_BYTES_MAX:
            raise FormatError("The provider sent a frame over the limit.")
        return int(length)

    def _frame(self, data: bytes) -> EventStreamMessage:
        try:
            self._buffer.add_data(data)
            return next(self._buffer)
        except (ParserError, struct.error, LookupError, ValueError, StopIteration):
            raise FormatError("The provider sent a frame that its format forbids.") from None
