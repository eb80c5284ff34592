"""JSON text as the vault takes it: strict, and with every number as it was written."""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

DEPTH_MAX: Final = 64
"""Objects and arrays within one another, the outermost counted."""

ValueOfJson: TypeAlias = "dict[str, ValueOfJson] | list[ValueOfJson] | str | Number | bool | None"


class Number(str):
    """A number's text. It stays text, because no number of Python's holds all that JSON can say."""

    __slots__ = ()


class JsonError(Exception):
    """The text is not taken. The message ends a sentence that begins with the field's name; it quotes nothing."""


def parse(text: str) -> ValueOfJson:
    """The value of a JSON text.

    Raises:
        JsonError: it is no JSON by RFC 8259, repeats a name within an object, nests too deep, or holds the character
            U+0000 or half of a surrogate pair.
    """
    try:
        value: ValueOfJson = json.loads(
            text,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise JsonError(f"must be JSON: it is none at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def _no_constant(_: str) -> Any:
    raise JsonError("must be JSON, which has neither NaN nor Infinity")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("must not repeat a name within an object")
    return found


def _check(value: ValueOfJson) -> None:
    """Checks depth and characters, level by level: a text may nest deeper than Python's calls."""
    level: list[Any] = [value]
    depth = 0
    while level:
        inner: list[Any] = []
        is_nested = False
        for one in level:
            if isinstance(one, dict):
                is_nested = True
                for name in one:
                    _check_characters(name)
                inner.extend(one.values())
            elif isinstance(one, list):
                is_nested = True
                inner.extend(one)
            elif isinstance(one, str):
                _check_characters(one)
        depth += is_nested
        if depth > DEPTH_MAX:
            raise _too_deep()
        level = inner


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise JsonError("must not hold the character U+0000")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JsonError("must not hold half of a surrogate pair: \\ud800 to \\udfff stand in pairs only") from None


def _too_deep() -> JsonError:
    return JsonError(f"must not nest deeper than {DEPTH_MAX}")
