"""The client's side of a Chat, read ahead of need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.convert import results_from_proto
from services.router.domain.request import ToolResultPart
from services.shared.errors import FlowStackError, Reason, invalid_request

MESSAGES_MAX: Final = 4
"""How many messages may wait to be asked for; a client that sends more is held up by gRPC's flow control."""

CANCELLATION_SECONDS: Final = 0.05
"""How long after the end of its requests a call's cancellation may be told: it must not pass for a half-close."""


class Inbox:
    """Reads the requests of one Chat in a task of its own.

    Each wait for the client has a limit, and a read of a gRPC stream that is cut short by a timeout leaves the stream
    unusable; so the limits are on a future and a queue.

    Args:
        requests: What the client sends.
        first_s: How long the first message may take, in seconds.
    """

    def __init__(self, requests: AsyncIterator[pb.ChatRequest], first_s: float) -> None:
        self._requests = requests
        self._first_s = first_s
        self._first: asyncio.Future[pb.CompleteRequest | FlowStackError] = asyncio.get_running_loop().create_future()
        self._queue: asyncio.Queue[tuple[ToolResultPart, ...] | FlowStackError | None] = asyncio.Queue(MESSAGES_MAX)
        self._task = asyncio.create_task(self._read())

    async def first(self) -> pb.CompleteRequest:
        """The request that starts the session.

        Raises:
            FlowStackError: INVALID_REQUEST, the first message is not `start`, or there is none; CALL_TIME_LIMIT, it
                did not come in time; what the call was refused with.
        """
        try:
            async with asyncio.timeout(self._first_s):
                start = await self._first
        except TimeoutError:
            raise FlowStackError(
                Reason.CALL_TIME_LIMIT,
                f"The first message, `start`, did not come within {self._first_s:g} s. Send it when the call opens.",
            ) from None
        if isinstance(start, FlowStackError):
            raise start
        return start

    def refuse(self, error: FlowStackError) -> None:
        """Ends the wait for the first message with `error`. Harmless once it is there."""
        if not self._first.done():
            self._first.set_result(error)

    async def receive(self) -> tuple[ToolResultPart, ...] | None:
        """The next results; see the session's port."""
        return _results(await self._queue.get())

    def unasked(self) -> tuple[ToolResultPart, ...] | None:
        """Results that nobody asked for; see the session's port."""
        return None if self._queue.empty() else _results(self._queue.get_nowait())

    def close(self) -> None:
        """Reads no more."""
        self._task.cancel()

    async def _read(self) -> None:
        try:
            start = await self._read_start()
        except FlowStackError as error:
            self.refuse(error)
            return
        if self._first.done():
            # Nobody waits any more: the call was refused, or has ended.
            return
        self._first.set_result(start)
        await self._read_results()

    async def _read_start(self) -> pb.CompleteRequest:
        try:
            message = await anext(self._requests)
        except StopAsyncIteration:
            raise invalid_request("start", "has to be the first message; the call had none") from None
        if message.WhichOneof("message") != "start":
            raise invalid_request("start", "has to be the first message")
        return message.start

    async def _read_results(self) -> None:
        try:
            async for message in self._requests:
                if message.WhichOneof("message") != "tool_results":
                    raise invalid_request("start", "can be sent only once")
                await self._queue.put(results_from_proto(message.tool_results))
        except FlowStackError as error:
            await self._queue.put(error)
        else:
            # A cancelled call's requests end as well, and gRPC tells that first; the cancellation stops this task.
            await asyncio.sleep(CANCELLATION_SECONDS)
            await self._queue.put(None)


def _results(item: tuple[ToolResultPart, ...] | FlowStackError | None) -> tuple[ToolResultPart, ...] | None:
    if isinstance(item, FlowStackError):
        raise item
    return item
