"""Calls to the services, sync and async: typed methods in, messages or the SDK's errors out.

    with Client(connection_from(key, os.environ)) as client:
        usage = client.call(UsageService.GetUsage, GetUsageRequest()).usage
        for event in client.stream(RouterService.Complete, request, timeout_s=SESSION_SECONDS): ...

What takes several calls is written once for both, as a generator that yields calls and is sent their responses
(`Steps`); `run` drives it. Failures are thrown into it where it waits, as FlowStackError.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import grpc

from flowstack._connection import CALL_SECONDS, AsyncChannels, Channels, Connection
from flowstack._errors import FlowStackError, UnavailableError, UntrustedServerError
from flowstack._methods import BidiStream, Method, ServerStream, Unary
from flowstack._status import error_from_rpc
from flowstack._watch import AsyncWatch, Watch

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

RETRIES_MAX: Final = 3
BACKOFF_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call to make."""

    method: Unary[Any, Any]
    request: Any
    safe: bool = False
    """True where a repeat is safe although the method is not, as with a request_id."""


Steps = Generator[Call, Any, T]
"""Yields calls, is sent their responses, returns the result."""


def may_retry(error: FlowStackError, *, safe: bool, retries: int) -> bool:
    """True where a repeat may help and cannot do harm: only what is unavailable is tried again."""
    may_help = isinstance(error, UnavailableError) and not isinstance(error, UntrustedServerError)
    return safe and retries < RETRIES_MAX and may_help


def backoff_s(retries: int) -> float:
    """Seconds to wait before the next try: doubled each time, with jitter so that callers part."""
    return float(BACKOFF_SECONDS * 2**retries * random.uniform(0.5, 1.5))  # noqa: S311  # not a secret


