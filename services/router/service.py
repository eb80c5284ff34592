"""The router's use cases: completing, chatting, draining."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from services.router.domain import validation
from services.router.domain.endings import Cause
from services.router.domain.events import SessionEvent
from services.router.domain.quota import Quota
from services.router.domain.request import CompletionRequest, Customer
from services.router.domain.session_id import RANDOM_BITS, session_id
from services.router.limits import SessionLimits
from services.router.lineup import Lineup
from services.router.ports import QuotaPort, ToolResultSource
from services.router.providers.tool_calls import is_json_object
from services.router.resolver import Resolver
from services.router.session import Assignment, Session, World
from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.log import frames_of, get_logger

RESOLUTION_GRACE_SECONDS = 10.0
"""How long a drain waits for quota's answers once every session has ended. What is left ends with its lease."""


class SessionStream:
    """A running session as its caller sees it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def take(self) -> Sequence[SessionEvent]:
        """The events that are waiting, at least one; none at the end of a stream that ended well.

        Raises:
            FlowStackError: the session was refused, or ended badly.
        """
        return await self._session.buffer.take()

    def abandon(self) -> None:
        """The caller is gone. Harmless once the session has ended."""
        self._session.stop(Cause.CLIENT_GONE)


class RouterService:
    """Starts sessions, and knows those that run.

    Args:
        random_bits: Answers a random integer of so many bits; injected so that tests can repeat a run.
    """

    def __init__(
        self,
        *,
        quota: QuotaPort,
        lineup: Lineup,
        clock: Clock,
        limits: SessionLimits,
        resolver: Resolver,
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._quota = quota
        self._clock = clock
        self._random_bits = random_bits
        self._running: dict[asyncio.Task[None], Session] = {}
        self._opening: set[Callable[[FlowStackError], None]] = set()
        self._draining = False
        self._log = get_logger()
        self.limits = limits
        self.resolver = resolver
        self.lineup = lineup
        self._world = self._world_of(lineup)

    def complete(self, customer: Customer, request: CompletionRequest) -> SessionStream:
        """Starts a session that ends with the model's first answer.

        Raises:
            FlowStackError: INVALID_REQUEST, MODEL_NOT_FOUND, SHUTTING_DOWN; nothing was reserved, and quota not asked.
        """
        return self._start(customer, request, None)

    def chat(self, customer: Customer, request: CompletionRequest, results: ToolResultSource) -> SessionStream:
        """Starts a session that goes on for as long as the model calls tools and `results` answers them.

        Raises:
            FlowStackError: as complete.
        """
        return self._start(customer, request, results)

    @contextmanager
    def opening(self, refuse: Callable[[FlowStackError], None]) -> Iterator[None]:
        """Around the wait of a call that has no session yet: a drain ends it by `refuse`, and waits for none.

        Raises:
            FlowStackError: SHUTTING_DOWN.
        """
        if self._draining:
            raise _shutting_down()
        self._opening.add(refuse)
        try:
            yield
        finally:
            self._opening.discard(refuse)

    async def quota_of(self, customer: Customer) -> Quota:
        """The customer's quota.

        Raises:
            FlowStackError: ENTITLEMENT_MISSING, QUOTA_UNAVAILABLE.
        """
        return await self._quota.get_quota(customer.account_id)

    def _start(self, customer: Customer, request: CompletionRequest, results: ToolResultSource | None) -> SessionStream:
        if self._draining:
            raise _shutting_down()
        validation.check(request.prompt, is_json_object)
        lineup = self.lineup
        candidates = lineup.candidates(request)
        id_ = session_id(self._clock.now_us(), self._random_bits(RANDOM_BITS))
        session = Session(self._world, Assignment(id_, customer, request, candidates, results))
        task = session.start()
        self._running[task] = session
        task.add_done_callback(self._ended)
        return SessionStream(session)

    def _ended(self, task: asyncio.Task[None]) -> None:
        session = self._running.pop(task)
        if task.cancelled():
            # Stopped before its first step: nothing was reserved.
            session.buffer.close(error=_shutting_down())
        elif error := task.exception():
            self._log.error("defect", error_type=type(error).__name__, traceback=frames_of(error))
            session.buffer.close(error=FlowStackError(Reason.INTERNAL, "FlowStack failed at this session."))

    def exchange(self, lineup: Lineup) -> set[asyncio.Task[None]]:
        """Starts new sessions with `lineup` from now on; answers those that run, with what was before it."""
        self.lineup = lineup
        self._world = self._world_of(lineup)
        return set(self._running)

    def _world_of(self, lineup: Lineup) -> World:
        return World(self._quota, self.resolver, lineup.providers, self._clock, self.limits, self._log)

    @property
    def running(self) -> int:
        """How many sessions run."""
        return len(self._running)

    @property
    def opened(self) -> int:
        """How many calls wait for their first message."""
        return len(self._opening)

    async def drain(self, grace_s: float) -> None:
        """Refuses new sessions, lets running ones finish for `grace_s` seconds, then releases the rest.

        A call that has no session yet ends at once.

        Cancelling it cuts the grace short; the rest is released all the same.
        """
        self._draining = True
        for refuse in tuple(self._opening):
            refuse(_shutting_down())
        try:
            if self._running:
                await asyncio.wait(set(self._running), timeout=grace_s)
        finally:
            for session in list(self._running.values()):
                session.stop(Cause.SHUTTING_DOWN)
            if self._running:
                await asyncio.wait(set(self._running))
            await self.resolver.idle(RESOLUTION_GRACE_SECONDS)


def _shutting_down() -> FlowStackError:
    return FlowStackError(Reason.SHUTTING_DOWN, "This router is shutting down. Try again; another one answers.")
