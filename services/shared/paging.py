"""Page tokens: opaque, and good for the call that they were answered to alone."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar, cast

from services.shared.errors import FlowStackError, invalid_request
from services.shared.secret import Secret

PAGE_SIZE_DEFAULT: Final = 50
_TAG_BYTES: Final = 16

PositionT = TypeVar("PositionT", bound=tuple[Any, ...])


class PageTokens(Generic[PositionT]):
    """Makes and reads page tokens.

    A token is a position, a tuple of numbers and texts, and a keyed digest of it and of the call's scope: method,
    account and filters. So another call's token is told from this one's without keeping either. It is 4/3 times as
    long as the position's texts and little more, whatever characters are in them.
    """

    def __init__(self, key: Secret) -> None:
        self._key = hashlib.sha256(b"page tokens 2" + key.reveal().encode()).digest()

    def seal(self, scope: Sequence[str], position: PositionT) -> str:
        """The token for the page after `position`."""
        body = _packed(position).encode()
        return base64.urlsafe_b64encode(self._tag(scope, body) + body).decode().rstrip("=")

    def open(self, scope: Sequence[str], token: str) -> PositionT | None:
        """The position that `token` goes on after; None for an empty token, the first page.

        Raises:
            FlowStackError: INVALID_REQUEST: malformed, or another call's token.
        """
        if not token:
            return None
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raise _foreign() from None
        tag, body = data[:_TAG_BYTES], data[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(scope, body)):
            raise _foreign()
        return cast(PositionT, _unpacked(body.decode()))

    def _tag(self, scope: Sequence[str], body: bytes) -> bytes:
        message = json.dumps([*scope]).encode() + b"\0" + body
        return hmac.digest(self._key, message, hashlib.sha256)[:_TAG_BYTES]


def _packed(position: tuple[Any, ...]) -> str:
    """A position with its texts as they are, after their lengths: escaped, control characters are six times as long."""
    head = json.dumps([[len(part)] if isinstance(part, str) else part for part in position], separators=(",", ":"))
    return head + "".join(part for part in position if isinstance(part, str))


def _unpacked(packed: str) -> tuple[Any, ...]:
    head, begin = json.JSONDecoder().raw_decode(packed)
    position: list[Any] = []
    for part in head:
        if isinstance(part, list):
            position.append(packed[begin : begin + part[0]])
            begin += part[0]
        else:
            position.append(part)
    return tuple(position)


def _foreign() -> FlowStackError:
    return invalid_request("page_token", "must be the next_page_token of the same call with the same fields")
