"""Session ids: `ses_` and a UUIDv7 in hex, so that they sort by time."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "ses_"
RANDOM_BITS: Final = 74
"""What a UUIDv7 holds beside its time, version and variant (RFC 9562, section 5.7)."""

_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62
_RAND_B_BITS: Final = 62


def session_id(now_us: int, random_bits: int) -> str:
    """The id of a session that begins at `now_us` (microseconds since 1970).

    Args:
        now_us: Wall time; its milliseconds, below 2^48, lead the id.
        random_bits: A uniformly random integer of RANDOM_BITS bits.
    """
    milliseconds = now_us // 1000
    rand_a = random_bits >> _RAND_B_BITS
    rand_b = random_bits & ((1 << _RAND_B_BITS) - 1)
    value = milliseconds << 80 | _VERSION | rand_a << 64 | _VARIANT | rand_b
    return f"{PREFIX}{value:032x}"
