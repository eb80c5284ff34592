"""What a method is told of its call, and pages of lists."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc

from flowstack.testing._errors import FakeError, invalid_field

ItemT = TypeVar("ItemT")

PAGE_SIZE_DEFAULT: Final = 50
_DIGEST_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Call:
    """One call: whose account it is about, and by which key. The operator has no key, and names the account."""

    account_id: str
    api_key_id: str
    is_admin: bool
    context: grpc.ServicerContext
    method: str = ""
    """Such as `SubscriptionService.ChangePlan`."""
    request_id: str = ""
    reason: str = ""
    """Why, in the caller's words, where the request has any."""

    @property
    def peer(self) -> str:
        """Where the call came from: IP address and port."""
        return str(self.context.peer()).partition(":")[2]

    def when_over(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when the call ends, however it does; at once where it has ended."""
        if not self.context.add_callback(callback):
            callback()

    def is_active(self) -> bool:
        """Whether somebody still waits for an answer."""
        return bool(self.context.is_active())


def page_of(
    items: Sequence[ItemT],
    call: Call,
    request: Any,
    *,
    newest_first: bool = True,
    size_default: int = PAGE_SIZE_DEFAULT,
    bytes_of: Callable[[ItemT], int] | None = None,
    bytes_max: int | None = None,
) -> tuple[Sequence[ItemT], str]:
    """One page of a list, and the token of the next; empty on the last.

    Args:
        items: the whole list, which is made anew for each page.
        call: who asks: a token is good for the same account alone.
        request: what for: a token is good with the same fields, apart from the page's own.
        newest_first: whether what is new comes before what is there, which then must not move the next page.
        size_default: how many a page holds where the request does not say.
        bytes_of: how large an item is.
        bytes_max: how large a page may be; it always holds one.

    Raises:
        FakeError: INVALID_REQUEST: the token is another call's.
    """
    scope = _scope_of(call, request)
    begin = 0
    if request.page_token:
        place = _place_of(request.page_token, scope)
        begin = max(0, len(items) - place) if newest_first else place
    size = request.limit if "limit" in request.DESCRIPTOR.fields_by_name else request.page_size
    end = begin + (size or size_default)
    if bytes_max is not None and bytes_of is not None:
        total = 0
        for place, item in enumerate(items[begin:end]):
            total += bytes_of(item)
            if total > bytes_max and place:
                end = begin + place
                break
    if end >= len(items):
        return items[begin:end], ""
    place = len(items) - end if newest_first else end
    return items[begin:end], base64.urlsafe_b64encode(f"{scope}{place}".encode()).decode()


def _scope_of(call: Call, request: Any) -> str:
    asked = type(request)()
    asked.CopyFrom(request)
    for name in ("page_size", "limit", "page_token", "account_id"):
        if name in asked.DESCRIPTOR.fields_by_name:
            asked.ClearField(name)
    text = f"{asked.DESCRIPTOR.full_name} {call.account_id} ".encode() + asked.SerializeToString(deterministic=True)
    return hashlib.sha256(text).hexdigest()[:_DIGEST_CHARACTERS]


def _place_of(token: str, scope: str) -> int:
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode()
        if text.startswith(scope):
            return int(text.removeprefix(scope))
    except (ValueError, binascii.Error):
        pass  # nobody's token
    raise _foreign_token()


def _foreign_token() -> FakeError:
    return invalid_field("page_token", "must be the next_page_token of the same call with the same fields")
