"""Anthropic's messages, called as the official SDK would call them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

import httpx2
import msgspec

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import AnthropicCredentials, Candidate, Prompt
from services.router.providers import traits, turns
from services.router.providers.anthropic_stream import AnthropicWire, ErrorBody, WireError, error_of
from services.router.providers.anthropic_wire import encode_request
from services.router.providers.port import DEFAULT_TIMEOUTS, OnSent, ProviderError, Timeouts
from services.router.providers.refusals import failure_of_status, refused, request_id_of
from services.router.providers.sdk_call import Sdk, SdkMethod, silent_client
from services.router.providers.stream import CallStream
from services.router.providers.traits import ModelTraits, Reasoning
from services.shared.secret import Secret

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
REQUEST_ID_HEADER: Final = "request-id"

_TOOL_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")


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
    """One server: what the SDK says of its calls, and the key of each call in its headers."""

    def __init__(self, settings: AnthropicSettings) -> None:
        self._settings = settings
        self._messages = SdkMethod(
            lambda: import_module("anthropic"),
            lambda: _ask_sdk(settings.base_url),
            settings.timeouts,
            REQUEST_ID_HEADER,
        )
        if settings.managed is not None:
            self._messages.prepare()

    def check(self, candidate: Candidate, prompt: Prompt) -> None:
        """Refuses what the format or the model cannot do."""
        known = self._traits(candidate)
        reasoning = _reasoning(known)
        turns.check(prompt, _TOOL_CALL_ID)
        traits.check(prompt, known, reasoning)
        turns.check_thinking(prompt, reasoning)

    def _traits(self, candidate: Candidate) -> ModelTraits:
        return self._settings.models.get(candidate.model, traits.UNKNOWN)

    def open(self, candidate: Candidate, prompt: Prompt, on_sent: OnSent) -> AbstractAsyncContextManager[CallStream]:
        """Calls the server; see the port."""
        credentials = candidate.credentials if isinstance(candidate.credentials, AnthropicCredentials) else None
        credentials = credentials or self._settings.managed
        known = self._traits(candidate)
        body = encode_request(candidate.model, prompt, known, _reasoning(known))
        headers = {"X-Api-Key": credentials.api_key.reveal()} if credentials else {}
        secrets = (credentials.api_key,) if credentials else ()
        wire = AnthropicWire(keep_blocks=bool(prompt.tools))
        return self._messages.call(headers, body, wire, secrets, on_sent)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._messages.aclose()


def _ask_sdk(base_url: str) -> Sdk:
    """What the SDK says of messages of the server at `base_url`."""
    # Not at this module's import, because that takes long; see sdk_call.
    import anthropic
    from anthropic._models import FinalRequestOptions

    # The SDK's debug log names what was sent. It is read from the environment when the SDK is imported, and may not be
    # switched on here.
    logging.getLogger("anthropic").setLevel(logging.ERROR)
    # Nothing is left to the SDK's own reading of the environment: a key, token, profile or header found there
    # would go out with callers' requests.
    sdk = anthropic.AsyncAnthropic(
        api_key="set-per-request",
        webhook_key="",
        base_url=base_url,
        timeout=None,
        http_client=silent_client(),
        open_telemetry=False,
    )
    # There is no argument that keeps the SDK from reading ANTHROPIC_CUSTOM_HEADERS.
    sdk._custom_headers = {}
    # What stands on every request beside the SDK's own headers. Omit takes out what is the call's.
    standing: dict[str, str | anthropic.Omit] = {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        **dict.fromkeys(("Authorization", "X-Api-Key"), anthropic.Omit()),
    }
    options = FinalRequestOptions.construct(method="post", url="/v1/messages", headers=standing)

    def refused_by(response: httpx2.Response, secrets: Sequence[Secret]) -> ProviderError:
        # The error's type says more than the status where it is known.
        error = sdk._make_status_error_from_response(response)
        try:
            said = msgspec.convert(error.body, ErrorBody).error or WireError()
        except msgspec.ValidationError:
            said = WireError()
        kind, message = error_of(said)
        failure = kind if kind is AttemptFailure.CREDENTIALS_REFUSED else failure_of_status(error.status_code)
        request_id = request_id_of(response.headers, REQUEST_ID_HEADER, secrets)
        return refused(failure, message, response.headers, request_id, secrets)

    return Sdk(sdk._build_request(options), refused_by)


def _reasoning(known: ModelTraits) -> Reasoning:
    return known.reasoning or Reasoning.ADAPTIVE
