"""Commit, release and expire: each of them in each state, and what they count."""

from __future__ import annotations

import pytest

from services.quota.domain.commands import Command, Decision
from services.quota.domain.decide import apply, decide, expire
from services.quota.domain.model import (
    Account,
    Candidate,
    Counters,
    EventType,
    Outcome,
    Session,
    SessionState,
    partition_of,
)
from services.shared.errors import Reason
from tests.support.clock import DAY_US, HOUR_US, us
from tests.support.quota import (
    ACCOUNT,
    ANCHOR_US,
    BYOK,
    MANAGED,
    commit,
    entitlement,
    in_state,
    outcome,
    release,
    reserve,
    uuid7_session_id,
)

NOW_US = us(2026, 3, 10, 12)
SESSION = uuid7_session_id(NOW_US, 1)
RESERVE = reserve(SESSION)
SERVED = outcome(MANAGED, b"served")

UNKNOWN = None
RESERVED = in_state(SessionState.RESERVED, RESERVE, reserve_us=NOW_US)
COMMITTED = in_state(SessionState.COMMITTED, RESERVE, reserve_us=NOW_US, resolve_us=NOW_US, ended=SERVED)
RELEASED = in_state(SessionState.RELEASED, RESERVE, reserve_us=NOW_US, resolve_us=NOW_US, release_reason=2)
EXPIRED = in_state(SessionState.EXPIRED, RESERVE, reserve_us=NOW_US, resolve_us=NOW_US)
TOMBSTONE = RELEASED._replace(reserve_us=0, expire_us=0, period_start_us=0, candidates=(), entitlement_revision=0)

COMMIT = commit(SESSION, ended=SERVED)
RELEASE = release(SESSION, reason=2)


def account_of(reserved: int = 0) -> Account:
    account = Account(ACCOUNT, partition_of(ACCOUNT), entitlement())
    account.counters[ANCHOR_US] = Counters(reserved=reserved)
    account.running = reserved
    return account


def run(command: Command, stored: Session | None, now_us: int = NOW_US) -> Decision:
    return decide(account_of(1), command, now_us, stored, None)


REFUSALS = [
    (COMMIT, UNKNOWN, Reason.SESSION_NOT_FOUND),
    (COMMIT, RELEASED, Reason.SESSION_ALREADY_RESOLVED),
    (COMMIT, EXPIRED, Reason.SESSION_ALREADY_RESOLVED),
    (COMMIT, TOMBSTONE, Reason.SESSION_ALREADY_RESOLVED),
    (COMMIT._replace(outcome=outcome(MANAGED, b"else")), COMMITTED, Reason.SESSION_PARAMETERS_DIFFER),
    (COMMIT._replace(outcome=outcome(BYOK, b"served")), COMMITTED, Reason.SESSION_PARAMETERS_DIFFER),
    (RELEASE, COMMITTED, Reason.SESSION_ALREADY_RESOLVED),
    (RELEASE, EXPIRED, Reason.SESSION_ALREADY_RESOLVED),
    (RELEASE._replace(reason=3), RELEASED, Reason.SESSION_PARAMETERS_DIFFER),
    (RELEASE._replace(outcome=SERVED), RELEASED, Reason.SESSION_PARAMETERS_DIFFER),
    (RELEASE._replace(reason=3), TOMBSTONE, Reason.SESSION_PARAMETERS_DIFFER),
]


@pytest.mark.parametrize(("command", "stored", "reason"), REFUSALS)
def test_refusals_change_nothing_and_name_the_state(command: Command, stored: Session | None, reason: Reason) -> None:
    decision = run(command, stored)
    assert decision.error is not None
    assert decision.error.reason is reason
    assert decision.change is None
    assert decision.session is None
    if stored is not None:
        assert decision.error.metadata == {"session_id": SESSION, "session_state": stored.state.name}


@pytest.mark.parametrize(
    ("command", "stored"),
    [
        (COMMIT, COMMITTED),
        (RELEASE, RELEASED),
        (RELEASE, TOMBSTONE),
        (RELEASE._replace(outcome=SERVED), RELEASED._replace(outcome=SERVED)),
        (RESERVE, RESERVED),
    ],
)
@pytest.mark.parametrize("later_us", [0, HOUR_US])
def test_repeats_are_replays(command: Command, stored: Session, later_us: int) -> None:
    decision = run(command, stored, NOW_US + later_us)
    assert (decision.session, decision.replayed, decision.error, decision.change) == (stored, True, None, None)


