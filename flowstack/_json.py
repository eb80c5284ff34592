"""JSON as documents and tool results need it: datetimes as text, Decimals as numbers, nothing silently lost."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

_MARK: Final = "\u0000decimal:"
_MARKED: Final = re.compile(r'"\\u0000decimal:([^"]*)"')


class NotJsonError(ValueError):
    """A value that JSON has no form for. The text says where and what it is, never its content."""


def encode(value: Any) -> str:
    """JSON text of a value, without needless spaces.

    datetime, date and time become ISO 8601 text, a Decimal the number that it is, digit by digit; dataclasses and
    pydantic models become objects, enums their values, UUIDs text.

    Raises:
        NotJsonError: anything else, NaN, infinity, or a value within itself.
    """
    decimals = 0

    def plain(one: Any) -> Any:
        nonlocal decimals
        decimals += isinstance(one, Decimal)
        return _plain(one)

    try:
        text = json.dumps(value, default=plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii():
            text.encode()
    except NotJsonError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJsonError(_why(error)) from None
    if "\\u0000decimal:" not in text:
        return text
    # json writes floats only; a Decimal goes through as marked text. No other text may pass for one.
    if len(_MARKED.findall(text)) != decimals:
        raise NotJsonError("its text holds the character U+0000")
    return _MARKED.sub(r"\1", text)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError) or "Circular" in str(error):
        return "it holds itself, or is nested too deep"
    if isinstance(error, TypeError):
        return "its keys have to be text, numbers, booleans or None"
    if isinstance(error, UnicodeEncodeError):
        return "half a surrogate pair is no text"
    if "digits" in str(error):
        return "an integer in it has more digits than Python writes"
    return "NaN and infinity are no JSON numbers"


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise NotJsonError("NaN and infinity are no JSON numbers")
        return f"{_MARK}{value:f}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotJsonError(f"{type(value).__name__} has no form in JSON; make it text, a number, a list or a dict")
