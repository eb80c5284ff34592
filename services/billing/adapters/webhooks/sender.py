"""Posts to addresses that customers name: only to allowed ones, in bounded time and size, following nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Final

import aiohttp
from aiohttp import ClientError, ClientPayloadError, ClientResponse, ClientSSLError, http_exceptions
from yarl import URL

from services.billing.adapters.webhooks.addresses import (
    FairLookup,
    Lookup,
    PinnedResolver,
    RefusedError,
    UnresolvedError,
    allowed_addresses,
    guarded_socket,
)
from services.billing.adapters.webhooks.bounded import AnswerMeter, MeteredConnector
from services.billing.domain.targets import Network
from services.billing.domain.webhooks import AttemptResult, DeliveryFailure, WebhookFormat
from services.shared.errors import FlowStackError, invalid_request
from services.shared.secret import Secret

ATTEMPT_TIMEOUT_S: Final = 15.0
"""Of an attempt as a whole, from the name's look-up to the answer's last byte; Standard Webhooks asks for 15 to 30."""

LOOKUP_TIMEOUT_S: Final = 5.0
"""Of the look-up where a webhook is created; it is looked up again at every delivery."""

ANSWER_BYTES_MAX: Final = 64 * 1024
"""Of an answer's body, of which nothing but its end matters."""

TRANSPORT_BYTES_MAX: Final = 4 * ANSWER_BYTES_MAX
"""Of all that comes in during an attempt: heads, chunks' frames and trailers too."""

USER_AGENT: Final = "FlowStack-Webhooks/1"

_ELLIPSIS: Final = "…"


class GuardedSender:
    """Posts webhooks.

    A name is resolved at the moment of sending, its addresses are checked, and one of these very addresses is
    connected to. No proxy, no redirect, no cookie, no connection that outlives its attempt.
    """

    def __init__(
        self,
        lookup: Lookup,
        operators: Sequence[Network] = (),
        *,
        creation_lookup: Lookup | None = None,
        allow_http: bool = False,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> None:
        """Makes a sender.

        Args:
            lookup: resolves names.
            operators: networks that the operator allows beside public addresses.
            creation_lookup: resolves names where webhooks are created, so that no delivery waits for these; `lookup`
                where it is None.
            allow_http: whether addresses without TLS are allowed.
            tls: verifies receivers; the system's authorities where it is None.
            timeout_s: of an attempt as a whole, in seconds.
        """
        self._lookup = FairLookup(lookup)
        self._creation_lookup = FairLookup(creation_lookup or lookup)
        self._operators = operators
        self._allow_http = allow_http
        self._given_tls = tls
        self._timeout_s = timeout_s

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Not before it is needed: reading the system's authorities takes as long as half of billing's start.
        return self._given_tls or ssl.create_default_context()

    async def check(self, account_id: str, url: str, form: WebhookFormat) -> str:
        """Checks an address as far as that can be done beforehand; answers it as it may be shown.

        A name that has no address at present is taken: deliveries to it fail until it has one.

        Raises:
            FlowStackError: INVALID_REQUEST: the operator does not allow it.
        """
        parsed = self._parsed(url)
        if parsed is None:
            raise self._refused()
        host, port = parsed.raw_host or "", parsed.port or 0
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                await allowed_addresses(partial(self._creation_lookup, account_id), host, port, self._operators)
        except RefusedError:
            raise self._refused() from None
        except (UnresolvedError, TimeoutError):
            pass  # perhaps later
        return redacted(parsed, form)

    def _parsed(self, url: str) -> URL | None:
        """The address, where its form is allowed."""
        try:
            parsed = URL(url)
            is_whole = bool(parsed.raw_host) and 0 < (parsed.port or 0) <= 65535
        except ValueError:
            return None
        return parsed if is_whole and parsed.scheme in ("https", "http") and self._is_scheme_allowed(parsed) else None

    def _is_scheme_allowed(self, parsed: URL) -> bool:
        return parsed.scheme == "https" or self._allow_http

    def _refused(self) -> FlowStackError:
        schemes = "http:// or https://" if self._allow_http else "https://"
        return invalid_request(
            "url", f"must be an {schemes} address on the public internet, or one that the operator allows"
        )

    async def post(self, account_id: str, url: Secret, headers: Mapping[str, str], body: str) -> AttemptResult:
        """Posts JSON once, in bounded time."""
        parsed = self._parsed(url.reveal())
        if parsed is None:
            # Allowed when it was created, and no more.
            return AttemptResult(DeliveryFailure.ADDRESS_REFUSED)
        meter = AnswerMeter(TRANSPORT_BYTES_MAX)
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._addresses(account_id, parsed)
                result = await self._post(parsed, addresses, headers, body, meter)
        except Exception as error:
            failure = _failure_of(error)
            if failure is None:
                raise
            result = AttemptResult(failure)
        return AttemptResult(DeliveryFailure.MALFORMED, result.http_status) if meter.is_over else result

    async def _addresses(self, account_id: str, url: URL) -> Sequence[str]:
        lookup = partial(self._lookup, account_id)
        return await allowed_addresses(lookup, url.raw_host or "", url.port or 0, self._operators)

    async def _post(
        self, url: URL, addresses: Sequence[str], headers: Mapping[str, str], body: str, meter: AnswerMeter
    ) -> AttemptResult:
        connector = MeteredConnector(
            meter,
            ssl=self._tls,
            resolver=PinnedResolver(addresses),
            use_dns_cache=False,
            force_close=True,
            socket_factory=guarded_socket(addresses),
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                # The attempt is bounded as a whole.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                read_bufsize=ANSWER_BYTES_MAX,
            ) as session,
            session.post(
                url.with_fragment(None),
                data=body.encode(),
                headers={**headers, "content-type": "application/json", "user-agent": USER_AGENT},
                allow_redirects=False,
            ) as response,
        ):
            return await _result_of(response)


