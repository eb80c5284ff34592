"""Pages of lists that are read by position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from services.billing.domain.paging import PageTokens, Position
from services.shared.paging import PAGE_SIZE_DEFAULT

PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""What a page's items may come to, about: half of what a gRPC client takes unless it is told otherwise."""

ItemT = TypeVar("ItemT")
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for."""

    size: int
    """At most this many; 0 for the default."""
    token: str


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """One page, and the token of the next; empty on the last."""

    items: tuple[ItemT, ...]
    next_token: str


async def read_page(
    tokens: PageTokens,
    scope: Sequence[str],
    request: PageRequest,
    read: Callable[[Position | None, int], Awaitable[Sequence[ItemT]]],
    position_of: Callable[[ItemT], Position],
) -> Page[ItemT]:
    """Reads the page after the request's token.

    Args:
        tokens: makes and checks page tokens.
        scope: the method, the account and every filter: a token is good for calls with the same scope alone.
        request: which page.
        read: gives that many items at most, after a position.
        position_of: an item's position.

    Raises:
        FlowStackError: INVALID_REQUEST: another call's token.
    """
    size = request.size or PAGE_SIZE_DEFAULT
    # One more than asked for tells whether there is a next page.
    items = await read(tokens.open(scope, request.token), size + 1)
    return page_of(tokens, scope, items, size, position_of)


def page_of(
    tokens: PageTokens,
    scope: Sequence[str],
    items: Sequence[ItemT],
    size: int,
    position_of: Callable[[ItemT], Position],
    *,
    go_on_after: Position | None = None,
) -> Page[ItemT]:
    """The page of `size` items at most, and of what fits into a message, that `items` begin with.

    Args:
        tokens: makes page tokens.
        scope: as for `read_page`.
        items: what was found after the token's position.
        size: how many items were asked for.
        position_of: an item's position.
        go_on_after: up to where they were looked for; None where that is the end.
    """
    page = _fitting(items[:size])
    if len(page) < len(items):
        go_on_after = position_of(page[-1])
    return Page(page, "" if go_on_after is None else tokens.seal(scope, go_on_after))


def _fitting(items: Sequence[ItemT]) -> tuple[ItemT, ...]:
    """As many of the first items as a message takes, one at least. Their JSON is about as long as their message."""
    left = PAGE_BYTES_MAX
    for number, item in enumerate(items):
        left -= len(_ENCODER.encode(item))
        if left < 0 and number:
            return tuple(items[:number])
    return tuple(items)
