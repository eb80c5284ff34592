"""HTTP for the providers: aiohttp's connections, which cost a third of httpx2's per chunk."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Awaitable, Iterable
from typing import Final

import aiohttp
import httpx2
from aiohttp.abc import AbstractStreamWriter

from services.router.providers.port import OnSent

KEEPALIVE_SECONDS: Final = 30.0
READ_BYTES: Final = 16 * 1024
"""How much of a body is read ahead (aiohttp keeps twice that), and so the most that is parsed in one turn of the event
loop: with aiohttp's own 64 KiB two hundred providers at full speed kept new calls waiting for half a minute."""

ERROR_BYTES_MAX: Final = 1024 * 1024
"""How much of a refusal is read. What is longer says nothing more, and would fill the memory."""

NETWORK_ERRORS: Final = (aiohttp.ClientError, OSError)
"""What a call can fail with on the network."""


def open_session(headers: Iterable[tuple[str, str]] = ()) -> aiohttp.ClientSession:
    """Connections of aiohttp, without a limit on how many. To be made inside the event loop.

    They keep no cookies and take no proxy or credentials from the environment: what goes where is the operator's
    configuration and the request, nothing else. Reads have no limit here; the caller's StallGuard sets it. Redirects
    are the request's affair: it has to refuse them.

    Args:
        headers: What stands on every request.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=_certificates()),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=READ_BYTES,
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The authorities that are trusted; read once, because that takes 30 ms."""
    return httpx2.create_ssl_context()


class MarkedBody(aiohttp.BytesPayload):
    """A request's body that tells when it is written.

    aiohttp keeps a request's head back and writes it together with the body, so nothing has gone out before. Its own
    traces say the same, at the price of a dozen calls for each request.
    """

    def __init__(self, value: bytes, on_sent: OnSent) -> None:
        super().__init__(value)
        self._on_sent = on_sent

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Writes the body; called by aiohttp once there is a connection."""
        self._on_sent()
        await super().write_with_length(writer, content_length)


class Body:
    """A response's body. Closing it before its end closes the connection."""

    __slots__ = ("_readany", "_response")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._readany = response.content.readany

    @property
    def at_end(self) -> bool:
        """True once it was read to its end."""
        return self._response.content.at_eof()

    def read(self) -> Awaitable[bytes]:
        """What has arrived; empty at the end.

        Raises:
            aiohttp.ClientError, OSError: the connection broke.
        """
        return self._readany()

    async def read_error(self) -> bytes:
        """The body of a refusal, up to ERROR_BYTES_MAX of it."""
        pieces: list[bytes] = []
        size = 0
        while size < ERROR_BYTES_MAX and (piece := await self.read()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Lets the connection be used again where the body was read to its end, else closes it."""
        if self.at_end:
            self._response.release()
        else:
            self._response.close()
