"""OpenAI, and every server that speaks its chat completions: the official SDK's client, read as a raw stream."""

from __future__ import annotations

import asyncio
import email.utils
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import httpx2
import msgspec
import openai

from services.router.domain.events import Finish, ProviderEvent, ReasoningDelta, TextDelta, ToolCall
from services.router.domain.outcome import AttemptFailure, FinishReason
from services.router.domain.request import Candidate, OpenAiCredentials, Prompt
from services.router.providers import http
from services.router.providers.openai_wire import (
    FINISH_REASONS,
    Chunk,
    WireUsage,
    decode_chunk,
    encode_request,
    error_of,
    usage_of,
)
from services.router.providers.port import DEFAULT_TIMEOUTS, ProviderError, Timeouts
from services.router.providers.redaction import filtered, identifier
from services.router.providers.sse import SseEvent, SseOverflowError, SseParser
from services.router.providers.stall import StallGuard
from services.router.providers.tool_calls import ToolCallAssembly
from services.shared.secret import Secret

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
RETRY_AFTER_SECONDS_MAX: Final = 3600.0
LINGER_SECONDS: Final = 1.0
REQUEST_ID_CHARACTERS_MAX: Final = 256
FINISH_WORD_CHARACTERS_MAX: Final = 64

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
        self._lingering: set[asyncio.Task[None]] = set()

    def check(self, _candidate: Candidate, _prompt: Prompt) -> None:
        """Refuses nothing: this format can say all that a Prompt can."""

    @asynccontextmanager
    async def open(self, candidate: Candidate, prompt: Prompt) -> AsyncIterator[OpenAiStream]:
        """Calls the server; see the port."""
        credentials = candidate.credentials if isinstance(candidate.credentials, OpenAiCredentials) else None
        credentials = credentials or self._settings.managed
        secrets = (credentials.api_key,) if credentials else ()
        body = encode_request(
            candidate.model,
            prompt,
            max_tokens_field=self._settings.max_tokens_field,
            include_usage=self._settings.include_usage,
        )
        guard = StallGuard(self._settings.timeouts.stall_s)
        try:
            response = await self._send(body, _headers(credentials), secrets, guard)
            stream = OpenAiStream(response, guard, secrets)
            try:
                yield stream
            finally:
                if stream.ended:
                    self._linger(response)
                else:
                    await response.aclose()
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

    def _linger(self, response: httpx2.Response) -> None:
        """Reads the body's last bytes in the background, so that its connection can be used again."""
        task = asyncio.create_task(_read_out(response))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._lingering:
            await asyncio.wait(self._lingering)
        await self._client.close()


async def _read_out(response: httpx2.Response) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while await response.extensions[http.BODY].read():
                pass
    except (TimeoutError, *http.NETWORK_ERRORS):
        # The answer has been read to its end mark; a connection that is not clean is only not used again.
        pass
    finally:
        await response.aclose()


