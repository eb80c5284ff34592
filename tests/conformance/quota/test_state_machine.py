"""Any history of commands, time, restarts and kills: the store has to agree with a model of the rules."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.quota.domain.commands import Command, Commit, Done, Reserve, Result
from services.quota.domain.model import Candidate, EventType, Session
from services.shared.periods import time_from_us
from tests.conformance.quota.lab import MEDIA, Lab
from tests.support.clock import DAY_US, HOUR_US, SECOND_US, ManualClock, us
from tests.support.figures import record
from tests.support.quota import (
    ACCOUNT,
    BYOK,
    HOLD_US,
    MANAGED,
    OTHER,
    commit,
    entitlement,
    outcome,
    release,
    reserve,
    term,
    uuid7_session_id,
)

T = TypeVar("T")

ACCOUNTS = (ACCOUNT, OTHER)
OWN_KEY = (Candidate("openai", "m", BYOK),)
INCLUDED = (Candidate("openai", "m", MANAGED),)
NOT_INCLUDED = (Candidate("openai", "m", BYOK), Candidate("anthropic", "m", MANAGED))


@dataclass
class ModelSession:
    """What the model remembers of a session."""

    command: Reserve | None
    state: str
    period: tuple[int, int]
    reserve_us: int = 0
    resolve_us: int = 0
    resolution: Command | None = None

    @property
    def expire_us(self) -> int:
        return self.reserve_us + (self.command.lease_us if self.command else 0)


@dataclass
class Limits:
    """What the model remembers of an entitlement."""

    sessions: int
    concurrent: int
    ended: bool = False


@dataclass
class Model:
    """The rules, told a second time: no counters, no tables, every answer worked out from all sessions."""

    now_us: int = 0
    serving_since_us: int | None = None
    seen: tuple[int, int] | None = None
    sessions: dict[tuple[str, str], ModelSession] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)

    def begin(self, clock: ManualClock) -> None:
        """What happens before anything is decided: time goes on, leases run out."""
        self.now_us = max(self.now_us, clock.wall_us)
        if self.seen is not None:
            gained_us = (self.now_us - self.seen[0]) - (clock.monotonic_us - self.seen[1])
            if gained_us > 30 * SECOND_US:
                self.serving_since_us = self.now_us
        self.seen = (self.now_us, clock.monotonic_us)
        if self.serving_since_us is None:
            self.serving_since_us = self.now_us
        elif self.now_us - self.serving_since_us >= HOLD_US:
            for session in self.sessions.values():
                if session.state == "RESERVED" and session.expire_us <= self.now_us:
                    session.state, session.resolve_us = "EXPIRED", self.now_us

    def reopened(self) -> None:
        """The store was closed or killed, and opened again."""
        self.serving_since_us = self.seen = None

    def of(self, account_id: str) -> list[ModelSession]:
        return [session for (owner, _), session in self.sessions.items() if owner == account_id]

    def period(self) -> tuple[int, int]:
        now = time_from_us(self.now_us)
        return now.year, now.month

    def used(self, account_id: str) -> Counter[str]:
        """Sessions of the current period by state."""
        return Counter(session.state for session in self.of(account_id) if session.period == self.period())

    def running(self, account_id: str) -> int:
        return sum(session.state == "RESERVED" for session in self.of(account_id))

    def answer(self, command: Command, made_us: int) -> str:
        """What the command has to answer: a reason, a state, or a state that is replayed."""
        key = command.account_id, command.session_id
        known = self.sessions.get(key)
        if isinstance(command, Reserve):
            if abs(self.now_us - made_us) > DAY_US:
                return "INVALID_REQUEST"
            return self._reserve(command, key, known)
        if known is None:
            if isinstance(command, Commit) or abs(self.now_us - made_us) > DAY_US:
                return "SESSION_NOT_FOUND"
            self.sessions[key] = ModelSession(None, "RELEASED", (0, 0), 0, self.now_us, command)
            return "RELEASED"
        target = "COMMITTED" if isinstance(command, Commit) else "RELEASED"
        if known.state == target:
            return f"{target} again" if known.resolution == command else "SESSION_PARAMETERS_DIFFER"
        if known.state != "RESERVED":
            return "SESSION_ALREADY_RESOLVED"
        known.state, known.resolution, known.resolve_us = target, command, self.now_us
        return target

    def _reserve(self, command: Reserve, key: tuple[str, str], known: ModelSession | None) -> str:
        if known is not None:
            if known.command is None:
                return "SESSION_ALREADY_RESOLVED"
            return f"{known.state} again" if known.command == command else "SESSION_PARAMETERS_DIFFER"
        refusal = self._refusal(command)
        if refusal:
            return refusal
        self.sessions[key] = ModelSession(command, "RESERVED", self.period(), self.now_us)
        return "RESERVED"

    def _refusal(self, command: Reserve) -> str:
        limits = self.limits.get(command.account_id)
        used = self.used(command.account_id)
        checks = [
            ("DUPLICATE_REQUEST", self._is_duplicate(command)),
            ("ENTITLEMENT_MISSING", limits is None),
            ("SUBSCRIPTION_ENDED", limits is not None and limits.ended),
            ("BYOK_REQUIRED", command.candidates == NOT_INCLUDED),
            ("SESSION_QUOTA_EXCEEDED", limits and used["COMMITTED"] + used["RESERVED"] >= limits.sessions),
            ("CONCURRENCY_LIMIT_EXCEEDED", limits and self.running(command.account_id) >= limits.concurrent),
        ]
        return next((reason for reason, applies in checks if applies), "")

    def _is_duplicate(self, command: Reserve) -> bool:
        return bool(command.request_id) and any(
            session.state == "RESERVED" or (session.state == "COMMITTED" and self.now_us < session.resolve_us + DAY_US)
            for session in self.of(command.account_id)
            if session.command is not None and session.command.request_id == command.request_id
        )


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and the model through the same history."""

    def __init__(self, kind: str, folder: Path) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._clock = ManualClock()
        self._medium = MEDIA[kind](Path(mkdtemp(dir=folder)))
        self._lab = Lab(self._medium, self._run(self._medium.open(self._clock)), self._clock)
        self._model = Model()
        self._made: dict[str, int] = {}
        self._reserves: list[Reserve] = []
        self._revision = 0

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self._drain()
        finally:
            self._run(self._lab.close())
            self._loop.close()

    @initialize(sessions=st.integers(1, 3))
    def entitle_one(self, sessions: int) -> None:
        self._entitle(ACCOUNT, Limits(sessions, 5))

    @rule(account_id=st.sampled_from(ACCOUNTS), sessions=st.integers(0, 4), concurrent=st.integers(1, 4))
    def entitle(self, account_id: str, sessions: int, concurrent: int) -> None:
        self._entitle(account_id, Limits(sessions, concurrent))

    @precondition(lambda self: self._model.limits)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        account_id = data.draw(st.sampled_from(sorted(self._model.limits)))
        limits = self._model.limits[account_id]
        self._entitle(account_id, Limits(limits.sessions, limits.concurrent, ended=True))

    def _entitle(self, account_id: str, limits: Limits) -> None:
        self._model.begin(self._clock)
        self._revision += 1
        given = entitlement(
            account_id,
            term(us(2026, 1, 1), limit=limits.sessions, concurrent=limits.concurrent),
            anchor_us=us(2026, 1, 1),
            revision=self._revision,
            end_us=self._model.now_us if limits.ended else 0,
        )
        self._run(self._lab.entitle(given))
        self._model.limits[account_id] = limits

    @rule(data=st.data())
    def run_batch(self, data: st.DataObject) -> None:
        commands = [self._command(data) for _ in range(data.draw(st.integers(1, 4)))]
        self._check(commands)

    @rule(account_id=st.sampled_from(ACCOUNTS), count=st.integers(2, 6))
    def take_what_is_left(self, account_id: str, count: int) -> None:
        self._check([self._new_reserve(account_id, OWN_KEY, HOUR_US, "") for _ in range(count)])

    def _check(self, commands: Sequence[Command]) -> None:
        self._model.begin(self._clock)
        expected = [self._model.answer(command, self._made[command.session_id]) for command in commands]
        results = self._run(self._lab.run(*commands))
        assert [_said(result) for result in results] == expected
        for command, result in zip(commands, results, strict=True):
            if isinstance(result, Done):
                self._check_session(command, result.session)

    def _check_session(self, command: Command, session: Session) -> None:
        if isinstance(command, Reserve):
            assert session.expire_us - session.reserve_us == command.lease_us
            assert (session.candidates, session.request_id) == (command.candidates, command.request_id)
        assert (session.account_id, session.session_id) == (command.account_id, command.session_id)

    def _command(self, data: st.DataObject) -> Command:
        account_id = data.draw(st.sampled_from(ACCOUNTS))
        kind = data.draw(st.sampled_from(["new", "new", "again", "commit", "commit", "release", "late"]))
        if kind == "new" or not self._reserves:
            return self._new_reserve(
                account_id,
                data.draw(st.sampled_from([OWN_KEY, INCLUDED, NOT_INCLUDED])),
                data.draw(st.sampled_from([30 * SECOND_US, 330 * SECOND_US, HOUR_US])),
                data.draw(st.sampled_from(["", "", "req-1", "req-2"])),
            )
        if kind == "late":
            return release(self._new_id(), account_id, reason=6)
        earlier = data.draw(st.sampled_from(self._reserves[-8:]))
        if kind == "again":
            return data.draw(st.sampled_from([earlier, earlier, earlier._replace(lease_us=earlier.lease_us + 1)]))
        owner = earlier.account_id if data.draw(st.integers(0, 7)) else account_id
        if kind == "commit":
            mode = data.draw(st.sampled_from([MANAGED, BYOK]))
            return commit(earlier.session_id, owner, ended=outcome(mode, b"x"))
        return release(earlier.session_id, owner, reason=data.draw(st.integers(1, 2)))

    def _new_reserve(
        self, account_id: str, candidates: tuple[Candidate, ...], lease_us: int, request_id: str
    ) -> Reserve:
        command = reserve(self._new_id(), account_id, candidates=candidates, lease_us=lease_us, request_id=request_id)
        self._reserves.append(command)
        return command

    def _new_id(self) -> str:
        made_us = self._clock.wall_us // 1000 * 1000
        session_id = uuid7_session_id(made_us, len(self._made))
        self._made[session_id] = made_us
        return session_id

    @rule(seconds=st.sampled_from([1, 29, 31, 59, 61, 331, 3601, 86_401, 20 * 86_400]))
    def time_passes(self, seconds: int) -> None:
        self._clock.advance(seconds)

    @rule(seconds=st.sampled_from([-7200, -20, 20, 7200]))
    def the_clock_is_set(self, seconds: int) -> None:
        self._clock.jump(seconds)
        # Whatever is asked next at this time moves quota's own clock, and makes that durable.
        self._model.begin(self._clock)
        self._run(self._lab.store.move_clock())

    @rule()
    def sweep(self) -> None:
        self._model.begin(self._clock)
        self._run(self._lab.store.sweep())

    @rule()
    def restart(self) -> None:
        self._remember_time()
        self._run(self._lab.restart())
        self._model.reopened()

    @rule()
    def crash(self) -> None:
        self._remember_time()
        self._run(self._lab.crash())
        self._model.reopened()

    def _remember_time(self) -> None:
        self._model.begin(self._clock)
        self._run(self._lab.store.move_clock())

    @invariant()
    def counters_are_the_sum_of_the_sessions(self) -> None:
        for account_id, limits in self._model.limits.items():
            if limits.ended:
                continue
            self._model.begin(self._clock)
            quota = self._run(self._lab.quota(account_id))
            used = self._model.used(account_id)
            committed = quota.managed_sessions + quota.byok_sessions
            assert (committed, quota.sessions_reserved) == (used["COMMITTED"], used["RESERVED"])

    def _drain(self) -> None:
        """Lets every lease run out, then compares the events with what happened."""
        for _ in range(2):
            self._model.begin(self._clock)
            self._run(self._lab.store.sweep())
            self._clock.advance(86_400)
        self.sweep()
        told: dict[tuple[str, str], str] = {}
        for account_id in ACCOUNTS:
            events = self._run(self._lab.events(account_id))
            assert [event.time_us for event in events] == sorted(event.time_us for event in events)
            positions = [event.position for event in events]
            assert positions == sorted(set(positions))
            for event in events:
                key = event.session.account_id, event.session.session_id
                told[key] = event.type.name
                assert event.session.resolve_us == event.time_us
                assert event.type is EventType[event.session.state.name]
            assert len({event.session[:2] for event in events}) == len(events), "one event for each session"
        happened = {key: session.state for key, session in self._model.sessions.items() if session.command is not None}
        assert told == happened


def _said(result: Result) -> str:
    if isinstance(result, Done):
        return f"{result.session.state.name} again" if result.replayed else result.session.state.name
    return result.reason.value


def run_histories(kind: str, folder: Path, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: StoreMachine(kind, folder),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    record("state machine", store=kind, examples=examples, steps=steps)


@pytest.mark.parametrize("kind", list(MEDIA))
def test_any_history(kind: str, tmp_path: Path) -> None:
    run_histories(kind, tmp_path, 100, 25)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", list(MEDIA))
def test_any_long_history(kind: str, tmp_path: Path) -> None:
    run_histories(kind, tmp_path, 2_000, 80)
