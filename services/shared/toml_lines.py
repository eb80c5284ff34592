"""Where in a TOML file something stands: tomllib tells that of what it cannot parse, and of nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any


def line_of(text: str, place: str) -> int | None:
    """The line, from 1, of the statement that says what `place` is about; None where no part of it is in the file.

    Statements are told apart by parsing ever longer beginnings of the file, so that there is one reading of TOML, not
    two. That takes quadratic time, and is for errors only.

    Args:
        text: a file that parses.
        place: begins with the keys' names, joined by dots: `providers.local.base_url`, or a sentence after that. The
            longest beginning that the file has counts, so that what is missing is told at its table.
    """
    best, found = "", None
    for line, known in _statements(text):
        for path in known:
            if len(path) > len(best) and place.startswith(path) and not _goes_on(place[len(path) :]):
                best, found = path, line
    return found


def _goes_on(rest: str) -> bool:
    """Whether a name that ends here in one reading is longer in the other: `p` is no beginning of `providers`."""
    return bool(rest) and (rest[0].isalnum() or rest[0] in "_-")


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each statement's first line, and the paths that it brings."""
    lines = text.splitlines(keepends=True)
    first, known = 1, set[str]()
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            # In the middle of a statement of several lines.
            continue
        paths = list(_paths(document, ""))
        yield first, [path for path in paths if path not in known]
        known.update(paths)
        first = count + 1


def _paths(table: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in table.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")