async def _result_of(response: ClientResponse) -> AttemptResult:
    """What an answer means; it is read to its end, which may be a lie."""
    status = response.status
    if 300 <= status < 400:
        return AttemptResult(DeliveryFailure.REDIRECTED, status)
    size = 0
    try:
        async for part in response.content.iter_any():
            size += len(part)
            if size > ANSWER_BYTES_MAX:
                return AttemptResult(DeliveryFailure.MALFORMED, status)
    except (ClientPayloadError, http_exceptions.HttpProcessingError):
        return AttemptResult(DeliveryFailure.MALFORMED, status)
    if 200 <= status < 300:
        return AttemptResult(DeliveryFailure.NONE, status)
    return AttemptResult(DeliveryFailure.STATUS, status, _retry_after_s(response))


def _retry_after_s(response: ClientResponse) -> float:
    """How long a busy receiver asks to be left alone; only plain seconds are understood."""
    text = response.headers.get("retry-after", "")
    return float(text) if response.status in (429, 503) and text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _failure_of(error: Exception) -> DeliveryFailure | None:
    """What an error means; None where it is a defect."""
    if isinstance(error, UnresolvedError):
        return DeliveryFailure.UNRESOLVED
    if isinstance(error, RefusedError):
        return DeliveryFailure.ADDRESS_REFUSED
    if isinstance(error, (TimeoutError, aiohttp.ServerTimeoutError)):
        return DeliveryFailure.TIMED_OUT
    if isinstance(error, (ClientSSLError, ssl.SSLError)):
        return DeliveryFailure.TLS
    if isinstance(error, (aiohttp.ClientResponseError, http_exceptions.HttpProcessingError)):
        return DeliveryFailure.MALFORMED
    if isinstance(error, (ClientError, OSError)):
        return DeliveryFailure.UNREACHABLE
    return None


def redacted(url: URL, form: WebhookFormat) -> str:
    """An address as it may be shown: without its user, password and query, and in Slack's form without its path."""
    user = f"{_ELLIPSIS}@" if url.raw_user is not None or url.raw_password is not None else ""
    host = f"[{url.raw_host}]" if ":" in (url.raw_host or "") else url.raw_host
    port = f":{url.explicit_port}" if url.explicit_port is not None else ""
    path = url.raw_path
    if form is WebhookFormat.SLACK:
        path = f"/{_ELLIPSIS}"
    query = f"?{_ELLIPSIS}" if url.raw_query_string else ""
    return f"{url.scheme}://{user}{host}{port}{path}{query}"
