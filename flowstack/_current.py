"""The agent that helpers speak of: the one whose tool is running here, else the one made last."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from flowstack._errors import ConfigurationError

if TYPE_CHECKING:
    from flowstack._core import Core

_running: Final[ContextVar[Core | None]] = ContextVar("flowstack_running_tool_of", default=None)
_made_last: list[weakref.ref[Core]] = []


def made(core: Core) -> None:
    """Notes that an agent was made."""
    _made_last[:] = [weakref.ref(core)]


def in_tool() -> bool:
    """True while a tool runs here."""
    return _running.get() is not None


@contextmanager
def running_tool_of(core: Core) -> Iterator[None]:
    """While a tool of this agent runs."""
    token = _running.set(core)
    try:
        yield
    finally:
        _running.reset(token)


def current() -> Core:
    """The agent that is meant where none is named.

    Raises:
        ConfigurationError: there is none.
    """
    core = _running.get() or (_made_last[0]() if _made_last else None)
    if core is None:
        raise ConfigurationError("There is no agent to speak of. Make an Agent first, or name one with agent=.")
    return core
