"""Anthropic's messages: the official SDK's client, read as a raw stream."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import anthropic
import httpx2
import msgspec

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import AnthropicCredentials, Candidate, Prompt
from services.router.providers import http, traits, turns
from services.router.providers.anthropic_stream import AnthropicWire, ErrorBody, WireError, error_of
from services.router.providers.anthropic_wire import encode_request
from services.router.providers.port import DEFAULT_TIMEOUTS, ProviderError, Timeouts
from services.router.providers.refusals import failure_of_status, refused, request_id_of
from services.router.providers.stall import StallGuard
from services.router.providers.stream import CallStream, Leftovers
from services.router.providers.traits import ModelTraits, Reasoning
from services.shared.secret import Secret

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
REQUEST_ID_HEADER: Final = "request-id"

_TOOL_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")

# The SDK's debug log names what was sent. No setting of the environment may switch that on here.
logging.getLogger("anthropic").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class AnthropicSettings:
    """What the operator configures for one server."""

    base_url: str = DEFAULT_BASE_URL
    """Without the version: `/v1/messages` is added to it, as the SDK does it."""
    managed: AnthropicCredentials | None = None
    """The operator's own credentials, for managed sessions."""
    models: Mapping[str, ModelTraits] = field(default_factory=dict)
    """What is known of the models, by name."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS


class AnthropicProvider:
    """One server: one SDK client with its connections, and the key of each call in its headers."""

    def __init__(self, settings: AnthropicSettings) -> None:
        self._settings = settings
        # Nothing is left to the SDK's own reading of the environment: a key, token, profile or header found there
        # would go out with callers' requests, and its spans could hold what they say. It retries nothing, because
        # fallbacks are the session's.
        self._client = anthropic.AsyncAnthropic(
            api_key="set-per-request",
            webhook_key="",
            base_url=settings.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=settings.timeouts.connect_s),
            http_client=http.client(settings.timeouts.connect_s),
            open_telemetry=False,
        )
        # There is no argument that keeps the SDK from reading ANTHROPIC_CUSTOM_HEADERS.
        self._client._custom_headers = {}
        self._leftovers = Leftovers()

    def check(self, candidate: Candidate, prompt: Prompt) -> None:
        """Refuses what the format or the model cannot do."""
        known = self._traits(candidate)
        reasoning = _reasoning(known)
        turns.check(prompt, _TOOL_CALL_ID)
        traits.check(prompt, known, reasoning)
        turns.check_thinking(prompt, reasoning)

    def _traits(self, candidate: Candidate) -> ModelTraits:
        return self._settings.models.get(candidate.model, traits.UNKNOWN)

    @asynccontextmanager
    async def open(self, candidate: Candidate, prompt: Prompt) -> AsyncIterator[CallStream]:
        """Calls the server; see the port."""
        credentials = candidate.credentials if isinstance(candidate.credentials, AnthropicCredentials) else None
        credentials = credentials or self._settings.managed
        secrets = (credentials.api_key,) if credentials else ()
        known = self._traits(candidate)
        body = encode_request(candidate.model, prompt, known, _reasoning(known))
        guard = StallGuard(self._settings.timeouts.stall_s)
        try:
            response = await self._send(body, _headers(credentials), secrets, guard)
            answer: http.Body = response.extensions[http.BODY]
            request_id = request_id_of(response.headers, REQUEST_ID_HEADER, secrets)
            stream = CallStream(answer, AnthropicWire(keep_blocks=bool(prompt.tools)), guard, request_id, secrets)
            try:
                yield stream
            finally:
                await self._leftovers.leave(answer, ended=stream.ended)
        finally:
            guard.close()

    async def _send(
        self, body: bytes, headers: dict[str, Any], secrets: Sequence[Secret], guard: StallGuard
    ) -> httpx2.Response:
        try:
            with guard:
                # The SDK answers the response itself, unread, where that is what it is asked to cast to.
                response = await self._client.post(
                    "/v1/messages",
                    cast_to=httpx2.Response,
                    content=body,
                    options={"headers": headers},
                    stream=True,
                    stream_cls=anthropic.AsyncStream[Any],
                )
                return cast(httpx2.Response, response)
        except anthropic.APIStatusError as error:
            raise _refused(error, secrets) from None
        except (anthropic.APIConnectionError, *http.NETWORK_ERRORS):
            raise ProviderError(AttemptFailure.UNREACHABLE) from None
        except anthropic.AnthropicError:
            raise ProviderError(AttemptFailure.PROVIDER_ERROR) from None

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._leftovers.aclose()
        await self._client.close()


def _reasoning(known: ModelTraits) -> Reasoning:
    return known.reasoning or Reasoning.ADAPTIVE


def _headers(credentials: AnthropicCredentials | None) -> dict[str, Any]:
    """The call's own headers. Omit takes out what the SDK would send by itself."""
    omit = anthropic.Omit()
    return {
        "X-Api-Key": credentials.api_key.reveal() if credentials else omit,
        "Authorization": omit,
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
    }


def _refused(error: anthropic.APIStatusError, secrets: Sequence[Secret]) -> ProviderError:
    """What an HTTP status other than 200 means."""
    headers = error.response.headers
    failure, message = failure_of_status(error.status_code), ""
    try:
        said = msgspec.convert(error.body, ErrorBody).error or WireError()
    except msgspec.ValidationError:
        said = WireError()
    kind, message = error_of(said)
    if kind is AttemptFailure.CREDENTIALS_REFUSED:
        failure = kind
    return refused(failure, message, headers, request_id_of(headers, REQUEST_ID_HEADER, secrets), secrets)
