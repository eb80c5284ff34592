"""The port that every provider implements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from services.router.domain.events import ProviderEvent
from services.router.domain.outcome import AttemptFailure
from services.router.domain.request import Candidate, Prompt


class ProviderError(Exception):
    """An attempt failed. `message` is for the client: filtered, bounded, and empty where the provider said nothing."""

    def __init__(
        self, failure: AttemptFailure, message: str = "", *, retry_after: timedelta | None = None, request_id: str = ""
    ) -> None:
        super().__init__(failure.value)
        self.failure = failure
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id
        """The provider's id of the call, where it gave one."""


class FormatError(ValueError):
    """The provider sent what its published format does not allow. The text is for the client."""


class ProviderStream(Protocol):
    """One running call."""

    @property
    def request_id(self) -> str:
        """The provider's id of the call; empty when it gave none."""
        ...

    async def read(self) -> Sequence[ProviderEvent]:
        """What arrived next, in order, at least one event; the last event of the last batch is a Finish.

        A batch and not one event, because a network read brings several deltas when the reader is behind, and each
        hand-over costs a turn of the event loop. Not to be called again after the Finish.

        Raises:
            ProviderError: the call failed; an end without the provider's own end mark is TRUNCATED.
        """
        ...


OnSent = Callable[[], None]
"""Told right before the first byte of a request goes out, be it written or only handed to the connection: from then on
the provider may have read it, and may bill for it. Not told while credentials are found and a connection is made."""


class Provider(Protocol):
    """A provider of completions."""

    def check(self, candidate: Candidate, prompt: Prompt, /) -> None:
        """Refuses what this provider cannot do, before anything is reserved. Nothing is dropped in silence.

        Raises:
            FlowStackError: INVALID_REQUEST, naming the field.
        """
        ...

    def open(
        self, candidate: Candidate, prompt: Prompt, on_sent: OnSent, /
    ) -> AbstractAsyncContextManager[ProviderStream]:
        """Calls the provider. Leaving the context closes the connection of a call that has not ended.

        Entering it tells `on_sent` when the request goes out, and waits for the head of the provider's answer.

        Raises:
            ProviderError: the provider could not be reached or refused the call.
        """
        ...

    async def aclose(self) -> None:
        """Closes the provider's connections."""
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a provider is waited for, in seconds."""

    connect_s: float = 10.0
    stall_s: float = 60.0
    """Without an event: from the call to its first one, and between any two."""


DEFAULT_TIMEOUTS: Final = Timeouts()
