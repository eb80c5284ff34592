"""The agent that helpers speak of: the one whose tool is running here, else the one made last that is not closed."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from flowstack._client import Client
from flowstack._errors import ConfigurationError


class Owner(Protocol):
    """What helpers need of an agent."""

    @property
    def closed(self) -> bool:
        """True after its end."""

    def blocking(self) -> Client:
        """A client for blocking calls."""


_running: Final[ContextVar[Owner | None]] = ContextVar("flowstack_running_tool_of", default=None)
_made: Final[weakref.WeakValueDictionary[int, Owner]] = weakref.WeakValueDictionary()
_numbers: Final = itertools.count()


def made(owner: Owner) -> None:
    """Notes that an agent was made."""
    _made[next(_numbers)] = owner


def in_tool() -> bool:
    """True while a tool runs here."""
    return _running.get() is not None


@contextmanager
def running_tool_of(owner: Owner) -> Iterator[None]:
    """While a tool of this agent runs."""
    token = _running.set(owner)
    try:
        yield
    finally:
        _running.reset(token)


def current() -> Owner:
    """The agent that is meant where none is named.

    Raises:
        ConfigurationError: there is none.
    """
    owner = _running.get()
    if owner is None:
        living = [one for one in _made.values() if not one.closed]
        if living:
            return living[-1]
        raise ConfigurationError("There is no agent to speak of. Make an Agent first, or name one with agent=.")
    return owner
