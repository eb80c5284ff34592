"""Amazon Bedrock's ConverseStream: botocore's signature and event stream over our own HTTP, no thread for a stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import BedrockCredentials, Candidate, Prompt
from services.router.providers import bedrock_wire, http, traits, turns
from services.router.providers.aws import ManagedCredentials, converse_url, endpoint_of, signed_headers
from services.router.providers.bedrock_stream import BedrockWire, error_of, failure_of_exception
from services.router.providers.port import DEFAULT_TIMEOUTS, OnSent, ProviderError, Timeouts
from services.router.providers.refusals import failure_of_status, refused, request_id_of
from services.router.providers.stall import StallGuard
from services.router.providers.stream import CallStream, Leftovers, check_encoding
from services.router.providers.traits import ModelTraits, Reasoning
from services.shared.errors import invalid_request
from services.shared.secret import Secret

REQUEST_ID_HEADER: Final = "x-amzn-requestid"
OK: Final = 200

_HEADERS: Final = {"Content-Type": "application/json"}
"""What is signed beside the host and the date, as boto3 does it."""
_UNSIGNED_HEADERS: Final = {"Accept": "application/vnd.amazon.eventstream", "Accept-Encoding": "identity"}
_TOOL_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class BedrockSettings:
    """What the operator configures for Bedrock."""

    regions: tuple[str, ...]
    """The AWS regions that may be asked; the first is the default."""
    endpoint_url: str = ""
    """Takes the place of every region's own address."""
    managed: ManagedCredentials | None = None
    """The operator's own credentials, for managed sessions."""
    models: Mapping[str, ModelTraits] = field(default_factory=dict)
    """What is known of the models, by name."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS


class BedrockProvider:
    """Bedrock in the operator's regions.

    Raises:
        ValueError: a region is not known.
    """

    def __init__(self, settings: BedrockSettings) -> None:
        self._settings = settings
        self._endpoints = {region: settings.endpoint_url or endpoint_of(region) for region in settings.regions}
        self._http = http.HttpClient(settings.timeouts.connect_s)
        self._leftovers = Leftovers()

    def check(self, candidate: Candidate, prompt: Prompt) -> None:
        """Refuses what the format or the model cannot do, and a region that is not offered."""
        credentials = candidate.credentials
        region = credentials.region if isinstance(credentials, BedrockCredentials) else ""
        if region and region not in self._endpoints:
            offered = ", ".join(self._endpoints)
            raise invalid_request("byok", f"bedrock's region is not offered here; offered are {offered}")
        known = self._traits(candidate)
        reasoning = _reasoning(known)
        turns.check(prompt, _TOOL_CALL_ID)
        bedrock_wire.check(prompt)
        traits.check(prompt, known, reasoning)
        if reasoning is not Reasoning.EFFORT:
            turns.check_thinking(prompt, reasoning)

    def _traits(self, candidate: Candidate) -> ModelTraits:
        return self._settings.models.get(candidate.model, traits.UNKNOWN)

    @asynccontextmanager
    async def open(self, candidate: Candidate, prompt: Prompt, on_sent: OnSent) -> AsyncIterator[CallStream]:
        """Calls Bedrock; see the port."""
        known = self._traits(candidate)
        body = bedrock_wire.encode_request(prompt, known, _reasoning(known))
        guard = StallGuard(self._settings.timeouts.stall_s)
        try:
            credentials = await self._credentials(candidate, guard)
            secrets = _secrets(credentials)
            response = await self._send(candidate.model, body, credentials, guard, on_sent)
            request_id = request_id_of(response.headers, REQUEST_ID_HEADER, secrets)
            stream = CallStream(response, BedrockWire(keep_blocks=bool(prompt.tools)), guard, request_id, secrets)
            try:
                yield stream
            finally:
                self._leftovers.leave(response, ended=stream.ended)
        finally:
            guard.close()

    async def _credentials(self, candidate: Candidate, guard: StallGuard) -> BedrockCredentials:
        """The caller's credentials or the operator's, whichever the candidate runs on, and no other."""
        if isinstance(candidate.credentials, BedrockCredentials):
            return candidate.credentials
        if self._settings.managed is None:
            raise ProviderError(AttemptFailure.CREDENTIALS_REFUSED)
        with guard:
            return await self._settings.managed.get()

    async def _send(
        self, model: str, body: bytes, credentials: BedrockCredentials, guard: StallGuard, on_sent: OnSent
    ) -> http.Response:
        """The response, whose body is not read yet."""
        region = credentials.region or self._settings.regions[0]
        url = converse_url(self._endpoints[region], model)
        headers = signed_headers(credentials, region, url, body, _HEADERS)
        try:
            with guard:
                lines = http.header_lines(headers | _UNSIGNED_HEADERS)
                response = await self._http.post(http.Target.of(url), lines, body, on_sent)
                if response.status != OK:
                    raise _refused(response, await response.read_error(), _secrets(credentials))
        except http.NETWORK_ERRORS:
            raise ProviderError(AttemptFailure.UNREACHABLE) from None
        check_encoding(response)
        return response

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._leftovers.aclose()
        await self._http.aclose()


def _reasoning(known: ModelTraits) -> Reasoning:
    # Bedrock's models come from many makers: which way one takes has to be known.
    return known.reasoning or Reasoning.NONE


def _secrets(credentials: BedrockCredentials) -> Sequence[Secret]:
    return (credentials.secret_access_key, credentials.session_token, credentials.access_key_id)


def _refused(response: http.Response, body: bytes, secrets: Sequence[Secret]) -> ProviderError:
    """What an HTTP status other than 200 means. The exception's name says more than the status where it is known."""
    headers = response.headers
    said = error_of(body)
    name = headers.get("x-amzn-errortype") or said.type or ""
    failure = failure_of_exception(name) or failure_of_status(response.status)
    request_id = request_id_of(headers, REQUEST_ID_HEADER, secrets)
    return refused(failure, said.message or "", headers, request_id, secrets)
