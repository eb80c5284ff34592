"""Values as text that sorts as they do.

A store compares a document's values as plain text, byte by byte in UTF-8, which SQLite and PostgreSQL do alike. So what
a filter means is decided here, once, and no store ever meets a number: not one of them has numbers as long as JSON's.

    code        value
    (none)      nothing is there
    0           null
    1…          a number: its sign, exponent and digits, in decimal, exact at any length
    2…          a text: itself
    30, 31      false, true
    {…          an object or an array: its projection, as JSON

Codes of one kind sort as their values; kinds sort in this order.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from services.vault.domain.json_text import JsonError, Number, ValueOfJson

NULL: Final = "0"
NUMBER: Final = "1"
TEXT: Final = "2"
BOOLEAN: Final = "3"
CONTAINER: Final = "4"
"""The lower bound of what objects and arrays have for a code, and what they all sort as."""

EXPONENT_DIGITS_MAX: Final = 9

_ARRAY: Final = "%a"
"""The member that tells an array from an object; no name is encoded like that."""
_COMPLEMENT: Final = str.maketrans("0123456789", "9876543210")
_AFTER_DIGITS: Final = "~"
_SPECIAL: Final = re.compile('[%"\\\\\x00-\x1f]')
_NUMBER: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def code_of(value: ValueOfJson) -> str:
    """The code of a value.

    Raises:
        JsonError: a number's exponent is too large.
    """
    projected = project(value)
    return projected if isinstance(projected, str) else _dump(projected)


def body_of(document: dict[str, ValueOfJson]) -> str:
    """A document's projection, as JSON: every scalar is its code, and an array is an object of its positions.

    Equal values have equal projections: names are in order, and 1.0 is 1.

    Raises:
        JsonError: a number's exponent is too large.
    """
    return _dump(project(document))


def project(value: ValueOfJson) -> Any:
    """A value with codes in place of scalars, and objects in place of arrays."""
    if isinstance(value, Number):
        return NUMBER + _number(value)
    if isinstance(value, str):
        return TEXT + value
    if isinstance(value, dict):
        return {encode_name(name): project(one) for name, one in value.items()}
    if isinstance(value, list):
        projected = {str(position): project(one) for position, one in enumerate(value)}
        projected[_ARRAY] = ""
        return projected
    if value is None:
        return NULL
    return BOOLEAN + ("1" if value else "0")


def encode_name(name: str) -> str:
    """A member's name, without what JSON would have to escape: SQLite compares names as they are written."""
    if not name:
        return "%"
    return _SPECIAL.sub(lambda match: f"%{ord(match[0]):02X}", name)


def encode_path(path: str) -> tuple[str, ...]:
    """The encoded names and positions of a dotted path."""
    return tuple(encode_name(name) for name in path.split("."))


def next_kind(code: str) -> str:
    """The lower bound of what sorts after every code of the kind of `code`."""
    return chr(ord(code[0]) + 1)


def _dump(projected: Any) -> str:
    return json.dumps(projected, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _number(text: str) -> str:
    if text.isdigit() and text != "0":
        # What most numbers are. JSON has no leading zeros, and its digits are ASCII.
        size = str(len(text))
        return f"21{len(size)}{size}{text.rstrip('0')}"
    match = _NUMBER.fullmatch(text)
    assert match is not None, "the parser has let nothing else through"
    sign, whole, fraction, exponent_text = match[1], match[2], match[3] or "", match[4] or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "1"
    # The value is 0.digits times ten to this.
    exponent = len(digits) - len(fraction) + _exponent(exponent_text)
    if len(str(abs(exponent))) > EXPONENT_DIGITS_MAX:
        raise _exponent_too_large()
    digits = digits.rstrip("0")
    code = _exponent_code(exponent)
    if sign:
        # What is larger without its sign comes first; what is longer comes before what it goes on from.
        return "0" + (code + digits).translate(_COMPLEMENT) + _AFTER_DIGITS
    return "2" + code + digits


def _exponent(text: str) -> int:
    if len(text.lstrip("+-").lstrip("0")) > EXPONENT_DIGITS_MAX:
        raise _exponent_too_large()
    return int(text)


def _exponent_code(exponent: int) -> str:
    """Digits that sort as exponents do: the sign, how many digits there are, the digits."""
    size = str(abs(exponent))
    code = f"{len(size)}{size}"
    return f"1{code}" if exponent >= 0 else f"0{code.translate(_COMPLEMENT)}"


def _exponent_too_large() -> JsonError:
    return JsonError(f"must not hold a number whose exponent has more than {EXPONENT_DIGITS_MAX} digits")
