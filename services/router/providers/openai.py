"""OpenAI, and every server that speaks its chat completions, called as the official SDK would call it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

import httpx2

from services.router.domain.request import Candidate, OpenAiCredentials, Prompt
from services.router.providers import traits
from services.router.providers.openai_stream import OpenAiWire, error_of
from services.router.providers.openai_wire import encode_request
from services.router.providers.port import DEFAULT_TIMEOUTS, OnSent, ProviderError, Timeouts
from services.router.providers.refusals import failure_of_status, refused, request_id_of
from services.router.providers.sdk_call import Sdk, SdkMethod, silent_client
from services.router.providers.stream import CallStream
from services.router.providers.traits import ModelTraits, Reasoning
from services.shared.secret import Secret

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
REQUEST_ID_HEADER: Final = "x-request-id"


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
    """One server: what the SDK says of its calls, and the credentials of each call in its headers."""

    def __init__(self, settings: OpenAiSettings) -> None:
        self._settings = settings
        self._completions = SdkMethod(
            lambda: import_module("openai"), lambda: _ask_sdk(settings.base_url), settings.timeouts, REQUEST_ID_HEADER
        )
        if settings.managed is not None:
            self._completions.prepare()

    def check(self, candidate: Candidate, prompt: Prompt) -> None:
        """Refuses what the model cannot do; the format itself can say all that a Prompt can."""
        known = self._traits(candidate)
        traits.check(prompt, known, known.reasoning or Reasoning.EFFORT)

    def _traits(self, candidate: Candidate) -> ModelTraits:
        return self._settings.models.get(candidate.model, traits.UNKNOWN)

    def open(self, candidate: Candidate, prompt: Prompt, on_sent: OnSent) -> AbstractAsyncContextManager[CallStream]:
        """Calls the server; see the port."""
        credentials = candidate.credentials if isinstance(candidate.credentials, OpenAiCredentials) else None
        credentials = credentials or self._settings.managed
        body = encode_request(
            candidate.model,
            prompt,
            output_limit=traits.output_limit(prompt, self._traits(candidate)),
            max_tokens_field=self._settings.max_tokens_field,
            include_usage=self._settings.include_usage,
        )
        secrets = (credentials.api_key,) if credentials else ()
        return self._completions.call(_headers(credentials), body, OpenAiWire(), secrets, on_sent)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._completions.aclose()


def _ask_sdk(base_url: str) -> Sdk:
    """What the SDK says of chat completions of the server at `base_url`."""
    # Not at this module's import, because that takes long; see sdk_call.
    import openai
    from openai._models import FinalRequestOptions

    # The SDK's debug log names what was sent. It is read from the environment when the SDK is imported, and may not be
    # switched on here.
    logging.getLogger("openai").setLevel(logging.ERROR)
    # Nothing is left to the SDK's own reading of the environment: a key, organisation, project or header found
    # there would go out with callers' requests.
    sdk = openai.AsyncOpenAI(
        api_key="set-per-request",
        admin_api_key="",
        organization="",
        project="",
        webhook_secret="",
        base_url=base_url,
        timeout=None,
        http_client=silent_client(),
    )
    # There is no argument that keeps the SDK from reading OPENAI_CUSTOM_HEADERS.
    sdk._custom_headers = {}
    # What stands on every request beside the SDK's own headers. Omit takes out what is the call's.
    standing: dict[str, str | openai.Omit] = {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        **dict.fromkeys(("Authorization", "OpenAI-Organization", "OpenAI-Project"), openai.Omit()),
    }
    options = FinalRequestOptions.construct(method="post", url="/chat/completions", headers=standing)

    def refused_by(response: httpx2.Response, secrets: Sequence[Secret]) -> ProviderError:
        error = sdk._make_status_error_from_response(response)
        _, message = error_of(error.body)
        request_id = request_id_of(response.headers, REQUEST_ID_HEADER, secrets)
        return refused(failure_of_status(error.status_code), message, response.headers, request_id, secrets)

    return Sdk(sdk._build_request(options), refused_by)


def _headers(credentials: OpenAiCredentials | None) -> dict[str, str]:
    """The call's own headers."""
    if credentials is None:
        return {}
    headers = {"Authorization": f"Bearer {credentials.api_key.reveal()}"}
    if credentials.organization:
        headers["OpenAI-Organization"] = credentials.organization
    if credentials.project:
        headers["OpenAI-Project"] = credentials.project
    return headers
