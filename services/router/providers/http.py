"""HTTP for the providers' SDKs: their httpx2 clients on aiohttp's connections, which cost a third per chunk."""

from __future__ import annotations

import http.cookiejar
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
import httpx2

KEEPALIVE_SECONDS: Final = 30.0
READ_BYTES: Final = 16 * 1024
"""How much of a body is read ahead (aiohttp keeps twice that), and so the most that is parsed in one turn of the event
loop: with aiohttp's own 64 KiB two hundred providers at full speed kept new calls waiting for half a minute."""
BODY: Final = "flowstack.body"
"""The response extension that holds its Body: reading there spares httpx2's two generators at every chunk, and leaves
none behind to be closed by the garbage collector when a call is given up."""

NETWORK_ERRORS: Final = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, aiohttp.ClientError, OSError)
"""What a call can fail with below the SDK. SDKs let some of these through as they are."""


def client(connect_s: float) -> httpx2.AsyncClient:
    """A client for one provider. To be made inside the event loop; closing it closes its connections.

    It follows no redirects, keeps no cookies and takes no proxy or credentials from the environment: what goes
    where is the operator's configuration and the request, nothing else. Reads have no limit here; the caller's
    StallGuard sets it.
    """
    # A jar that accepts no domain: what one caller's key was given never goes out with another's.
    no_cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return httpx2.AsyncClient(
        transport=AiohttpTransport(),
        timeout=httpx2.Timeout(None, connect=connect_s),
        follow_redirects=False,
        trust_env=False,
        cookies=no_cookies,
    )


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends httpx2's requests through one aiohttp session, without a limit on connections."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=httpx2.create_ssl_context()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=READ_BYTES,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends `request` and answers as soon as the response's head is there."""
        timeouts = request.extensions.get("timeout", {})
        with _as_httpx2_errors(request):
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=request.content or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(sock_connect=timeouts.get("connect"), sock_read=timeouts.get("read")),
            )
        # aiohttp has undone the encoding already.
        headers = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
        body = Body(response, request)
        return httpx2.Response(response.status, headers=headers, stream=body, request=request, extensions={BODY: body})

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._session.close()


class Body(httpx2.AsyncByteStream):
    """A response's body. Closing it before its end closes the connection."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._response = response
        self._request = request

    async def read(self) -> bytes:
        """What has arrived; empty at the end.

        Raises:
            httpx2.TransportError: the connection broke.
        """
        with _as_httpx2_errors(self._request):
            return await self._response.content.readany()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def aclose(self) -> None:
        """Lets the connection be used again where the body was read to its end, else closes it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


@contextmanager
def _as_httpx2_errors(request: httpx2.Request) -> Iterator[None]:
    """Turns aiohttp's errors into those that SDKs expect; without their texts, which may quote what was sent."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise httpx2.ConnectError(type(error).__name__, request=request) from None
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError(type(error).__name__, request=request) from None
