"""Standard output and standard error, as whatever writes to them here may take them to be."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from flowstack._errors import ConfigurationError


class OutputClosedError(Exception):
    """Whoever read standard output has read enough."""


@contextlib.contextmanager
def watched_output() -> Iterator[None]:
    """Makes standard output fail in the command line's own words, whoever writes: commands, rich or typer.

    Within the block writing raises OutputClosedError where the reader has gone, and ConfigurationError where standard
    output cannot be written. Left to themselves, rich ends the process at the one and typer shows a stack trace at
    the other.
    """
    if sys.stdout is None:
        yield
        return
    watched: Any = _Watched(sys.stdout)
    with contextlib.redirect_stdout(watched):
        yield


class _Watched:
    """A stream that turns what the operating system says about it into errors of the command line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, content: Any) -> Any:
        with _told():
            return self._stream.write(content)

    def flush(self) -> None:
        with _told():
            self._stream.flush()

    @property
    def buffer(self) -> _Watched:
        # typer writes there itself where the stream's encoding is ASCII.
        return _Watched(self._stream.buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise OutputClosedError from None
    except OSError as error:
        raise ConfigurationError(
            f"Standard output cannot be written: {error.strerror}. Send it somewhere else."
        ) from None


def use_any_encoding() -> None:
    """Makes the standard streams write what their encoding lacks as escapes rather than fail at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def let_go() -> None:
    """Lets go of what a broken standard output still holds: Python would try again at its end, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
