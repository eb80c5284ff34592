"""Pages of lists that are read by position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.billing.domain.paging import PAGE_SIZE_DEFAULT, PageTokens, Position

ItemT = TypeVar("ItemT")


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
    page = tuple(items[:size])
    return Page(page, tokens.seal(scope, position_of(page[-1])) if len(items) > size else "")