class OpenAiStream:
    """One streamed chat completion."""

    def __init__(self, response: httpx2.Response, guard: StallGuard, secrets: Sequence[Secret]) -> None:
        self.request_id = _request_id(response.headers, secrets)
        self.ended = False
        """True once the server's end mark was read."""
        self._body: http.Body = response.extensions[http.BODY]
        self._guard = guard
        self._secrets = secrets
        self._parser = SseParser()
        self._calls = ToolCallAssembly()
        self._tool_calls: list[ToolCall] = []
        self._broken: ProviderError | None = None
        self._finish_reason: str | None = None
        self._usage: WireUsage | None = None

    async def read(self) -> Sequence[ProviderEvent]:
        """The next events; see the port."""
        # Only the time that is spent waiting here counts: a slow client is no silent provider.
        self._guard.progress()
        while self._broken is None and not self.ended:
            chunk = await self._next_chunk()
            if not chunk:
                break
            raw_events = self._parsed(chunk)
            events = self._decoded(raw_events)
            if events:
                return events
            if raw_events:
                self._guard.progress()
        if self._broken is not None:
            raise self._broken
        return (*self._finished_calls(), self._finish())

    async def _next_chunk(self) -> bytes:
        """The next bytes; empty at the end. A connection that breaks after the finish reason is an end as well."""
        try:
            with self._guard:
                return await self._body.read()
        except http.NETWORK_ERRORS:
            if self._finish_reason is not None:
                return b""
            raise self._error(AttemptFailure.TRUNCATED, "The provider's stream broke off.") from None

    def _parsed(self, chunk: bytes) -> list[SseEvent]:
        try:
            return self._parser.feed(chunk)
        except SseOverflowError:
            self._broken = self._error(AttemptFailure.MALFORMED, "The provider sent an event over the limit.")
            return []

    def _decoded(self, raw_events: Sequence[SseEvent]) -> list[ProviderEvent]:
        """What the events say, up to one that breaks the stream: what came before it is handed on first."""
        events: list[ProviderEvent] = []
        try:
            for raw in raw_events:
                events += self._events_of(raw.data)
        except ProviderError as error:
            self._broken = error
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._broken = self._error(AttemptFailure.MALFORMED, "The provider sent what its format forbids.")
        return events

    def _events_of(self, data: bytes) -> list[ProviderEvent]:
        if data == b"[DONE]":
            self.ended = True
            return []
        chunk = decode_chunk(data)
        if chunk.error is not None:
            failure, message = error_of(chunk.error)
            raise self._error(failure, message)
        if chunk.usage is not None:
            self._usage = chunk.usage
        return self._output_of(chunk)

    def _output_of(self, chunk: Chunk) -> list[ProviderEvent]:
        events: list[ProviderEvent] = []
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue
            if choice.finish_reason is not None:
                self._finish_reason = choice.finish_reason
            delta = choice.delta
            if delta is None:
                continue
            if reasoning := delta.reasoning_content or delta.reasoning:
                events.append(ReasoningDelta(reasoning))
            # A refusal is the model's answer in another field.
            if text := delta.content or delta.refusal:
                events.append(TextDelta(text))
            for call in delta.tool_calls or ():
                function = call.function
                self._calls.add(
                    call.index, call.id, function.name if function else None, function.arguments if function else None
                )
        return events

    def _finished_calls(self) -> list[ToolCall]:
        if self._finish_reason is None:
            # Neither the SDK nor HTTP tells a complete answer from one that was cut; the finish reason does.
            raise self._error(AttemptFailure.TRUNCATED, "The provider's stream ended without its end mark.")
        self._tool_calls = self._calls.finished(cut=self._finish_reason == "length")
        return self._tool_calls

    def _finish(self) -> Finish:
        word = self._finish_reason or ""
        reason = FINISH_REASONS.get(word, FinishReason.STOP)
        if self._tool_calls and reason is FinishReason.STOP:
            # A forced tool ends with "stop".
            reason = FinishReason.TOOL_CALLS
        return Finish(reason, identifier(word, FINISH_WORD_CHARACTERS_MAX, self._secrets), usage_of(self._usage))

    def _error(self, failure: AttemptFailure, message: str) -> ProviderError:
        return ProviderError(failure, filtered(message, self._secrets), request_id=self.request_id)


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
    failure, retry_after = _failure_of(error.status_code), None
    if failure in (AttemptFailure.RATE_LIMITED, AttemptFailure.PROVIDER_ERROR):
        retry_after = _retry_after(headers)
    return ProviderError(
        failure, filtered(message, secrets), retry_after=retry_after, request_id=_request_id(headers, secrets)
    )


def _request_id(headers: httpx2.Headers, secrets: Sequence[Secret]) -> str:
    return identifier(headers.get("x-request-id", ""), REQUEST_ID_CHARACTERS_MAX, secrets)


def _failure_of(status: int) -> AttemptFailure:
    match status:
        case 401 | 403:
            return AttemptFailure.CREDENTIALS_REFUSED
        case 429:
            return AttemptFailure.RATE_LIMITED
        case 408 | 409:
            return AttemptFailure.PROVIDER_ERROR
        case _ if 400 <= status < 500:
            return AttemptFailure.REQUEST_REJECTED
        case _:
            return AttemptFailure.PROVIDER_ERROR


def _retry_after(headers: httpx2.Headers) -> timedelta | None:
    """How long to wait, from `retry-after-ms` or Retry-After (RFC 9110, section 10.2.3: seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        else:
            seconds = _seconds(headers.get("retry-after", ""))
        return timedelta(seconds=min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX))
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        then = email.utils.parsedate_to_datetime(text)
        return (then - datetime.now(UTC)).total_seconds()
