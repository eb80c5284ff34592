"""An HTTP server that says exactly the bytes that a test wants, and knows whether its client closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.dialects import Dialect, OpenAiDialect


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request, and the means to answer it badly."""

    def __init__(
        self, request: Request, dialect: Dialect, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.request = request
        self.dialect = dialect
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
        dialect = self.dialect
        given = {"content-type": dialect.content_type, dialect.request_id_header: "req_fault"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Status", "Transfer-Encoding: chunked", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in given.items()]
        await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def send(self, data: bytes) -> None:
        """A piece of the body, in a network write of its own."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def begin(self) -> None:
        """The head of an answer, and what its format puts before the first delta."""
        await self.head()
        await self.send(self.dialect.begin())

    async def text(self, *words: str) -> None:
        """Deltas of text, an event each."""
        for word in words:
            await self.send(self.dialect.text(word))

    async def calls(self, *calls: tuple[str, str, str]) -> None:
        """Tool calls: id, name and arguments of each, and the end of the answer that asks for them."""
        for index, (id_, name, arguments) in enumerate(calls):
            for piece in self.dialect.call(index, id_, name, arguments):
                await self.send(piece)
        await self.finish("tools")

    async def finish(self, reason: str = "stop", **usage: int) -> None:
        """The proper end of a stream."""
        for piece in self.dialect.finish(reason, **usage):
            await self.send(piece)
        await self.end()

    async def fail(self, kind: str, message: str) -> None:
        """A failure in the middle of a stream; one of FAILURE_KINDS."""
        await self.send(self.dialect.failure(kind, message))

    async def refuse(self, status: int, message: str, **headers: str) -> None:
        """An HTTP error as the provider words it."""
        await self.head(status, content_type="application/json", **headers)
        await self.send(self.dialect.refusal(message))
        await self.end()

    async def event(self, **chunk: Any) -> None:
        """One SSE event of JSON."""
        await self.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def error(self, status: int, error: Any, **headers: str) -> None:
        """An HTTP error with an error object of any shape."""
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
        if self._reader.exception() is not None or self._reader.at_eof():
            # Where a write noticed it, the watcher may not have had its turn yet.
            self.client_closed.set()
        self._watcher.cancel()
        self._writer.close()


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class FaultServer:
    """Answers each request by the next behaviour; the last one stays."""

    dialect: Dialect = field(default_factory=OpenAiDialect)
    """Whose format its exchanges speak."""
    behaviours: list[Behaviour] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    url: str = ""
    """Where the openai provider finds it."""
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def root(self) -> str:
        """Its address without a path."""
        return self.url.removesuffix("/v1")

    def script(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)

    @property
    def requests(self) -> list[Request]:
        return [exchange.request for exchange in self.exchanges]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

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
            method, path, _ = first.split(" ")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            exchange = Exchange(Request(method, path, headers, body), self.dialect, reader, writer)
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
async def fault_server(dialect: Dialect | None = None) -> AsyncIterator[FaultServer]:
    """A running server; each connection takes one request."""
    server = FaultServer(dialect or OpenAiDialect())
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
