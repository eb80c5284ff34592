"""Identifiers, made from injected randomness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Randomness = Callable[[int], bytes]
"""Gives that many unpredictable bytes; `secrets.token_bytes` outside of tests."""

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no letter that is taken for a digit."""

_ID_BYTES: Final = 15
"""120 bits: two equal ids are not expected before 2^60 of them."""


def base32(value: int, length: int) -> str:
    """The lowest `5 * length` bits of `value`, most significant digit first."""
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(5 * (length - 1), -1, -5))


def new_id(prefix: str, randomness: Randomness) -> str:
    """A new id, such as `acct_` and 24 digits and letters."""
    return prefix + base32(int.from_bytes(randomness(_ID_BYTES)), _ID_BYTES * 8 // 5)
