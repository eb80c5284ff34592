"""Identifiers, in the form that the real services give them."""

from __future__ import annotations

import secrets
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A new id, such as `acct_` and 24 digits and letters."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def new_secret() -> str:
    """A new API key."""
    return f"fs_{secrets.token_urlsafe(32)}"


def new_session_id(now_us: int) -> str:
    """`ses_` and a UUIDv7 in hex (RFC 9562, section 5.7), so that ids sort by time."""
    random = secrets.randbits(74)
    rand_a, rand_b = random >> 62, random & ((1 << 62) - 1)
    value = now_us // 1000 << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"ses_{value:032x}"
