"""Were these calls atomic? Recorded histories of reserve, commit and release on one account, against their sequence.

A history is linearizable if there is one order of its calls, each at one moment between its invocation and its
answer, in which a counter with a limit gives just these answers. The search is Wing and Gong's with Lowe's memory of
what was tried (J. M. Wing, C. Gong, "Testing and verifying concurrent objects", 1993; G. Lowe, "Testing for
linearizability", 2017). A call without an answer may have happened at any moment after its invocation, or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
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


def is_linearizable(operations: list[Operation], limit: int) -> bool:
    """Whether the history of one account with `limit` free units at its start has a sequence."""
    calls = sorted(operations, key=lambda operation: operation.invoked)
    tried: set[tuple[int, Model]] = set()
    everything = sum(1 << place for place, call in enumerate(calls) if call.result != UNKNOWN)
    path: list[Iterator[tuple[int, Model]]] = [_next_steps(calls, 0, Model(limit))]
    while path:
        step = next(path[-1], None)
        if step is None:
            path.pop()
            continue
        done, model = step
        if done & everything == everything:
            return True
        if (done, model) not in tried:
            tried.add((done, model))
            path.append(_next_steps(calls, done, model))
    return not everything


def _next_steps(calls: list[Operation], done: int, model: Model) -> Iterator[tuple[int, Model]]:
    """The calls that may have come next, and the state after each."""
    left = [(place, call) for place, call in enumerate(calls) if not done >> place & 1]
    first_answer = min(
        (call.answered for _, call in left if _is_known(call) and call.answered is not None), default=None
    )
    for place, call in left:
        if first_answer is not None and call.invoked > first_answer:
            break  # some other call was over before this one began
        after, result = model.step(call)
        if not _is_known(call) or result == call.result:
            yield done | 1 << place, after


def _is_known(call: Operation) -> bool:
    return call.result != UNKNOWN


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
