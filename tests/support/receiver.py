"""A receiver of webhooks that behaves, or misbehaves in the ways that the contract names, and a resolver by hand."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

CHUNKED: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Behaviour = Callable[["Receiver", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


async def accept(_: Receiver, writer: asyncio.StreamWriter) -> None:
    """Takes it."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def answering(status: str, *headers: str, body: bytes = b"") -> Behaviour:
    """Answers with a status and headers, and a body whose length the headers may lie about."""

    async def answer(_: Receiver, writer: asyncio.StreamWriter) -> None:
        length = (
            () if any(h.lower().startswith("content-length") for h in headers) else (f"content-length: {len(body)}",)
        )
        head = "\r\n".join((f"HTTP/1.1 {status}", *headers, *length, "connection: close"))
        writer.write(head.encode() + b"\r\n\r\n" + body)

    return answer


async def hang(receiver: Receiver, _: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing until it is released."""
    await receiver.released.wait()


async def trickle(receiver: Receiver, writer: asyncio.StreamWriter) -> None:
    """Begins an answer that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n.")
    await writer.drain()
    await receiver.released.wait()


async def drop(_: Receiver, writer: asyncio.StreamWriter) -> None:
    """Breaks the connection off."""
    writer.transport.abort()


async def babble(_: Receiver, writer: asyncio.StreamWriter) -> None:
    """Speaks something that is not HTTP."""
    writer.write(b"220 mail.example.org ESMTP\r\n")


async def flood(receiver: Receiver, writer: asyncio.StreamWriter) -> None:
    """Answers with more than anybody wants."""
    await endless(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n")(receiver, writer)


def endless(head: bytes, part: bytes) -> Behaviour:
    """Answers with a beginning, then with one and the same for as long as it is listened to."""

    async def answer(_: Receiver, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.transport.is_closing():
            writer.write(part)
            await writer.drain()

    return answer


@dataclass
class Receiver:
    """A server on loopback, over TLS where it has a certificate."""

    behaviour: Behaviour = accept
    received: list[Received] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    tls: ssl.SSLContext | None = None
    running: int = 0
    most_running: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        assert self._server is not None
        self._server.close()

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        """Its address."""
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    async def until(self, count: int, path: str | None = None) -> list[Received]:
        """Waits until that many requests have come in, at a path where one is named."""

        def those() -> list[Received]:
            return [one for one in self.received if path in (None, one.path)]

        async with self._changed:
            await self._changed.wait_for(lambda: len(those()) >= count)
        return those()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
            body = (await reader.readexactly(int(headers["content-length"]))).decode()
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            async with self._changed:
                self.received.append(Received(lines[0].split(" ")[1], headers, body))
                self._changed.notify_all()
            await self.behaviour(self, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.running -= 1
            writer.close()


class Names:
    """A resolver whose answers are set by hand, and change from one question to the next."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        for name, addresses in answers.items():
            self.set(name, addresses)

    def set(self, name: str, *turns: Sequence[str]) -> None:
        """What a name leads to, turn by turn; the last stays."""
        self.answers[name] = [list(turn) for turn in turns]

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        turns = self.answers.get(host)
        if turns is None:
            if host.replace(".", "").isdigit() or ":" in host:
                return [host]
            raise OSError("no such name")
        return turns.pop(0) if len(turns) > 1 else turns[0]
