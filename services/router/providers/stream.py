"""One running call, whatever the format of its answer: its waits, its bounds, and how its failures are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from services.router.domain.coalesce import size_bytes
from services.router.domain.events import ProviderEvent
from services.router.domain.outcome import AttemptFailure
from services.router.providers import http
from services.router.providers.port import FormatError, ProviderError
from services.router.providers.redaction import filtered
from services.router.providers.stall import StallGuard
from services.shared.secret import Secret

OUTPUT_CHARACTERS_MAX: Final = 16 * 1024 * 1024
"""The most text of one answer. A bound on memory: the longest answer of any model is a twentieth of it."""

LINGER_SECONDS: Final = 1.0


class Wire(Protocol):
    """One answer in a provider's format, as it is taken apart."""

    @property
    def finished(self) -> bool:
        """True once the provider said why the answer ends. Without it an end is a cut."""
        ...

    @property
    def ended(self) -> bool:
        """True once the format's last mark was read, so that nothing more is waited for."""
        ...

    def take(self, chunk: bytes, events: list[ProviderEvent]) -> bool:
        """Takes `chunk` in and appends what it says to `events`; answers whether it completed any event of the wire.

        What came before a fault is in `events` when the fault is raised.

        Raises:
            ProviderError: the provider reports a failure; its message is not filtered yet.
            FormatError, msgspec.DecodeError, ValueError, RecursionError: the format is broken.
        """
        ...

    def finish(self, secrets: Sequence[Secret]) -> Sequence[ProviderEvent]:
        """The tool calls and the Finish, which come last.

        Raises:
            ProviderError: MALFORMED, what was put together is not whole.
        """
        ...


def check_encoding(response: http.Response) -> None:
    """Refuses an answer that could not be read as it comes.

    Raises:
        ProviderError: MALFORMED, it is compressed or the like, though the request says that it must not be.
    """
    if response.is_encoded:
        response.close()
        raise ProviderError(AttemptFailure.MALFORMED, "The provider sent its answer encoded, which was not asked for.")


class CallStream:
    """One call behind the port.

    Args:
        body: The answer's bytes.
        wire: What takes them apart.
        guard: Ends a wait that takes too long.
        request_id: The provider's id of the call; empty where it gave none.
        secrets: The keys of the call, which no message may hold.
    """

    def __init__(
        self, body: http.Response, wire: Wire, guard: StallGuard, request_id: str, secrets: Sequence[Secret]
    ) -> None:
        self.request_id = request_id
        self._body = body
        self._wire = wire
        self._guard = guard
        self._secrets = secrets
        self._characters_left = OUTPUT_CHARACTERS_MAX
        self._broken: ProviderError | None = None

    @property
    def ended(self) -> bool:
        """True once the answer was read to its end mark, so that its connection can be used again."""
        return self._wire.ended

    async def read(self) -> Sequence[ProviderEvent]:
        """The next events; see the port."""
        wire = self._wire
        # Only the time that is spent waiting here counts: a slow client is no silent provider.
        self._guard.progress()
        while self._broken is None and not wire.ended:
            chunk = await self._next_chunk()
            if not chunk:
                break
            events: list[ProviderEvent] = []
            progressed = self._take(chunk, events)
            if events:
                return events
            if progressed:
                self._guard.progress()
        if self._broken is not None:
            raise self._broken
        if not wire.finished:
            # Neither an SDK nor HTTP tells a complete answer from one that was cut; the finish reason does.
            raise self._error(AttemptFailure.TRUNCATED, "The provider's stream ended without its end mark.")
        try:
            return wire.finish(self._secrets)
        except ProviderError as error:
            raise self._error(error.failure, error.message) from None

    async def _next_chunk(self) -> bytes:
        """The next bytes; empty at the end. A connection that breaks after the finish reason is an end as well."""
        try:
            with self._guard:
                return await self._body.read()
        except http.NETWORK_ERRORS:
            if self._wire.finished:
                return b""
            raise self._error(AttemptFailure.TRUNCATED, "The provider's stream broke off.") from None
        except ProviderError as error:
            raise self._error(error.failure, error.message) from None

    def _take(self, chunk: bytes, events: list[ProviderEvent]) -> bool:
        """Takes `chunk` in. What came before a fault is handed on first; the next read tells the fault."""
        progressed = True
        try:
            progressed = self._wire.take(chunk, events)
        except ProviderError as error:
            self._broken = self._error(error.failure, error.message)
        except FormatError as error:
            self._broken = self._error(AttemptFailure.MALFORMED, str(error))
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._broken = self._error(AttemptFailure.MALFORMED, "The provider sent what its format forbids.")
        self._characters_left -= size_bytes(events)
        if self._characters_left < 0:
            events.clear()
            self._broken = self._error(AttemptFailure.MALFORMED, "The provider sent an answer over the limit.")
        return progressed

    def _error(self, failure: AttemptFailure, message: str) -> ProviderError:
        return ProviderError(failure, filtered(message, self._secrets), request_id=self.request_id)


class Leftovers:
    """Reads the last bytes of answers that have ended, in the background, so that their connections are used again."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def leave(self, body: http.Response, *, ended: bool) -> None:
        """Gives the connection back, or closes it where the answer has not ended."""
        if body.at_end or not ended:
            body.close()
            return
        task = asyncio.create_task(_read_out(body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Waits until every answer was read out, for LINGER_SECONDS at most."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))


async def _read_out(body: http.Response) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while await body.read():
                pass
    except (TimeoutError, *http.NETWORK_ERRORS):
        # The answer has been read to its end mark; a connection that is not clean is only not used again.
        pass
    finally:
        body.close()
