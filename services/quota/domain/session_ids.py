"""Session ids carry the time at which they were made: a UUIDv7 in hex or a ULID, behind `ses_`."""

from __future__ import annotations

import re
from typing import Final

_UUID7: Final = re.compile(r"ses_([0-9a-f]{12})7[0-9a-f]{3}[89ab][0-9a-f]{15}", re.ASCII)
_ULID: Final = re.compile(r"ses_([0-7][0-9A-HJKMNP-TV-Z]{9})[0-9A-HJKMNP-TV-Z]{16}", re.ASCII)
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def made_us(session_id: str) -> int | None:
    """When the id was made, in microseconds since 1970, to the millisecond; None where it is no session id.

    Both forms begin with a 48-bit count of milliseconds (RFC 9562 section 5.7, the ULID specification).
    """
    match = _UUID7.fullmatch(session_id)
    if match:
        return int(match.group(1), 16) * 1000
    match = _ULID.fullmatch(session_id)
    if not match:
        return None
    milliseconds = 0
    for letter in match.group(1):
        milliseconds = milliseconds * 32 + _CROCKFORD.index(letter)
    return milliseconds * 1000
