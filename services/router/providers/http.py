"""HTTP for the providers: requests on connections that are kept, and no more of HTTP than their APIs use.

With aiohttp in its place a short session took 0.3 ms more of the router's processor time, and each chunk of an answer
about a quarter more: a client for every purpose makes a dozen objects for a request, and cuts a body up into chunks
that are put together again.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from socket import SOCK_STREAM
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import aiohappyeyeballs
import httpx2

from services.router.providers.http_connection import READ_BYTES, Connection, HttpError
from services.router.providers.port import OnSent

KEEPALIVE_SECONDS: Final = 30.0
"""How long a connection is kept that nobody uses."""
ADDRESS_SECONDS: Final = 0.25
"""How long one address of a host may take before the next one is tried beside it (RFC 8305, section 8)."""

ERROR_BYTES_MAX: Final = 1024 * 1024
"""How much of a refusal is read. What is longer says nothing more, and would fill the memory."""

NETWORK_ERRORS: Final = (HttpError, OSError)
"""What a call can fail with on the network. A time that has run out is an OSError as well."""

_PORTS: Final = {"http": 80, "https": 443}


class Address(NamedTuple):
    """Where a connection leads to."""

    host: str
    port: int
    tls: bool


class Target(NamedTuple):
    """Where a request goes."""

    address: Address
    host: str
    """The Host header."""
    path: str
    """With the query, if there is one."""

    @classmethod
    def of(cls, url: str) -> Self:
        """The target of an absolute URL, whose path is escaped already.

        Raises:
            ValueError: it is none of HTTP's.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("a provider's address begins with http:// or https:// and names a host")
        standard = _PORTS[parts.scheme]
        port = parts.port or standard
        name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        path = parts.path or "/"
        return cls(
            Address(parts.hostname, port, parts.scheme == "https"),
            name if port == standard else f"{name}:{port}",
            f"{path}?{parts.query}" if parts.query else path,
        )


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they go out.

    Raises:
        ValueError: a value holds a line end or the like, so that what follows it would pass for another header.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if len(lines.splitlines()) != len(headers) or "\0" in lines:
        raise ValueError("a header holds a character that it must not")
    return lines.encode()


class Response:
    """An answer, whose body is not read yet. Closing it before its end closes the connection."""

    __slots__ = ("_client", "_connection", "headers", "raw_headers", "read", "status")

    def __init__(self, client: HttpClient, connection: Connection) -> None:
        self._client = client
        self._connection: Connection | None = connection
        self.status = connection.status
        self.raw_headers = connection.raw_headers
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in connection.raw_headers
        }
        """By names in lower case; of one that came twice, the last."""
        self.read = connection.read
        """What has arrived; empty at the end. Raises one of NETWORK_ERRORS where the connection broke."""

    @property
    def at_end(self) -> bool:
        """True once it was read to its end."""
        return self._connection is None or self._connection.at_end

    @property
    def is_encoded(self) -> bool:
        """Whether the body is compressed or the like, though every request says that it must not be."""
        return self.headers.get("content-encoding", "identity").lower() not in ("", "identity")

    async def read_error(self) -> bytes:
        """The body of a refusal, up to ERROR_BYTES_MAX of it; empty where it is encoded. Closes the response.

        Raises:
            HttpError, OSError: the connection broke.
        """
        pieces: list[bytes] = []
        size = 0
        try:
            while size < ERROR_BYTES_MAX and (piece := await self.read()):
                pieces.append(piece)
                size += len(piece)
        finally:
            self.close()
        return b"" if self.is_encoded else b"".join(pieces)

    def close(self) -> None:
        """Lets the connection be used again where the body was read to its end, else closes it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.give_back(connection)


class HttpClient:
    """Connections to any number of addresses, without a limit on how many. To be made inside the event loop.

    It keeps no cookies, follows no redirects, and takes no proxy or credentials from the environment: what goes where
    is the operator's configuration and the request, nothing else. Reads have no limit here; the caller's StallGuard
    sets it. No request is repeated: whoever answered none may have taken it all the same.

    Args:
        connect_s: How long a connection may take to be made, its TLS handshake included, in seconds.
    """

    def __init__(self, connect_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect_s = connect_s
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._idle: dict[Address, list[Connection]] = {}
        self._open: dict[Connection, Address] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None

    async def post(self, target: Target, headers: bytes, body: bytes, on_sent: OnSent) -> Response:
        """Sends a request, and waits for the head of its answer.

        Args:
            target: Where it goes.
            headers: As `header_lines` makes them, beside Host and Content-Length.
            body: What is sent.
            on_sent: Told when the request goes out; see the provider's port.

        Raises:
            HttpError, OSError: there is no connection, or it broke.
        """
        connection = self._reused(target.address) or await self._connected(target.address)
        head = f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Length: {len(body)}\r\n".encode()
        on_sent()
        try:
            await connection.ask(b"".join((head, headers, b"\r\n")), body)
        except BaseException:
            connection.close()
            raise
        return Response(self, connection)

    def _reused(self, address: Address) -> Connection | None:
        """The connection that was used last, which is the least likely to be closed by the other side soon."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connected(self, address: Address) -> Connection:
        """A new connection."""
        host, port, tls = address
        async with asyncio.timeout(self._connect_s):
            infos = await self._loop.getaddrinfo(host, port, type=SOCK_STREAM)
            socket = await aiohappyeyeballs.start_connection(
                infos, happy_eyeballs_delay=ADDRESS_SECONDS, loop=self._loop
            )
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._buffer, self._lost),
                sock=socket,
                ssl=_certificates() if tls else None,
                server_hostname=host if tls else None,
            )
        self._open[connection] = address
        return connection

    def give_back(self, connection: Connection) -> None:
        """Takes a connection whose answer is over, to be used again where it can be."""
        if not (connection.at_end and connection.reusable and connection.is_open and self._closed is None):
            connection.close()
            return
        connection.idle_since_s = self._loop.time()
        self._idle.setdefault(self._open[connection], []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEPALIVE_SECONDS, self._close_unused)

    def _close_unused(self) -> None:
        """Closes what nobody has used for KEEPALIVE_SECONDS."""
        self._sweep = None
        oldest_s = self._loop.time() - KEEPALIVE_SECONDS
        for address, connections in list(self._idle.items()):
            kept = [one for one in connections if one.is_open and one.idle_since_s > oldest_s]
            for connection in set(connections) - set(kept):
                connection.close()
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        if self._idle:
            first_s = min(one.idle_since_s for connections in self._idle.values() for one in connections)
            self._sweep = self._loop.call_at(first_s + KEEPALIVE_SECONDS, self._close_unused)

    def _lost(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        if self._closed is not None and not self._open and not self._closed.done():
            self._closed.set_result(None)

    async def aclose(self) -> None:
        """Closes every connection."""
        self._closed = self._loop.create_future()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._open):
            connection.close()
        if self._open:
            await self._closed


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The authorities that are trusted; read once, because that takes 30 ms."""
    return httpx2.create_ssl_context()