def test_commit() -> None:
    decision = run(COMMIT, RESERVED, NOW_US + 7)
    assert decision.session == RESERVED._replace(state=SessionState.COMMITTED, resolve_us=NOW_US + 7, outcome=SERVED)
    assert not decision.replayed
    assert decision.change is not None
    assert decision.change.event is EventType.COMMITTED
    assert not decision.change.is_new


def test_release() -> None:
    decision = run(RELEASE._replace(outcome=SERVED), RESERVED, NOW_US + 7)
    assert decision.session == RESERVED._replace(
        state=SessionState.RELEASED, resolve_us=NOW_US + 7, release_reason=2, outcome=SERVED
    )
    assert decision.change is not None
    assert decision.change.event is EventType.RELEASED
    account = account_of(1)
    apply(account, decision.change)
    assert account.counters[ANCHOR_US] == Counters()
    assert account.running == 0


def test_expire() -> None:
    change = expire(RESERVED, NOW_US + 7)
    assert change.session == RESERVED._replace(state=SessionState.EXPIRED, resolve_us=NOW_US + 7)
    assert change.event is EventType.EXPIRED
    account = account_of(1)
    apply(account, change)
    assert account.counters[ANCHOR_US] == Counters()
    assert account.running == 0


@pytest.mark.parametrize(
    ("first_choice", "served", "managed", "byok"),
    [
        (MANAGED, MANAGED, 1, 0),
        (MANAGED, BYOK, 0, 1),
        (BYOK, MANAGED, 1, 0),
        (BYOK, BYOK, 0, 1),
        (MANAGED, 0, 1, 0),
        (BYOK, 0, 0, 1),
    ],
)
def test_a_session_counts_as_what_served_it_else_as_its_first_choice(
    first_choice: int, served: int, managed: int, byok: int
) -> None:
    other = BYOK if first_choice == MANAGED else MANAGED
    candidates = (Candidate("openai", "m", first_choice), Candidate("openai", "m", other))
    stored = RESERVED._replace(candidates=candidates)
    decision = run(commit(SESSION, ended=Outcome(served, b"")), stored)
    assert decision.change is not None
    account = account_of(1)
    apply(account, decision.change)
    assert account.counters[ANCHOR_US] == Counters(reserved=0, managed=managed, byok=byok)
    assert account.counters[ANCHOR_US].committed == 1


def test_a_release_of_an_unknown_session_leaves_a_tombstone() -> None:
    decision = run(release(SESSION, reason=6), None)
    session = decision.session
    assert session is not None
    assert session.is_tombstone
    assert session.state is SessionState.RELEASED
    assert (session.release_reason, session.resolve_us, session.entitlement_revision) == (6, NOW_US, 0)
    assert decision.change is not None
    assert decision.change.is_new
    assert decision.change.event is EventType.TOMBSTONE
    account = account_of(1)
    apply(account, decision.change)
    assert account.counters == {ANCHOR_US: Counters(reserved=1)}
    assert account.running == 1


@pytest.mark.parametrize(("age_us", "found"), [(DAY_US, True), (DAY_US + 1000, False)])
def test_no_tombstone_where_no_reserve_can_come(age_us: int, found: bool) -> None:
    decision = run(release(uuid7_session_id(NOW_US - age_us, 1)), None)
    assert (decision.error is None) is found
    if decision.error is not None:
        assert decision.error.reason is Reason.SESSION_NOT_FOUND


def test_old_sessions_still_resolve() -> None:
    old = RESERVED._replace(session_id=uuid7_session_id(NOW_US - 30 * DAY_US, 1))
    assert run(COMMIT._replace(session_id=old.session_id), old).error is None
    assert run(RELEASE._replace(session_id=old.session_id), old).error is None


def test_in_flight_sessions_finish_whatever_became_of_the_account() -> None:
    gone = Account(ACCOUNT, partition_of(ACCOUNT), None)
    assert decide(gone, COMMIT, NOW_US, RESERVED, None).error is None
    assert decide(gone, RELEASE, NOW_US, RESERVED, None).error is None
