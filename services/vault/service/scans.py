"""Queries that look through many documents, a stretch at a time, so that other calls get their turn between.

That is where transactions run one at a time. The answer is of one moment all the same, the last transaction's:
documents that were stored or deleted since the scan has begun are looked at again, there at the latest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

from services.shared.clock import Clock
from services.vault.domain.indexing import IndexState, SortIndex, plan, walk_of
from services.vault.domain.looking import QUERY_SECONDS_MAX, Pace, took_too_long
from services.vault.domain.sorting import Position, SortField, by_position, compare
from services.vault.store import Changes, Found, Look, Store, Stretch, Transaction, TurnOver

ResultT = TypeVar("ResultT")
Finish: TypeAlias = Callable[[Transaction, "Findings"], Awaitable[ResultT]]

_AGAIN_AT_ONCE: Final = 1_000
"""Documents that one statement looks up by their ids."""


class Findings(NamedTuple):
    """What was found, in order."""

    found: Sequence[Found]
    horizon: Position | None
    """What comes after this place may not be among it; None where everything is."""


class Gathering:
    """The first documents, in an order, among those that were looked at."""

    def __init__(self, order: Sequence[SortField], limit: int) -> None:
        self._order = order
        self._key = by_position(order)
        self._limit = limit
        self.findings = Findings((), None)

    def put(self, found: Sequence[Found], looked_at_again: Collection[int] = ()) -> None:
        """Adds what was found; of documents that were looked at again nothing else stays."""
        if not found and not looked_at_again:
            return
        kept, horizon = self.findings
        by_id = {one.document_id: one for one in kept if one.document_id not in looked_at_again}
        by_id |= {one.document_id: one for one in found if not self._is_beyond(one.position, horizon)}
        ordered = sorted(by_id.values(), key=lambda one: self._key(one.position))
        if len(ordered) >= self._limit:
            ordered = ordered[: self._limit]
            horizon = ordered[-1].position
        self.findings = Findings(ordered, horizon)

    def _is_beyond(self, position: Position, horizon: Position | None) -> bool:
        return horizon is not None and compare(self._order, position, horizon) > 0

    def is_complete(self, walk: Sequence[SortField], until: Position) -> bool:
        """Whether nothing that comes before the horizon is left in a walk that has come to a place."""
        horizon = self.findings.horizon
        if horizon is None or walk[0] != self._order[0]:
            return False
        return compare(walk[:1], horizon[:1], until[:1]) < 0 or (
            tuple(walk) == tuple(self._order) and compare(walk, horizon, until) <= 0
        )


class Scan:
    """One query's way through a collection."""

    def __init__(self, look: Look, changes: Changes) -> None:
        self._look = look
        self._changes = changes
        self._again: set[int] = set()
        self._index: SortIndex | None = None
        self._begin(None)

    def _begin(self, index: SortIndex | None) -> None:
        self._index = index
        self._walk = walk_of(self._look.order, index)
        self._place: Position | None = None
        self._gathering = Gathering(self._look.order, self._look.part.limit)

    async def step(self, transaction: Transaction, documents: int) -> Findings | None:
        """Looks at so many documents; answers what was found once no more need be looked at.

        Raises:
            TurnOver: it takes too long.
            FlowStackError: CALL_TIME_LIMIT.
        """
        await self._choose_index(transaction)
        await self._look_again(transaction)
        look, queries = self._look, transaction.queries
        rest = Stretch(self._walk, self._place, None, is_smallest=documents == 1)
        until = await queries.end_of_stretch(look, self._index, rest, documents)
        stretch = rest._replace(until=until)
        found = await queries.find(look, self._index, stretch)
        self._gathering.put(found)
        self._place = until
        if until is None or self._gathering.is_complete(self._walk, until):
            return self._gathering.findings
        return None

    async def _choose_index(self, transaction: Transaction) -> None:
        """Chooses one at the start; once that is gone, starts anew."""
        is_started = self._place is not None
        if is_started and self._index is None:
            return
        look = self._look
        indexes = await transaction.indexes.of(look.scope.account_id, look.scope.collection)
        ready = [(one.index_id, one.path) for one in indexes if one.state is IndexState.READY]
        if is_started and self._index is not None and (self._index.index_id, self._index.path) in ready:
            return
        self._begin(plan(look.wanted, look.order, indexes, look.scope.now_us).index)

    async def _look_again(self, transaction: Transaction) -> None:
        """Looks at what was stored or deleted since the last step, which may have gone by it already."""
        self._again |= self._changes.take()
        while self._again:
            some = set(list(self._again)[:_AGAIN_AT_ONCE])
            found = await transaction.queries.find_among(self._look, sorted(some))
            self._gathering.put(found, some)
            self._again -= some


async def step_by_step(database: Store, clock: Clock, look: Look, finish: Finish[ResultT]) -> ResultT:
    """Runs a scan, and in its last transaction `finish`, which answers something.

    Raises:
        FlowStackError: CALL_TIME_LIMIT.
    """
    started_s = clock.monotonic_s()
    pace = Pace()
    with database.changes(look.scope.account_id, look.scope.collection) as changes:
        scan = Scan(look, changes)

        async def go_on(transaction: Transaction) -> ResultT | None:
            findings = await scan.step(transaction, pace.documents)
            return None if findings is None else await finish(transaction, findings)

        while True:
            if clock.monotonic_s() - started_s > QUERY_SECONDS_MAX:
                raise took_too_long(QUERY_SECONDS_MAX)
            try:
                result = await database.transact(go_on, snapshot=True)
            except TurnOver:
                pace.slow_down()
                continue
            if result is not None:
                return result
            pace.speed_up()
