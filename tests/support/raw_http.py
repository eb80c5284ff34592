"""An HTTP server that answers the same bytes to every request, and the client of the providers to ask it with."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.router.providers.http import HttpClient, Response, Target, header_lines

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Answers each request by the same bytes; knows who connected and what was asked."""

    def __init__(self, *pieces: bytes, closes: bool = False) -> None:
        self.pieces = pieces
        self.closes = closes
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.lost = asyncio.Semaphore(0)
        self.target = Target.of("http://127.0.0.1:1")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, OSError):
            # The client has closed or reset the connection.
            pass
        finally:
            writer.close()
            self.lost.release()


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpClient]:
    """A client, while `server` listens; with `tls` as localhost."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    base = "http://127.0.0.1" if tls is None else "https://localhost"
    server.target = Target.of(f"{base}:{listener.sockets[0].getsockname()[1]}/v1/ask?x=%20")
    client = HttpClient(connect_s=5)
    try:
        yield client
    finally:
        await client.aclose()
        listener.close()


def ignored() -> None:
    """Nobody asks whether the request went out."""


async def ask(client: HttpClient, server: Server, body: bytes = b"{}") -> Response:
    return await client.post(server.target, header_lines({"X-Key": "k"}), body, ignored)


async def read(response: Response) -> list[bytes]:
    """Every read of a body, to its end."""
    reads = []
    while data := await response.read():
        reads.append(data)
    return reads


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def fixed(body: bytes, *lines: bytes) -> bytes:
    """An answer with the length of its body."""
    head = (b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines)
    return b"\r\n".join(head) + b"\r\n\r\n" + body
