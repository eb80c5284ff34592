"""Calls of one method of a provider's API, as the provider's official SDK would send them, over our own HTTP.

The SDK's own client says once, when a provider is made, where the method is and which headers stand on every request;
a call adds its credentials and its body. The SDK's `post` is not used, because it builds options, headers, URL,
request and response anew for every call: under cProfile it took 2.4 s of the 3.4 s that sessions took in all. What a
refusal says is still taken apart by the SDK; refusals are few.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx2

from services.router.domain.outcome import AttemptFailure
from services.router.providers import http
from services.router.providers.port import OnSent, ProviderError, Timeouts
from services.router.providers.refusals import request_id_of
from services.router.providers.stall import StallGuard
from services.router.providers.stream import CallStream, Leftovers, Wire, check_encoding
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
        self._request = request
        self._target = http.Target.of(str(request.url))
        self._standing = http.header_lines(
            {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        )
        self._http = http.HttpClient(timeouts.connect_s)
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
            response = await self._send(headers, body, secrets, guard, on_sent)
            request_id = request_id_of(response.headers, self._request_id_header, secrets)
            stream = CallStream(response, wire, guard, request_id, secrets)
            try:
                yield stream
            finally:
                self._leftovers.leave(response, ended=stream.ended)
        finally:
            guard.close()

    async def _send(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], guard: StallGuard, on_sent: OnSent
    ) -> http.Response:
        """The response, whose body is not read yet."""
        try:
            with guard:
                lines = self._standing + http.header_lines(headers)
                response = await self._http.post(self._target, lines, body, on_sent)
                if not httpx2.codes.is_success(response.status):
                    raise self._refused(await self._read(response), secrets)
        except http.NETWORK_ERRORS:
            raise ProviderError(AttemptFailure.UNREACHABLE) from None
        check_encoding(response)
        return response

    async def _read(self, response: http.Response) -> httpx2.Response:
        """A refusal as the SDK takes it."""
        content = await response.read_error()
        headers = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
        return httpx2.Response(response.status, headers=headers, content=content, request=self._request)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._leftovers.aclose()
        await self._http.aclose()
