"""What a service tells as it happens, until its reader has heard enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc

from flowstack._errors import FlowStackError

T = TypeVar("T")

Read = Callable[[Any], T | None]
"""What a message says; None for one that only shows that the service is there."""


class Explain(Protocol):
    """The SDK's error for what gRPC raised; see Client.error."""

    def __call__(self, failure: grpc.RpcError, /, *, answered: bool) -> FlowStackError: ...


class Watch(Generic[T]):
    """Iterate it; leaving its `with` block, or `close` from any thread, ends it.

    A service that shuts down ends it with UnavailableError: watch again then.

    Attributes:
        resume_token: for alerts, what a later watch takes to miss none that came since; empty before the first message.
    """

    def __init__(self, call: Any, read: Read[T], explain: Explain) -> None:
        self._call, self._read, self._explain = call, read, explain
        self._closed = self._answered = False
        self.resume_token = ""

    def __iter__(self) -> Watch[T]:
        return self

    def __next__(self) -> T:
        while True:
            try:
                message = next(self._call)
            except grpc.RpcError as failure:
                if self._closed:
                    raise StopIteration from None
                raise self._explain(failure, answered=self._answered) from None
            self._answered = True
            self.resume_token = getattr(message, "resume_token", "")
            told = self._read(message)
            if told is not None:
                return told

    def close(self) -> None:
        """Ends it; who waits for it gets no more. Repeatable."""
        self._closed = True
        self._call.cancel()

    def __enter__(self) -> Watch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncWatch(Generic[T]):
    """As Watch, with `async for` and `async with`."""

    def __init__(self, call: Any, read: Read[T], explain: Explain) -> None:
        self._call, self._read, self._explain = call, read, explain
        self._closed = self._answered = False
        self.resume_token = ""

    def __aiter__(self) -> AsyncWatch[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            try:
                message = await self._call.read()
            except asyncio.CancelledError:
                # grpc.aio raises this for a cancelled call as well as for a cancelled reader.
                if self._closed and not _being_cancelled():
                    raise StopAsyncIteration from None
                raise
            except grpc.RpcError as failure:
                raise self._explain(failure, answered=self._answered) from None
            if message is grpc.aio.EOF:
                raise StopAsyncIteration
            self._answered = True
            self.resume_token = getattr(message, "resume_token", "")
            told = self._read(message)
            if told is not None:
                return told

    async def close(self) -> None:
        """Ends it; who waits for it gets no more. Repeatable."""
        self._closed = True
        self._call.cancel()

    async def __aenter__(self) -> AsyncWatch[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
