"""JSON as the vault takes it: strict, and with numbers that compare exactly. Pure."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

DEPTH_MAX: Final = 64


class JsonError(Exception):
    """The text is not taken. The message ends a sentence that begins with the field's name."""


def parse_object(text: str) -> dict[str, Any]:
    """The object of a JSON text; its numbers are Decimals.

    Raises:
        JsonError: it is no JSON object, repeats a name within an object, nests too deep, or holds U+0000 or half of a
            surrogate pair.
    """
    try:
        value = json.loads(
            text, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise JsonError(f"must be JSON: it is none at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonError(f"must not nest deeper than {DEPTH_MAX}") from None
    if not isinstance(value, dict):
        raise JsonError("must be a JSON object")
    _check(value, 1)
    return value


def _no_constant(_: str) -> Any:
    raise JsonError("must be JSON, which has neither NaN nor Infinity")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("must not repeat a name within an object")
    return found


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        _check_characters(value)
    elif isinstance(value, dict | list):
        if depth > DEPTH_MAX:
            raise JsonError(f"must not nest deeper than {DEPTH_MAX}")
        for one in value:
            _check(one if isinstance(value, list) else value[one], depth + 1)
            if isinstance(value, dict):
                _check_characters(one)


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise JsonError("must not hold the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JsonError("must not hold half of a surrogate pair: \\ud800 to \\udfff stand in pairs only") from None
