"""Commits and releases sessions, whatever becomes of the calls that they were for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.router.domain.endings import Ending
from services.router.domain.outcome import Outcome, SessionState
from services.router.domain.quota import Resolution
from services.router.ports import QuotaPort
from services.shared import failpoints
from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.log import frames_of, get_logger

RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 2.0

_FINAL: Final = frozenset({Reason.SESSION_NOT_FOUND, Reason.SESSION_PARAMETERS_DIFFER, Reason.INVALID_REQUEST})
"""Answers that no retry changes, and that mean the session is not resolved as it should be."""


@dataclass(slots=True)
class ResolutionCounts:
    """What became of the sessions that were to be resolved."""

    resolved: int = 0
    disagreed: int = 0
    """Quota had resolved them before, in another way."""
    lost_commits: int = 0
    """The lease ended, or quota refused for good: a session that should have been counted is not."""
    lost_releases: int = 0
    """The same for releases; their units come back when the lease ends."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A session that is to be resolved. `lease_end_s` is monotonic: after it quota has expired the session."""

    account_id: str
    session_id: str
    lease_end_s: float


class Resolver:
    """Runs each resolution in a task of its own, which no client's cancellation reaches."""

    def __init__(
        self, quota: QuotaPort, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._quota = quota
        self._clock = clock
        self._sleep = sleep
        self._tasks: set[asyncio.Task[Resolution | None]] = set()
        self._log = get_logger()
        self.counts = ResolutionCounts()

    def start(self, claim: Claim, ending: Ending, outcome: Outcome) -> asyncio.Task[Resolution | None]:
        """Begins to resolve a session. The task answers where the session stands; None when that is not known."""
        task = asyncio.create_task(self._resolve(claim, ending, outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def idle(self, timeout_s: float) -> None:
        """Waits until nothing is left to resolve, at most `timeout_s` seconds; gives the rest up to their leases."""
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished)

    async def _resolve(self, claim: Claim, ending: Ending, outcome: Outcome) -> Resolution | None:
        try:
            return await self._repeat(claim, ending, outcome)
        except asyncio.CancelledError:
            self._lost(claim, ending, Reason.SHUTTING_DOWN)
            raise

    async def _repeat(self, claim: Claim, ending: Ending, outcome: Outcome) -> Resolution | None:
        delay_s = RETRY_SECONDS_MIN
        while True:
            try:
                resolution = await self._send(claim, ending, outcome)
            except FlowStackError as error:
                if error.reason is Reason.SESSION_ALREADY_RESOLVED:
                    return self._disagreed(claim, ending, error)
                reason = error.reason
            except Exception as error:
                # A defect on the way to quota costs a repeat, not the session. Its text may hold anything.
                self._log.error("defect", error_type=type(error).__name__, traceback=frames_of(error))
                reason = Reason.INTERNAL
            else:
                self.counts.resolved += 1
                return resolution
            if reason in _FINAL or self._clock.monotonic_s() + delay_s >= claim.lease_end_s:
                self._lost(claim, ending, reason)
                return None
            await self._sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_SECONDS_MAX)

    async def _send(self, claim: Claim, ending: Ending, outcome: Outcome) -> Resolution:
        if ending.release_reason is None:
            failpoints.hit("router.before_commit")
            resolution = await self._quota.commit(claim.account_id, claim.session_id, outcome)
            failpoints.hit("router.after_commit")
            return resolution
        failpoints.hit("router.before_release")
        return await self._quota.release(claim.account_id, claim.session_id, ending.release_reason, outcome)

    def _disagreed(self, claim: Claim, ending: Ending, error: FlowStackError) -> Resolution | None:
        self.counts.disagreed += 1
        state = error.metadata.get("session_state", "").removeprefix("SESSION_STATE_")
        self._log.warning(
            "session was resolved before",
            session_id=claim.session_id,
            session_state=state,
            detail="commit" if ending.counted else "release",
        )
        return Resolution(SessionState[state], None) if state in SessionState.__members__ else None

    def _lost(self, claim: Claim, ending: Ending, reason: Reason) -> None:
        if ending.counted:
            self.counts.lost_commits += 1
        else:
            self.counts.lost_releases += 1
        lost = self.counts.lost_commits if ending.counted else self.counts.lost_releases
        self._log.error(
            "session could not be resolved",
            session_id=claim.session_id,
            reason=reason.value,
            detail="commit" if ending.counted else "release",
            count=lost,
        )
