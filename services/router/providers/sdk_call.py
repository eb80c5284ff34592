"""Calls of one method of a provider's API, as the provider's official SDK would send them, over aiohttp.

The SDK's own client says once, when a provider is made, where the method is and which headers stand on every request;
a call adds its credentials and its body. The SDK's `post` is not used, because it builds options, headers, URL,
request and response anew for every call: under cProfile it took 2.4 s of the 3.4 s that sessions took in all, and
aiohttp below it 0.4 s. Without it a short session takes 1.7 ms of the router's processor time instead of 2.5. What a
refusal says is still taken apart by the SDK; refusals are few.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
import httpx2
from yarl import URL

from services.router.domain.outcome import AttemptFailure
from services.router.providers import http
from services.router.providers.port import OnSent, ProviderError, Timeouts
from services.router.providers.refusals import request_id_of
from services.router.providers.stall import StallGuard
from services.router.providers.stream import CallStream, Leftovers, Wire
from services.shared.secret import Secret

Refused = Callable[[httpx2.Response, Sequence[Secret]], ProviderError]
"""What a response with another status than 2xx means. The response has been read."""


def silent_client() -> httpx2.AsyncClient:
    """For an SDK that is only asked what it would send: it sends nothing, and reads no environment."""
    return httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)


class SdkMethod:
    """One method. To be made inside the event loop.

    Args:
        request: The SDK's own request, without credentials and body.
        timeouts: How long the provider is waited for.
        request_id_header: Where it says the id of a call.
        refused: What its refusals mean.
    """

    def __init__(self, request: httpx2.Request, timeouts: Timeouts, request_id_header: str, refused: Refused) -> None:
        standing = [(name, value) for name, value in request.headers.multi_items() if name != "content-length"]
        self._request = request
        self._url = URL(str(request.url), encoded=True)
        self._session = http.open_session(standing)
        self._connect = aiohttp.ClientTimeout(sock_connect=timeouts.connect_s)
        self._stall_s = timeouts.stall_s
        self._request_id_header = request_id_header
        self._refused = refused
        self._leftovers = Leftovers()

    @asynccontextmanager
    async def call(
        self, headers: Mapping[str, str], body: bytes, wire: Wire, secrets: Sequence[Secret], on_sent: OnSent
    ) -> AsyncIterator[CallStream]:
        """Calls the method, and reads its answer by `wire`; see the port's `open`.

        Args:
            headers: The call's own, beside those that stand on every request.
            body: JSON.
            wire: What takes the answer apart.
            secrets: The keys in `headers`, which no message may hold.
            on_sent: Told when the request goes out; see the port.

        Raises:
            ProviderError: the provider could not be reached, or refused the call.
        """
        guard = StallGuard(self._stall_s)
        try:
            response = await self._send(headers, http.MarkedBody(body, on_sent), secrets, guard)
            answer = http.Body(response)
            request_id = request_id_of(response.headers, self._request_id_header, secrets)
            stream = CallStream(answer, wire, guard, request_id, secrets)
            try:
                yield stream
            finally:
                await self._leftovers.leave(answer, ended=stream.ended)
        finally:
            guard.close()

    async def _send(
        self, headers: Mapping[str, str], body: http.MarkedBody, secrets: Sequence[Secret], guard: StallGuard
    ) -> aiohttp.ClientResponse:
        """The response, whose body is not read yet."""
        try:
            with guard:
                response = await self._session.post(
                    self._url, data=body, headers=headers, allow_redirects=False, timeout=self._connect
                )
                if not httpx2.codes.is_success(response.status):
                    raise self._refused(await self._read(response), secrets)
        except http.NETWORK_ERRORS:
            raise ProviderError(AttemptFailure.UNREACHABLE) from None
        return response

    async def _read(self, response: aiohttp.ClientResponse) -> httpx2.Response:
        """A refusal as the SDK takes it."""
        body = http.Body(response)
        try:
            content = await body.read_error()
        finally:
            await body.aclose()
        # aiohttp has undone the encoding already.
        headers = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
        return httpx2.Response(response.status, headers=headers, content=content, request=self._request)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._leftovers.aclose()
        await self._session.close()
