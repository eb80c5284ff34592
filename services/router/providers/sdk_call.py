"""Calls of one method of a provider's API, as the provider's official SDK would send them, over our own HTTP.

The SDK's own client says once where the method is and which headers stand on every request; a call adds its
credentials and its body. The SDK's `post` is not used, because it builds options, headers, URL, request and response
anew for every call: under cProfile it took 2.4 s of the 3.4 s that sessions took in all. What a refusal says is still
taken apart by the SDK; refusals are few.

An SDK takes a second of processor time to import, which the start need not wait for: it is loaded in a thread, some
seconds after the start, or for the first call where that comes before.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Sdk:
    """What an SDK says of the method."""

    request: httpx2.Request
    """Its own request, without credentials and body."""
    refused: Refused
    """What refusals mean."""


def silent_client() -> httpx2.AsyncClient:
    """For an SDK that is only asked what it would send: it sends nothing, and reads no environment."""
    return httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport(), trust_env=False)


WARM_UP_S: Final = 5.0
"""How long after the start an SDK is loaded that no call has asked for, in seconds."""

_importing: Final = threading.Lock()
"""Two SDKs share libraries: they are imported one after the other."""


class _Prepared:
    """What stands on every call of a method."""

    def __init__(self, sdk: Sdk) -> None:
        self.sdk = sdk
        self.target = http.Target.of(str(sdk.request.url))
        self.standing = http.header_lines(
            {name: value for name, value in sdk.request.headers.items() if name not in ("host", "content-length")}
        )


class SdkMethod:
    """One method. To be made inside the event loop.

    Args:
        load: Imports the SDK; called once, in a thread.
        ask: Asks it what it says; called once, after that, in the event loop, whose calls it is asked about.
        timeouts: How long the provider is waited for.
        request_id_header: Where it says the id of a call.
    """

    def __init__(
        self, load: Callable[[], object], ask: Callable[[], Sdk], timeouts: Timeouts, request_id_header: str
    ) -> None:
        self._load = load
        self._ask = ask
        self._loading: asyncio.Task[_Prepared] | None = None
        self._warm_up = asyncio.get_running_loop().call_later(WARM_UP_S, self.prepare)
        self._http = http.HttpClient(timeouts.connect_s)
        self._stall_s = timeouts.stall_s
        self._request_id_header = request_id_header
        self._leftovers = Leftovers()

    def prepare(self) -> asyncio.Task[_Prepared]:
        """Loads the SDK, unless that is under way or done. What failed is tried again."""
        self._warm_up.cancel()
        if self._loading is not None and self._loading.done() and self._loading.exception() is not None:
            self._loading = None
        if self._loading is None:
            self._loading = asyncio.create_task(self._prepare())
        return self._loading

    async def _prepare(self) -> _Prepared:
        def load() -> None:
            with _importing:
                self._load()

        await asyncio.to_thread(load)
        return _Prepared(self._ask())

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
        # Shielded: one caller that goes away must not take it from the others. It is this process's own work, for which
        # the provider's time does not run.
        prepared = await asyncio.shield(self.prepare())
        guard = StallGuard(self._stall_s)
        try:
            response = await self._send(prepared, headers, body, secrets, guard=guard, on_sent=on_sent)
            request_id = request_id_of(response.headers, self._request_id_header, secrets)
            stream = CallStream(response, wire, guard, request_id, secrets)
            try:
                yield stream
            finally:
                self._leftovers.leave(response, ended=stream.ended)
        finally:
            guard.close()

    async def _send(
        self,
        prepared: _Prepared,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[Secret],
        *,
        guard: StallGuard,
        on_sent: OnSent,
    ) -> http.Response:
        """The response, whose body is not read yet."""
        try:
            with guard:
                lines = prepared.standing + http.header_lines(headers)
                response = await self._http.post(prepared.target, lines, body, on_sent)
                if not httpx2.codes.is_success(response.status):
                    raise prepared.sdk.refused(await _read(response, prepared.sdk.request), secrets)
        except http.NETWORK_ERRORS:
            raise ProviderError(AttemptFailure.UNREACHABLE) from None
        check_encoding(response)
        return response

    async def aclose(self) -> None:
        """Closes the connections."""
        self._warm_up.cancel()
        if self._loading is not None:
            await asyncio.wait((self._loading,))
        await self._leftovers.aclose()
        await self._http.aclose()


async def _read(response: http.Response, request: httpx2.Request) -> httpx2.Response:
    """A refusal as the SDK takes it."""
    content = await response.read_error()
    headers = [(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"]
    return httpx2.Response(response.status, headers=headers, content=content, request=request)
