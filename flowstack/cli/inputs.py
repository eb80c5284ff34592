"""Text from arguments, standard input and files: UTF-8, of a bounded size, and a sentence where it is neither."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowstack._connection import MESSAGE_BYTES_MAX
from flowstack._errors import ConfigurationError

SECRET_BYTES_MAX: Final = 64 * 1024


def arguments_from(given: Sequence[str]) -> list[str]:
    """The arguments as text, also where the terminal's encoding is not theirs.

    Raises:
        ConfigurationError: one is no UTF-8.
    """
    return [text_of(argument, f"Argument {number}") for number, argument in enumerate(given, 1)]


def text_of(given: str, name: str) -> str:
    """What the operating system handed over, as text: Python keeps bytes that it could not read as surrogates.

    Args:
        given: an argument, or a variable's value.
        name: how a message calls it.

    Raises:
        ConfigurationError: it is no UTF-8.
    """
    try:
        given.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(given).decode()
        except UnicodeError:
            raise ConfigurationError(f"{name} is no text in UTF-8. Write it in UTF-8.") from None
    return given


def standard_input() -> str:
    """All of standard input.

    Raises:
        ConfigurationError: it cannot be read, is no UTF-8, or is larger than a request may be.
    """
    if sys.stdin is None:
        raise ConfigurationError("Standard input is closed. Give the text as the argument in place of -.")
    try:
        data = sys.stdin.buffer.read(MESSAGE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"Standard input cannot be read: {error.strerror}. Pipe a text into it.") from None
    if len(data) > MESSAGE_BYTES_MAX:
        raise ConfigurationError(f"Standard input is larger than {MESSAGE_BYTES_MAX:,} bytes. Send less.")
    return _decoded(data, "Standard input")


def secret_in(path: Path, name: str) -> str:
    """The secret that a file holds.

    Args:
        path: the file.
        name: how a message calls the setting that named it.

    Raises:
        ConfigurationError: it cannot be read, or holds no text of a secret's size; nothing of what it holds is told.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "that is no path"
        raise ConfigurationError(f"{name} cannot be read: {path}: {why}. Name the file with the secret.") from None
    if len(data) > SECRET_BYTES_MAX:
        raise ConfigurationError(f"{name} names a file that is too large to hold a secret. Name another.")
    return _decoded(data, f"What {name} names").strip()


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is no text in UTF-8. Convert it to UTF-8.") from None
