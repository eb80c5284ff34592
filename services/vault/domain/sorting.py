"""The order of a query's documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cmp_to_key
from typing import Any, Final, TypeAlias

from services.vault.domain.codes import encode_path

SORT_CHARACTERS_MAX: Final = 128
"""How much of a value's code decides about its place: enough for texts and numbers that people sort by, and little
enough for an index and for a page token. What is alike so far goes by key."""


Position: TypeAlias = tuple[int | str, ...]
"""The place of a document in an order: what each field of it sorts as."""


class SortKind(Enum):
    """What is sorted by."""

    KEY = "_key"
    CREATE_TIME = "_create_time"
    UPDATE_TIME = "_update_time"
    PATH = ""


@dataclass(frozen=True, slots=True)
class SortField:
    """One field of an order."""

    kind: SortKind
    path: tuple[str, ...] = ()
    """Encoded names and positions; of PATH alone."""
    descending: bool = False


BY_KEY: Final = SortField(SortKind.KEY)

_OWN: Final = {kind.value: kind for kind in SortKind if kind is not SortKind.PATH}


def sort_field(field: str, *, descending: bool) -> SortField:
    """A field as a request names it."""
    own = _OWN.get(field)
    if own is not None:
        return SortField(own, (), descending)
    return SortField(SortKind.PATH, encode_path(field), descending)


def whole_order(fields: Sequence[SortField]) -> tuple[SortField, ...]:
    """The order that leaves no two documents alike: the fields as far as they matter, and the key at the end."""
    for place, field in enumerate(fields):
        if field.kind is SortKind.KEY:
            return tuple(fields[: place + 1])
    return (*fields, BY_KEY)


def compare(order: Sequence[SortField], left: Position, right: Position) -> int:
    """Below 0 where `left` comes first in an order, above 0 where `right` does; of the fields that both have."""
    for field, one, other in zip(order, left, right, strict=False):
        if one != other:
            # Fields of one order are of one kind each. Texts compare by code point, as their bytes do.
            is_before = one < other  # type: ignore[operator]
            return 1 if is_before == field.descending else -1
    return 0


def by_position(order: Sequence[SortField]) -> Callable[[Position], Any]:
    """A key for `sorted`."""
    return cmp_to_key(lambda left, right: compare(order, left, right))
