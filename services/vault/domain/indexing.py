"""Which index a query reads by, and which indexes a collection has.

An index has an entry for each document of a collection: what the value at one path sorts as, and the key. It serves
queries that sort by the path first, and those that go by key and demand one value there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from services.vault.domain.codes import CONTAINER
from services.vault.domain.filters import All, Condition, Filter, Operator
from services.vault.domain.sorting import BY_KEY, SORT_CHARACTERS_MAX, SortField, SortKind

DOCUMENTS_MIN: Final = 1_000
"""Where a collection holds fewer, looking through it takes milliseconds, and an index would only slow stores down."""
INDEXES_PER_COLLECTION_MAX: Final = 8
"""Each is one more row to write at every store."""
INDEXES_PER_ACCOUNT_MAX: Final = 64
PATH_CHARACTERS_MAX: Final = 256
"""Of a path that a filter names, with its dots. A longer one is compared all the same, without an index."""
UNUSED_US: Final = 7 * 24 * 3600 * 1_000_000
"""An index that no query has used for so long makes room for another one."""
USE_NOTED_US: Final = 3600 * 1_000_000
"""How exactly it is known when an index was used last."""

Path: TypeAlias = tuple[str, ...]


class IndexState(IntEnum):
    """How far an index is."""

    BUILDING = 1
    READY = 2
    DROPPING = 3


class SortIndex(NamedTuple):
    """An index of a collection."""

    index_id: int
    path: Path
    state: IndexState
    last_use_us: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query goes about it."""

    index: SortIndex | None
    """What it reads by; None to look through the collection."""
    wish: Path | None
    """What it would have an index of, or would have noted as used; None where all is well."""


def plan(wanted: Filter, order: Sequence[SortField], indexes: Sequence[SortIndex], now_us: int) -> Plan:
    """Chooses among the indexes that there are."""
    paths = _paths(wanted, order)
    by_path = {index.path: index for index in indexes}
    for path in paths:
        index = by_path.get(path)
        if index is not None and index.state is IndexState.READY:
            return Plan(index, path if now_us - index.last_use_us >= USE_NOTED_US else None)
    if not paths or any(path in by_path for path in paths):
        return Plan(None, None)
    return Plan(None, paths[0])


def _paths(wanted: Filter, order: Sequence[SortField]) -> tuple[Path, ...]:
    if order[0].kind is SortKind.PATH:
        return (order[0].path,)
    if order[0].kind is not SortKind.KEY or order[0].descending:
        return ()
    paths = (one.path for one in demanded(wanted) if one.operator is Operator.EQ)
    return tuple(path for path in paths if sum(map(len, path)) + len(path) <= PATH_CHARACTERS_MAX)


def walk_of(order: Sequence[SortField], index: SortIndex | None) -> tuple[SortField, ...]:
    """The order in which documents are looked through a stretch at a time: one that can be gone on in anywhere.

    It begins as the query's order does where that is possible, so that what comes first is found first. The key goes
    in the same direction, so that a place in it is a pair of values to start from.
    """
    first = order[0]
    if first.kind is SortKind.KEY:
        return (first,)
    if first.kind is SortKind.PATH and (index is None or index.path != first.path):
        return (BY_KEY,)
    return (first, SortField(SortKind.KEY, (), first.descending))


def demanded(wanted: Filter) -> tuple[Condition, ...]:
    """The conditions that every document which is let through satisfies, as far as they are plain to see."""
    filters = wanted.filters if isinstance(wanted, All) else (wanted,)
    return tuple(one for one in filters if isinstance(one, Condition))


def sort_code(code: str) -> str:
    """What a code sorts as."""
    return CONTAINER if code >= CONTAINER else code[:SORT_CHARACTERS_MAX]


class Decision(NamedTuple):
    """What is done about a wish."""

    is_built: bool
    dropped: SortIndex | None
    """What makes room for it."""


def decide(documents: int, of_collection: Sequence[SortIndex], of_account: int, now_us: int) -> Decision:
    """Whether a collection gets another index.

    Args:
        documents: how many the collection holds.
        of_collection: its indexes.
        of_account: how many indexes all collections of the account have.
        now_us: the time.
    """
    if documents < DOCUMENTS_MIN:
        return Decision(False, None)
    if len(of_collection) < INDEXES_PER_COLLECTION_MAX and of_account < INDEXES_PER_ACCOUNT_MAX:
        return Decision(True, None)
    unused = [
        index for index in of_collection if index.state is IndexState.READY and now_us - index.last_use_us >= UNUSED_US
    ]
    # It is there once the other one is gone, which takes a while: the wish will be had again.
    return Decision(False, min(unused, key=lambda index: index.last_use_us, default=None))
