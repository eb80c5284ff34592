"""What a method is told of its call, and pages of lists."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc

from flowstack.testing._errors import invalid_field

ItemT = TypeVar("ItemT")

PAGE_SIZE_DEFAULT: Final = 100


@dataclass(frozen=True, slots=True)
class Call:
    """One call: whose account it is about, and by which key. The operator has no key, and names the account."""

    account_id: str
    api_key_id: str
    is_admin: bool
    context: grpc.ServicerContext

    def when_over(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when the call ends, however it does; at once where it has ended."""
        if not self.context.add_callback(callback):
            callback()

    def is_active(self) -> bool:
        """Whether somebody still waits for an answer."""
        return bool(self.context.is_active())


def page_of(
    items: Sequence[ItemT],
    size: int,
    token: str,
    *,
    bytes_of: Callable[[ItemT], int] | None = None,
    bytes_max: int | None = None,
) -> tuple[Sequence[ItemT], str]:
    """One page of a list, and the token of the next; empty on the last.

    Args:
        items: the whole list, which is made anew for each page.
        size: how many a page holds; 0 for the default.
        token: of the page.
        bytes_of: how large an item is.
        bytes_max: how large a page may be; it always holds one.

    Raises:
        FakeError: INVALID_REQUEST: the token is none of ours.
    """
    try:
        begin = int(base64.urlsafe_b64decode(token.encode())) if token else 0
    except (ValueError, binascii.Error):
        raise invalid_field("page_token", "is not one that this call gave out") from None
    end = begin + (size or PAGE_SIZE_DEFAULT)
    if bytes_max is not None and bytes_of is not None:
        total = 0
        for place, item in enumerate(items[begin:end]):
            total += bytes_of(item)
            if total > bytes_max and place:
                end = begin + place
                break
    next_token = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else ""
    return items[begin:end], next_token
