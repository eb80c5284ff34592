"""A value that cannot be printed."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

REDACTED: Final = "<secret>"


class Secret:
    """Holds a key or token so that no log, error, format string or pickle can carry it by accident.

    Only `reveal()` gives the value; it is called where the value goes on the wire or into a digest, nowhere
    else. Equality takes the same time whatever the values are.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return REDACTED

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")
