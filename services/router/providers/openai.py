"""OpenAI, and every server that speaks its chat completions: the official SDK's client, read as a raw stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httpx2
import openai

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import Candidate, OpenAiCredentials, Prompt
from services.router.providers import http, traits
from services.router.providers.openai_stream import OpenAiWire, error_of
from services.router.providers.openai_wire import encode_request
from services.router.providers.port import DEFAULT_TIMEOUTS, ProviderError, Timeouts
from services.router.providers.refusals import failure_of_status, refused, request_id_of
from services.router.providers.stall import StallGuard
from services.router.providers.stream import CallStream, Leftovers
from services.router.providers.traits import ModelTraits, Reasoning
from services.shared.secret import Secret

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
REQUEST_ID_HEADER: Final = "x-request-id"

# The SDK's debug log names what was sent. No setting of the environment may switch that on here.
logging.getLogger("openai").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class OpenAiSettings:
    """What the operator configures for one server."""

    base_url: str = DEFAULT_BASE_URL
    managed: OpenAiCredentials | None = None
    """The operator's own credentials, for managed sessions."""
    max_tokens_field: str = "max_completion_tokens"
    """Older compatible servers know only `max_tokens`."""
    include_usage: bool = True
    """Whether the server takes `stream_options`."""
    models: Mapping[str, ModelTraits] = field(default_factory=dict)
    """What is known of the models, by name."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS


class OpenAiProvider:
    """One server: one SDK client with its connections, and the credentials of each call in its headers."""

    def __init__(self, settings: OpenAiSettings) -> None:
        self._settings = settings
        # Nothing is left to the SDK's own reading of the environment: a key, organisation, project or header found
        # there would go out with callers' requests. It retries nothing, because fallbacks are the session's.
        self._client = openai.AsyncOpenAI(
            api_key="set-per-request",
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            base_url=settings.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=settings.timeouts.connect_s),
            http_client=http.client(settings.timeouts.connect_s),
        )
        # There is no argument that keeps the SDK from reading OPENAI_CUSTOM_HEADERS.
        self._client._custom_headers = {}
        self._leftovers = Leftovers()

    def check(self, candidate: Candidate, prompt: Prompt) -> None:
        """Refuses what the model cannot do; the format itself can say all that a Prompt can."""
        known = self._traits(candidate)
        traits.check(prompt, known, known.reasoning or Reasoning.EFFORT)

    def _traits(self, candidate: Candidate) -> ModelTraits:
        return self._settings.models.get(candidate.model, traits.UNKNOWN)

    @asynccontextmanager
    async def open(self, candidate: Candidate, prompt: Prompt) -> AsyncIterator[CallStream]:
        """Calls the server; see the port."""
        credentials = candidate.credentials if isinstance(candidate.credentials, OpenAiCredentials) else None
        credentials = credentials or self._settings.managed
        secrets = (credentials.api_key,) if credentials else ()
        body = encode_request(
            candidate.model,
            prompt,
            output_limit=traits.output_limit(prompt, self._traits(candidate)),
            max_tokens_field=self._settings.max_tokens_field,
            include_usage=self._settings.include_usage,
        )
        guard = StallGuard(self._settings.timeouts.stall_s)
        try:
            response = await self._send(body, _headers(credentials), secrets, guard)
            answer: http.Body = response.extensions[http.BODY]
            request_id = request_id_of(response.headers, REQUEST_ID_HEADER, secrets)
            stream = CallStream(answer, OpenAiWire(), guard, request_id, secrets)
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
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=body,
                    options={"headers": headers},
                    stream=True,
                    stream_cls=openai.AsyncStream[Any],
                )
                return cast(httpx2.Response, response)
        except openai.APIStatusError as error:
            raise _refused(error, secrets) from None
        except (openai.APIConnectionError, *http.NETWORK_ERRORS):
            raise ProviderError(AttemptFailure.UNREACHABLE) from None
        except openai.OpenAIError:
            raise ProviderError(AttemptFailure.PROVIDER_ERROR) from None

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._leftovers.aclose()
        await self._client.close()


def _headers(credentials: OpenAiCredentials | None) -> dict[str, Any]:
    """The call's own headers. Omit takes out what the SDK would send by itself."""
    omit = openai.Omit()
    return {
        "Authorization": f"Bearer {credentials.api_key.reveal()}" if credentials else omit,
        "OpenAI-Organization": (credentials.organization if credentials else "") or omit,
        "OpenAI-Project": (credentials.project if credentials else "") or omit,
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
    }


def _refused(error: openai.APIStatusError, secrets: Sequence[Secret]) -> ProviderError:
    """What an HTTP status other than 200 means."""
    headers = error.response.headers
    _, message = error_of(error.body)
    return refused(
        failure_of_status(error.status_code),
        message,
        headers,
        request_id_of(headers, REQUEST_ID_HEADER, secrets),
        secrets,
    )
