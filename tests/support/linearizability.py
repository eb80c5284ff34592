"""Were these calls atomic? Recorded histories of reserve, commit and release on one account, against their sequence.

A history is linearizable if there is one order of its calls, each at one moment between its invocation and its
answer, in which a counter with a limit gives just these answers. The search is Wing and Gong's with Lowe's memory of
what was tried (J. M. Wing, C. Gong, "Testing and verifying concurrent objects", 1993; G. Lowe, "Testing for
linearizability", 2017). A call without an answer may have happened at any moment after its invocation, or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from services.shared.errors import FlowStackError, Reason

UNKNOWN = "unknown"
"""The result of a call whose outcome the caller does not know."""


@dataclass
class Operation:
    """One call. `answered` is None where no answer came."""

    kind: str
    account_id: str
    session_id: str
    invoked: int
    answered: int | None = None
    result: str = UNKNOWN


class Model(NamedTuple):
    """The account, as a sequence of calls sees it: the state of each session that is known."""

    limit: int
    states: frozenset[tuple[str, str]] = frozenset()

    def step(self, operation: Operation) -> tuple[Model, str]:
        """The state after the call, and its answer."""
        state = dict(self.states).get(operation.session_id)
        return getattr(self, f"_{operation.kind}")(operation.session_id, state)

    def _reserve(self, session_id: str, state: str | None) -> tuple[Model, str]:
        if state == "tombstone":
            return self, Reason.SESSION_ALREADY_RESOLVED.value
        if state is not None:
            return self, "replayed"
        if sum(state in ("reserved", "committed") for _, state in self.states) >= self.limit:
            return self, Reason.SESSION_QUOTA_EXCEEDED.value
        return self._with(session_id, None, "reserved"), "ok"

    def _commit(self, session_id: str, state: str | None) -> tuple[Model, str]:
        if state is None:
            return self, Reason.SESSION_NOT_FOUND.value
        if state in ("reserved", "committed"):
            return self._with(session_id, state, "committed"), "ok"
        return self, Reason.SESSION_ALREADY_RESOLVED.value

    def _release(self, session_id: str, state: str | None) -> tuple[Model, str]:
        if state == "committed":
            return self, Reason.SESSION_ALREADY_RESOLVED.value
        if state in ("released", "tombstone"):
            return self, "ok"
        return self._with(session_id, state, "released" if state else "tombstone"), "ok"

    def _with(self, session_id: str, old: str | None, new: str) -> Model:
        states = self.states - {(session_id, old)} if old else self.states
        return self._replace(states=states | {(session_id, new)})


def is_linearizable(operations: Sequence[Operation], limit: int) -> bool:
    """Whether the history of one account with `limit` free units at its start has a sequence."""
    search = _Search(operations)
    tried: set[_Place] = set()
    path = [iter([_Place(0, Model(limit))])]
    while path:
        place = next(path[-1], None)
        if place is None:
            path.pop()
        elif search.is_over(place):
            return True
        elif place not in tried:
            tried.add(place)
            path.append(search.next_places(place))
    return False


class _Place(NamedTuple):
    """How far a sequence has come: which answered calls are in it, as a bit each, and what it leads to.

    Which of the unanswered calls are in it need not be known: a session's state only moves on, so that a call which
    changed something once can change nothing again.
    """

    done: int
    model: Model


class _Search:
    """The steps of the search in one history."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        ordered = sorted(operations, key=lambda call: call.invoked)
        self._answered = [call for call in ordered if call.result != UNKNOWN]
        self._unanswered = [call for call in ordered if call.result == UNKNOWN]

    def is_over(self, place: _Place) -> bool:
        """Whether every answer is explained."""
        return place.done == (1 << len(self._answered)) - 1

    def next_places(self, place: _Place) -> Iterator[_Place]:
        """Where the sequence may go from here, by one call."""
        left = [(number, call) for number, call in enumerate(self._answered) if not place.done >> number & 1]
        # What was invoked after this moment came after a call that is not in the sequence yet.
        until = min(call.answered for _, call in left if call.answered is not None)
        found: list[_Place] = []
        for number, call in left:
            after, result = place.model.step(call)
            if call.invoked > until or result != call.result:
                continue
            following = _Place(place.done | 1 << number, after)
            if after == place.model:
                # It changes nothing, so it stands in nobody's way here and now.
                return iter((following,))
            found.append(following)
        for call in self._unanswered:
            after, _ = place.model.step(call)
            if call.invoked <= until and after != place.model:
                found.append(_Place(place.done, after))
        return iter(found)


@dataclass
class History:
    """Records calls as they are made. `now` numbers moments, in order."""

    now: Callable[[], int] = field(default_factory=lambda: itertools.count().__next__)
    operations: list[Operation] = field(default_factory=list)

    @asynccontextmanager
    async def recorded(self, kind: str, account_id: str, session_id: str) -> AsyncIterator[Operation]:
        """Records one call: what it ends with is its answer; a failure that says nothing of it leaves it open."""
        operation = Operation(kind, account_id, session_id, self.now())
        self.operations.append(operation)
        try:
            yield operation
        except FlowStackError as error:
            if error.reason is not Reason.QUOTA_UNAVAILABLE:
                operation.result = error.reason.value
            raise
        finally:
            operation.answered = self.now()

    def of(self, account_id: str) -> list[Operation]:
        """The calls on one account."""
        return [operation for operation in self.operations if operation.account_id == account_id]