class Client:
    """Blocking calls. Thread-safe; channels are shared with other clients of the process."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._channels = Channels(connection.endpoints)
        self._callables: dict[tuple[Any, str], Any] = {}

    def call(self, method: Unary[Q, R], request: Q, *, safe: bool = False, timeout_s: float = CALL_SECONDS) -> R:
        """Makes one call, again where that is safe and the service was unavailable.

        Args:
            method: what to call.
            request: its request.
            safe: a repeat is safe although the method is not, as with a request_id.
            timeout_s: seconds for all tries together.

        Raises:
            FlowStackError: whatever the service answered; see `_errors`.
        """
        deadline = time.monotonic() + timeout_s
        retries = 0
        while True:
            try:
                make = self._callable("unary_unary", method)
                response: R = make(
                    request, metadata=self.connection.metadata, timeout=max(0.001, deadline - time.monotonic())
                )
            except grpc.RpcError as failure:
                error = self.error(method, failure)
                pause_s = backoff_s(retries)
                late = time.monotonic() + pause_s >= deadline
                if late or not may_retry(error, safe=safe or method.safe, retries=retries):
                    raise error from None
                retries += 1
                time.sleep(pause_s)
            else:
                return response

    def stream(self, method: ServerStream[Q, R], request: Q, *, timeout_s: float | None = None) -> Iterator[R]:
        """Streams responses. Closing the iterator cancels the call.

        Raises:
            FlowStackError: whatever the service answered.
        """
        call = self.open(method, request, timeout_s)
        answered = False
        try:
            for response in call:
                answered = True
                yield response
        except grpc.RpcError as failure:
            raise self.error(method, failure, answered=answered) from None
        finally:
            call.cancel()

    def open(self, method: ServerStream[Q, R], request: Q, timeout_s: float | None) -> Any:
        """The call of a server stream, of gRPC itself: iterate, then cancel. Failures are gRPC's; see `error`."""
        return self._callable("unary_stream", method)(request, metadata=self.connection.metadata, timeout=timeout_s)

    def open_chat(self, method: BidiStream[Q, R], requests: Iterable[Q], timeout_s: float | None) -> Any:
        """The call of a stream of gRPC itself, in both directions: iterate, then cancel."""
        return self._callable("stream_stream", method)(
            iter(requests), metadata=self.connection.metadata, timeout=timeout_s
        )

    def watch(self, method: ServerStream[Q, R], request: Q, read: Callable[[R], T | None]) -> Watch[T]:
        """Watches what a method tells; `read` says what a message means, None for a mere sign of life."""
        return Watch(self.open(method, request, None), read, partial(self.error, method))

    def run(self, steps: Steps[T]) -> T:
        """Drives steps to their result."""
        try:
            call = next(steps)
            while True:
                try:
                    response = self.call(call.method, call.request, safe=call.safe)
                except FlowStackError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(response)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def error(self, method: Method[Any, Any], failure: grpc.RpcError, *, answered: bool = False) -> FlowStackError:
        """The SDK's error for what gRPC raised; `answered`: some of the answer had come."""
        return error_from_rpc(failure, self.connection.endpoints.of(method.service), answered=answered)

    def _callable(self, shape: str, method: Method[Any, Any]) -> Any:
        channel = self._channels.get(self.connection.endpoints.of(method.service))
        key = (channel, method.path)
        found = self._callables.get(key)
        if found is None:
            found = self._callables[key] = getattr(channel, shape)(
                method.path, request_serializer=method.serialize, response_deserializer=method.parse
            )
        return found

    def close(self) -> None:
        """Lets go of the channels. Repeatable."""
        self._channels.close()
        self._callables.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same over grpc.aio. Belongs to the loops that it is used in."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._channels = AsyncChannels(connection.endpoints)

    async def call(self, method: Unary[Q, R], request: Q, *, safe: bool = False, timeout_s: float = CALL_SECONDS) -> R:
        """As Client.call."""
        deadline = time.monotonic() + timeout_s
        retries = 0
        while True:
            try:
                make = self._callable("unary_unary", method)
                response: R = await make(
                    request, metadata=self.connection.metadata, timeout=max(0.001, deadline - time.monotonic())
                )
            except grpc.RpcError as failure:
                error = self.error(method, failure)
                pause_s = backoff_s(retries)
                late = time.monotonic() + pause_s >= deadline
                if late or not may_retry(error, safe=safe or method.safe, retries=retries):
                    raise error from None
                retries += 1
                await asyncio.sleep(pause_s)
            else:
                return response

    async def stream(
        self, method: ServerStream[Q, R], request: Q, *, timeout_s: float | None = None
    ) -> AsyncIterator[R]:
        """As Client.stream."""
        call = self.open(method, request, timeout_s)
        answered = False
        try:
            async for response in call:
                answered = True
                yield response
        except grpc.RpcError as failure:
            raise self.error(method, failure, answered=answered) from None
        finally:
            call.cancel()

    def open(self, method: ServerStream[Q, R], request: Q, timeout_s: float | None) -> Any:
        """As Client.open."""
        return self._callable("unary_stream", method)(request, metadata=self.connection.metadata, timeout=timeout_s)

    def open_chat(self, method: BidiStream[Q, R], timeout_s: float | None) -> Any:
        """The call of a stream of gRPC itself, in both directions: write, iterate, then cancel."""
        return self._callable("stream_stream", method)(metadata=self.connection.metadata, timeout=timeout_s)

    def watch(self, method: ServerStream[Q, R], request: Q, read: Callable[[R], T | None]) -> AsyncWatch[T]:
        """As Client.watch."""
        return AsyncWatch(self.open(method, request, None), read, partial(self.error, method))

    async def run(self, steps: Steps[T]) -> T:
        """As Client.run."""
        try:
            call = next(steps)
            while True:
                try:
                    response = await self.call(call.method, call.request, safe=call.safe)
                except FlowStackError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(response)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def error(self, method: Method[Any, Any], failure: grpc.RpcError, *, answered: bool = False) -> FlowStackError:
        """As Client.error."""
        return error_from_rpc(failure, self.connection.endpoints.of(method.service), answered=answered)

    def _callable(self, shape: str, method: Method[Any, Any]) -> Any:
        channel = self._channels.get(self.connection.endpoints.of(method.service))
        return getattr(channel, shape)(
            method.path, request_serializer=method.serialize, response_deserializer=method.parse
        )

    async def close(self) -> None:
        """As Client.close."""
        await self._channels.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
