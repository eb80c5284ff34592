"""Resolutions: repeated until the lease ends, whatever quota does."""

from __future__ import annotations

import asyncio

import pytest

from services.router.domain.endings import Ending
from services.router.domain.outcome import FinishReason, Outcome, ReleaseReason, SessionState
from services.router.domain.quota import Grant, Quota, Reservation, Resolution
from services.router.resolver import Claim, Resolver
from services.shared.errors import FlowStackError, Reason

COMMIT = Ending(FinishReason.STOP)
RELEASE = Ending(FinishReason.FAILED, ReleaseReason.PROVIDER_FAILED, Reason.PROVIDER_UNAVAILABLE)
OUTCOME = Outcome(FinishReason.STOP)
CLAIM = Claim("acct_1", "ses_1", lease_end_s=330.0)


class HandClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def now_us(self) -> int:
        return round(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class ScriptedQuota:
    """Answers each command with the next of its answers; the last one stays."""

    def __init__(self, *answers: Reason | None, state: str = "") -> None:
        self.answers = list(answers)
        self.state = state
        self.commands: list[str] = []

    def _next(self, command: str, state: SessionState) -> Resolution:
        self.commands.append(command)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise FlowStackError(answer, "No.", metadata={"session_state": self.state})
        return Resolution(state, None)

    async def reserve(self, reservation: Reservation) -> Grant:
        raise AssertionError

    async def commit(self, account_id: str, session_id: str, outcome: Outcome) -> Resolution:
        return self._next("commit", SessionState.COMMITTED)

    async def release(
        self, account_id: str, session_id: str, reason: ReleaseReason, outcome: Outcome | None
    ) -> Resolution:
        return self._next(f"release {reason.value}", SessionState.RELEASED)

    async def get_quota(self, account_id: str) -> Quota:
        raise AssertionError


async def resolved(quota: ScriptedQuota, ending: Ending) -> tuple[Resolution | None, Resolver, HandClock]:
    clock = HandClock()
    resolver = Resolver(quota, clock, clock.sleep)
    return await resolver.start(CLAIM, ending, OUTCOME), resolver, clock


async def test_a_commit_and_a_release() -> None:
    for ending, command, state in (
        (COMMIT, "commit", SessionState.COMMITTED),
        (RELEASE, "release provider-failed", SessionState.RELEASED),
    ):
        quota = ScriptedQuota(None)
        resolution, resolver, _ = await resolved(quota, ending)
        assert resolution == Resolution(state, None)
        assert quota.commands == [command]
        assert resolver.counts.resolved == 1


@pytest.mark.parametrize("reason", [Reason.QUOTA_UNAVAILABLE, Reason.INTERNAL])
async def test_it_is_repeated_until_quota_answers(reason: Reason) -> None:
    quota = ScriptedQuota(*[reason] * 20, None)
    resolution, _, clock = await resolved(quota, COMMIT)

    assert resolution == Resolution(SessionState.COMMITTED, None)
    assert len(quota.commands) == 21
    assert clock.now_s < 40


async def test_it_is_given_up_when_the_lease_ends() -> None:
    for ending in (COMMIT, RELEASE):
        resolution, resolver, clock = await resolved(ScriptedQuota(Reason.QUOTA_UNAVAILABLE), ending)
        assert resolution is None
        assert 325 < clock.now_s < 330
        assert (resolver.counts.lost_commits, resolver.counts.lost_releases) == ((1, 0) if ending is COMMIT else (0, 1))


@pytest.mark.parametrize("reason", [Reason.SESSION_NOT_FOUND, Reason.SESSION_PARAMETERS_DIFFER, Reason.INVALID_REQUEST])
async def test_what_no_repeat_changes_is_not_repeated(reason: Reason) -> None:
    quota = ScriptedQuota(reason)
    resolution, resolver, _ = await resolved(quota, COMMIT)

    assert resolution is None
    assert len(quota.commands) == 1
    assert resolver.counts.lost_commits == 1


async def test_a_disagreement_is_counted_and_told() -> None:
    quota = ScriptedQuota(Reason.SESSION_ALREADY_RESOLVED, state="EXPIRED")
    resolution, resolver, _ = await resolved(quota, COMMIT)

    assert resolution == Resolution(SessionState.EXPIRED, None)
    assert resolver.counts.disagreed == 1


async def test_a_defect_on_the_way_to_quota_is_repeated_as_well() -> None:
    class BrokenOnce(ScriptedQuota):
        async def commit(self, account_id: str, session_id: str, outcome: Outcome) -> Resolution:
            if not self.commands:
                self.commands.append("defect")
                raise ValueError("not for anybody's eyes")
            return await super().commit(account_id, session_id, outcome)

    quota = BrokenOnce(None)
    resolution, resolver, _ = await resolved(quota, COMMIT)

    assert resolution == Resolution(SessionState.COMMITTED, None)
    assert quota.commands == ["defect", "commit"]
    assert resolver.counts.lost_commits == 0


@pytest.mark.parametrize(("ending", "lost"), [(COMMIT, (1, 0)), (RELEASE, (0, 1))])
async def test_a_shutdown_waits_only_so_long_and_counts_what_it_gives_up(ending: Ending, lost: tuple[int, int]) -> None:
    async def forever(_: float) -> None:
        await asyncio.Event().wait()

    resolver = Resolver(ScriptedQuota(Reason.QUOTA_UNAVAILABLE), HandClock(), forever)
    task = resolver.start(CLAIM, ending, OUTCOME)
    await resolver.idle(0.01)

    assert task.cancelled()
    assert (resolver.counts.lost_commits, resolver.counts.lost_releases) == lost
