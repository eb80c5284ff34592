"""Connections that take so many bytes and no more, whatever stands in them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler


class AnswerMeter:
    """Counts what comes in during one attempt."""

    def __init__(self, bytes_max: int) -> None:
        self._room = bytes_max
        self.is_over = False
        """More has come than there was room for; the connection was cut off."""

    def take(self, data: bytes) -> bytes:
        """As much of the data as there is room for."""
        taken = data[: self._room]
        self._room -= len(taken)
        self.is_over = self.is_over or len(taken) < len(data)
        return taken


class _MeteredHandler(ResponseHandler):
    """Passes on what the meter lets through, then breaks the connection off."""

    def __init__(self, meter: AnswerMeter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._meter = meter

    def data_received(self, data: bytes) -> None:
        """Takes what has come in."""
        taken = self._meter.take(data)
        if taken:
            super().data_received(taken)
        if self._meter.is_over and self.transport is not None:
            self.transport.abort()


class MeteredConnector(TCPConnector):
    """A connector whose connections are metered.

    Bodies can be bounded where they are read. Heads that come before the answer's own, chunks' extensions, trailers
    and the like are seen by the parser alone.
    """

    def __init__(self, meter: AnswerMeter, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp has no other place for it; a test fails where it is another one some day.
        self._factory = partial(_MeteredHandler, meter, self._loop)  # type: ignore[assignment]  # partial is invariant
