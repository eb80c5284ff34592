"""An HTTP server that says exactly the bytes that a test wants, and knows whether its client closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """What came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request, and the means to answer it badly."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer
        self.client_closed = asyncio.Event()
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            while await self._reader.read(4096):
                pass
        except OSError:
            pass
        self.client_closed.set()

    async def head(self, status: int = 200, **headers: str) -> None:
        """The response's head, of a chunked body."""
        given = {"content_type": "text/event-stream", "x_request_id": "req_fault", **headers}
        lines = [f"HTTP/1.1 {status} Status", "Transfer-Encoding: chunked", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
        await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def send(self, data: bytes) -> None:
        """A piece of the body, in a network write of its own."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, **chunk: Any) -> None:
        """One SSE event of JSON."""
        await self.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def text(self, *words: str) -> None:
        """Deltas of text, an event each."""
        for word in words:
            await self.event(choices=[{"index": 0, "delta": {"content": word}}])

    async def finish(self, reason: str = "stop", **usage: int) -> None:
        """The proper end of a stream."""
        await self.event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
        if usage:
            await self.event(choices=[], usage=usage)
        await self.send(b"data: [DONE]\n\n")
        await self.end()

    async def error(self, status: int, error: Any, **headers: str) -> None:
        """An HTTP error with an error object."""
        await self.head(status, content_type="application/json", **headers)
        await self.send(json.dumps({"error": error}).encode())
        await self.end()

    async def end(self) -> None:
        """The proper end of the body."""
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Bytes past all framing."""
        self._writer.write(data)
        await self._writer.drain()

    def cut(self) -> None:
        """Closes the connection in the middle of the body."""
        self._writer.close()

    def reset(self) -> None:
        """Resets the connection."""
        self._writer.transport.abort()

    async def hold(self) -> None:
        """Says nothing until the client closes."""
        await self.client_closed.wait()

    async def close(self) -> None:
        self._watcher.cancel()
        self._writer.close()


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class FaultServer:
    """Answers each request by the next behaviour; the last one stays."""

    behaviours: list[Behaviour] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    url: str = ""
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def script(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)

    @property
    def requests(self) -> list[Request]:
        return [exchange.request for exchange in self.exchanges]

    async def arrived(self, count: int = 1) -> Exchange:
        """Waits for the n-th request."""
        async with self._arrived, asyncio.timeout(20):
            await self._arrived.wait_for(lambda: len(self.exchanges) >= count)
        return self.exchanges[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        exchange = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            exchange = Exchange(Request(first.split(" ")[1], headers, body), reader, writer)
            behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            async with self._arrived:
                self.exchanges.append(exchange)
                self._arrived.notify_all()
            await behaviour(exchange)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            if exchange is not None:
                await exchange.close()
            writer.close()


@asynccontextmanager
async def fault_server() -> AsyncIterator[FaultServer]:
    """A running server; each connection takes one request."""
    server = FaultServer()
    listener = await asyncio.start_server(server._serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in list(server._tasks):
            task.cancel()
        if server._tasks:
            await asyncio.wait(set(server._tasks))
