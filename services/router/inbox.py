"""The client's side of a Chat, read ahead of need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from flowstack_protos.router.v1 import router_service_pb2 as pb

from services.router.convert import results_from_proto
from services.router.domain.request import ToolResultPart
from services.shared.errors import FlowStackError, invalid_request

MESSAGES_MAX: Final = 4
"""How many messages may wait to be asked for; a client that sends more is held up by gRPC's flow control."""

CANCELLATION_SECONDS: Final = 0.05
"""How long after the end of its requests a call's cancellation may be told: it must not pass for a half-close."""


class Inbox:
    """Reads the requests of one Chat in a task of its own.

    A wait for results has a limit, and a read of a gRPC stream that is cut short by a timeout leaves the stream
    unusable; so the limit is on a queue.
    """

    def __init__(self, requests: AsyncIterator[pb.ChatRequest]) -> None:
        self._requests = requests
        self._queue: asyncio.Queue[tuple[ToolResultPart, ...] | FlowStackError | None] = asyncio.Queue(MESSAGES_MAX)
        self._task: asyncio.Task[None] | None = None

    async def first(self) -> pb.CompleteRequest:
        """The request that starts the session.

        Raises:
            FlowStackError: INVALID_REQUEST, the first message is not `start`, or there is none.
        """
        try:
            message = await anext(self._requests)
        except StopAsyncIteration:
            raise invalid_request("start", "has to be the first message; the call had none") from None
        if message.WhichOneof("message") != "start":
            raise invalid_request("start", "has to be the first message")
        self._task = asyncio.create_task(self._read())
        return message.start

    async def receive(self) -> tuple[ToolResultPart, ...] | None:
        """The next results; see the session's port."""
        item = await self._queue.get()
        if isinstance(item, FlowStackError):
            raise item
        return item

    def close(self) -> None:
        """Reads no more."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
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
