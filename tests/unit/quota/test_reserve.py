"""Reserve: the precedence of its answers, repeats, and what a grant is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from services.quota.domain.commands import Decision, Reserve
from services.quota.domain.decide import apply, decide
from services.quota.domain.model import (
    Account,
    Block,
    BlockReason,
    Candidate,
    Counters,
    Entitlement,
    EventType,
    Session,
    SessionState,
    partition_of,
)
from services.shared.errors import Reason
from tests.support.clock import DAY_US, HOUR_US, SECOND_US, us
from tests.support.quota import (
    ACCOUNT,
    ANCHOR_US,
    BYOK,
    MANAGED,
    NEXT_PERIOD_US,
    commit,
    entitlement,
    in_state,
    outcome,
    release,
    reserve,
    term,
    ulid_session_id,
    uuid7_session_id,
)

NOW_US = us(2026, 3, 10, 12)
SESSION = uuid7_session_id(NOW_US, 1)
HOLDER = uuid7_session_id(NOW_US, 2)


def account_of(given: Entitlement | None = None, *, reserved: int = 0, managed: int = 0, byok: int = 0) -> Account:
    account = Account(ACCOUNT, partition_of(ACCOUNT), given)
    account.counters[ANCHOR_US] = Counters(reserved, managed, byok)
    account.running = reserved
    return account


def granted(decision: Decision) -> Session:
    assert decision.error is None, decision.error
    assert decision.session is not None
    assert not decision.replayed
    assert decision.change is not None
    return decision.session


def refused(decision: Decision) -> Reason:
    assert decision.error is not None, decision
    assert decision.session is None
    assert decision.change is None, "a refusal changes nothing"
    return decision.error.reason


@dataclass
class Scene:
    """Everything that a reserve is decided from. Each of the setters below makes one row of the table apply."""

    command: Reserve = field(default_factory=lambda: reserve(SESSION, request_id="req-1"))
    stored: Session | None = None
    holder: Session | None = None
    entitlement: Entitlement | None = field(default_factory=entitlement)
    reserved: int = 0
    byok: int = 0

    def decide(self) -> Decision:
        account = account_of(self.entitlement, reserved=self.reserved, byok=self.byok)
        return decide(account, self.command, NOW_US, self.stored, self.holder)

    def change_entitlement(self, **changes: object) -> None:
        if self.entitlement is not None:
            self.entitlement = self.entitlement._replace(**changes)

    def change_term(self, **changes: object) -> None:
        if self.entitlement is not None:
            self.change_entitlement(terms=(self.entitlement.terms[0]._replace(**changes),))


def invalid(scene: Scene) -> None:
    # The id is kept in `stored`, so that the rows below it apply too.
    scene.command = scene.command._replace(session_id=uuid7_session_id(NOW_US - DAY_US - 1000, 1))


def known_with_other_parameters(scene: Scene) -> None:
    other = scene.command._replace(session_id=SESSION, api_key_id="key_other")
    scene.stored = in_state(SessionState.RESERVED, other, reserve_us=NOW_US)


def duplicate(scene: Scene) -> None:
    scene.holder = in_state(SessionState.RESERVED, reserve(HOLDER, request_id="req-1"), reserve_us=NOW_US)


def no_entitlement(scene: Scene) -> None:
    scene.entitlement = None


def not_yet_in_force(scene: Scene) -> None:
    scene.change_term(effective_us=NOW_US + 1)


def ended(scene: Scene) -> None:
    scene.change_entitlement(end_us=NOW_US)


def blocked(scene: Scene) -> None:
    scene.change_entitlement(block=Block(BlockReason.PAYMENT_OVERDUE, "", 0))


def byok_required(scene: Scene) -> None:
    scene.command = scene.command._replace(candidates=(Candidate("anthropic", "m", MANAGED),))
    if scene.stored is not None:
        scene.stored = scene.stored._replace(candidates=scene.command.candidates)


def used_up(scene: Scene) -> None:
    scene.byok = 10 - scene.reserved


def too_many_running(scene: Scene) -> None:
    scene.change_term(max_concurrent_sessions=2)
    scene.reserved, scene.byok = 2, min(scene.byok, 8)


ROWS = [
    (invalid, Reason.INVALID_REQUEST),
    (known_with_other_parameters, Reason.SESSION_PARAMETERS_DIFFER),
    (duplicate, Reason.DUPLICATE_REQUEST),
    (no_entitlement, Reason.ENTITLEMENT_MISSING),
    (ended, Reason.SUBSCRIPTION_ENDED),
    (blocked, Reason.PAYMENT_OVERDUE),
    (byok_required, Reason.BYOK_REQUIRED),
    (used_up, Reason.SESSION_QUOTA_EXCEEDED),
    (too_many_running, Reason.CONCURRENCY_LIMIT_EXCEEDED),
]


def test_the_scene_without_a_row_is_granted() -> None:
    assert granted(Scene().decide()).state is SessionState.RESERVED


@pytest.mark.parametrize(("row", "reason"), ROWS, ids=[reason.value for _, reason in ROWS])
def test_each_row_alone(row, reason: Reason) -> None:
    scene = Scene()
    row(scene)
    assert refused(scene.decide()) is reason


@pytest.mark.parametrize(
    ("earlier", "later"),
    list(itertools.combinations(ROWS, 2)),
    ids=lambda row: row[1].value,
)
def test_the_earlier_row_wins(earlier, later) -> None:
    # The later row is made true first and checked alone, so that this test cannot pass for want of it.
    scene = Scene()
    later[0](scene)
    assert refused(scene.decide()) is later[1]
    earlier[0](scene)
    assert refused(scene.decide()) is earlier[1]


def test_all_rows_at_once_fall_away_one_by_one() -> None:
    for first in range(len(ROWS)):
        scene = Scene()
        for row, _ in reversed(ROWS[first:]):
            row(scene)
        assert refused(scene.decide()) is ROWS[first][1]


def test_a_replay_wins_over_every_row_after_it() -> None:
    for row, _ in ROWS[2:]:
        scene = Scene()
        row(scene)
        scene.stored = in_state(SessionState.RESERVED, scene.command, reserve_us=NOW_US)
        decision = scene.decide()
        assert decision.error is None
        assert decision.replayed
        assert decision.change is None


def test_an_old_session_id_is_refused_even_for_a_repeat() -> None:
    old = reserve(uuid7_session_id(NOW_US - DAY_US - 1000, 1))
    stored = in_state(SessionState.COMMITTED, old, reserve_us=NOW_US - DAY_US, resolve_us=NOW_US - DAY_US)
    assert refused(decide(account_of(entitlement()), old, NOW_US, stored, None)) is Reason.INVALID_REQUEST


@pytest.mark.parametrize("make_id", [uuid7_session_id, ulid_session_id])
@pytest.mark.parametrize(
    ("age_us", "is_taken"),
    [(DAY_US, True), (DAY_US + 1000, False), (0, True), (-DAY_US, True), (-DAY_US - 1000, False)],
)
def test_the_age_of_a_session_id(make_id, age_us: int, is_taken: bool) -> None:
    command = reserve(make_id(NOW_US - age_us, 1))
    decision = decide(account_of(entitlement()), command, NOW_US, None, None)
    if is_taken:
        granted(decision)
    else:
        assert refused(decision) is Reason.INVALID_REQUEST
        assert decision.error is not None
        assert [v.field for v in decision.error.violations] == ["session_id"]


def test_what_a_grant_is() -> None:
    command = reserve(
        SESSION,
        candidates=(Candidate("openai", "a", MANAGED), Candidate("anthropic", "b", BYOK)),
        lease_us=90 * SECOND_US,
        request_id="req-9",
        api_key_id="key_1",
        labels=(("team", "blue"),),
    )
    decision = decide(account_of(entitlement(revision=7)), command, NOW_US, None, None)
    session = granted(decision)
    assert session == Session(
        SESSION,
        ACCOUNT,
        SessionState.RESERVED,
        command.candidates,
        ANCHOR_US,
        NOW_US,
        NOW_US + 90 * SECOND_US,
        0,
        None,
        0,
        "req-9",
        "key_1",
        (("team", "blue"),),
        7,
    )
    change = decision.change
    assert change is not None
    assert (change.is_new, change.reserved, change.managed, change.byok, change.event) == (True, 1, 0, 0, None)


def test_deciding_changes_nothing_until_it_is_applied() -> None:
    account = account_of(entitlement(limit=1))
    first = decide(account, reserve(SESSION), NOW_US, None, None)
    assert granted(decide(account, reserve(HOLDER), NOW_US, None, None))
    assert first.change is not None
    apply(account, first.change)
    assert refused(decide(account, reserve(HOLDER), NOW_US, None, None)) is Reason.SESSION_QUOTA_EXCEEDED


@pytest.mark.parametrize("state", [SessionState.RESERVED, SessionState.COMMITTED, SessionState.EXPIRED])
def test_a_repeat_answers_the_session_as_it_stands(state: SessionState) -> None:
    command = reserve(SESSION)
    stored = in_state(state, command, reserve_us=NOW_US - SECOND_US, resolve_us=NOW_US, ended=outcome())
    decision = decide(account_of(entitlement()), command, NOW_US, stored, None)
    assert (decision.session, decision.replayed, decision.error, decision.change) == (stored, True, None, None)


def test_a_repeat_of_a_released_session_is_a_replay_too() -> None:
    command = reserve(SESSION)
    stored = in_state(SessionState.RELEASED, command, reserve_us=NOW_US, resolve_us=NOW_US, release_reason=2)
    assert decide(account_of(entitlement()), command, NOW_US, stored, None).replayed


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": (Candidate("openai", "other", BYOK),)},
        {"candidates": (Candidate("openai", "gpt-4o", MANAGED),)},
        {"candidates": (Candidate("openai", "gpt-4o", BYOK), Candidate("openai", "gpt-4o", BYOK))},
        {"lease_us": 331 * SECOND_US},
        {"request_id": "req-2"},
        {"request_id": ""},
        {"api_key_id": "key_2"},
        {"labels": (("team", "red"),)},
        {"labels": ()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_repeat_with_another_parameter(changes: dict[str, object]) -> None:
    command = reserve(SESSION, request_id="req-1", api_key_id="key_1", labels=(("team", "blue"),))
    stored = in_state(SessionState.RESERVED, command, reserve_us=NOW_US)
    assert decide(account_of(entitlement()), command, NOW_US, stored, None).replayed
    decision = decide(account_of(entitlement()), command._replace(**changes), NOW_US, stored, None)
    assert refused(decision) is Reason.SESSION_PARAMETERS_DIFFER
    assert decision.error is not None
    assert decision.error.metadata == {"session_id": SESSION, "session_state": "RESERVED"}


def test_a_tombstone_refuses_the_reserve_that_it_overtook() -> None:
    account = account_of(entitlement())
    tombstone = decide(account, release(SESSION, reason=6), NOW_US, None, None)
    assert tombstone.session is not None
    decision = decide(account, reserve(SESSION), NOW_US, tombstone.session, None)
    assert refused(decision) is Reason.SESSION_ALREADY_RESOLVED
    assert decision.error is not None
    assert decision.error.metadata == {"session_id": SESSION, "session_state": "RELEASED"}


@pytest.mark.parametrize(
    ("state", "resolved_ago_us", "holds"),
    [
        (SessionState.RESERVED, None, True),
        (SessionState.COMMITTED, 0, True),
        (SessionState.COMMITTED, DAY_US - 1, True),
        (SessionState.COMMITTED, DAY_US, False),
        (SessionState.RELEASED, 0, False),
        (SessionState.EXPIRED, 0, False),
    ],
)
def test_who_holds_a_request_id(state: SessionState, resolved_ago_us: int | None, holds: bool) -> None:
    resolve_us = 0 if resolved_ago_us is None else NOW_US - resolved_ago_us
    holder = in_state(
        state, reserve(HOLDER, request_id="req-1"), reserve_us=NOW_US - DAY_US - HOUR_US, resolve_us=resolve_us
    )
    decision = decide(account_of(entitlement()), reserve(SESSION, request_id="req-1"), NOW_US, None, holder)
    if holds:
        assert refused(decision) is Reason.DUPLICATE_REQUEST
        assert decision.error is not None
        assert decision.error.metadata == {"session_id": HOLDER, "session_state": state.name}
    else:
        assert granted(decision).request_id == "req-1"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_candidate_has_to_be_allowed(place: int) -> None:
    candidates = [Candidate("anthropic", "m", BYOK), Candidate("openai", "m", MANAGED), Candidate("x", "m", BYOK)]
    account = account_of(entitlement())
    granted(decide(account, reserve(SESSION, candidates=candidates), NOW_US, None, None))
    candidates[place] = Candidate("anthropic", "m", MANAGED)
    decision = decide(account, reserve(SESSION, candidates=candidates), NOW_US, None, None)
    assert refused(decision) is Reason.BYOK_REQUIRED
    assert decision.error is not None
    assert decision.error.metadata == {"provider": "anthropic", "plan": "starter"}


def test_a_plan_without_managed_access_takes_own_keys_for_every_provider() -> None:
    account = account_of(entitlement(ACCOUNT, term(managed_providers=())))
    for provider in ("openai", "anthropic", "bedrock"):
        own, managed = Candidate(provider, "m", BYOK), Candidate(provider, "m", MANAGED)
        granted(decide(account, reserve(SESSION, candidates=[own]), NOW_US, None, None))
        decision = decide(account, reserve(SESSION, candidates=[managed]), NOW_US, None, None)
        assert refused(decision) is Reason.BYOK_REQUIRED


@pytest.mark.parametrize(
    ("reserved", "managed", "byok", "fits"),
    [(0, 0, 9, True), (9, 0, 0, True), (3, 3, 3, True), (0, 10, 0, False), (0, 0, 10, False), (10, 0, 0, False),
     (4, 3, 3, False), (5, 5, 5, False)],
)  # fmt: skip
def test_the_limit_counts_used_and_held_units(reserved: int, managed: int, byok: int, fits: bool) -> None:
    account = account_of(entitlement(), reserved=reserved, managed=managed, byok=byok)
    decision = decide(account, reserve(SESSION), NOW_US, None, None)
    if fits:
        granted(decision)
    else:
        assert refused(decision) is Reason.SESSION_QUOTA_EXCEEDED


def test_what_quota_exceeded_says() -> None:
    error = decide(account_of(entitlement(), reserved=4, managed=3, byok=3), reserve(SESSION), NOW_US, None, None).error
    assert error is not None
    assert error.metadata == {
        "current_usage": "10",
        "limit": "10",
        "plan": "starter",
        "reset_time": "2026-04-01T00:00:00Z",
        "upgrade_plan": "professional",
    }


def test_a_limit_of_zero_grants_nothing() -> None:
    assert refused(decide(account_of(entitlement(limit=0)), reserve(SESSION), NOW_US, None, None)) is (
        Reason.SESSION_QUOTA_EXCEEDED
    )


def test_concurrency_counts_sessions_of_the_period_before() -> None:
    account = account_of(entitlement(limit=10, concurrent=3), reserved=3)
    now_us = NEXT_PERIOD_US + 1
    late = reserve(uuid7_session_id(now_us, 1))
    decision = decide(account, late, now_us, None, None)
    assert refused(decision) is Reason.CONCURRENCY_LIMIT_EXCEEDED
    assert decision.error is not None
    assert decision.error.metadata == {"limit": "3", "plan": "starter"}
    assert decision.error.retry_after == timedelta(seconds=1)

    running = in_state(SessionState.RESERVED, reserve(HOLDER), reserve_us=NOW_US)
    over = decide(account, commit(HOLDER), now_us, running, None)
    assert over.change is not None
    apply(account, over.change)
    assert granted(decide(account, late, now_us, None, None)).period_start_us == NEXT_PERIOD_US


def test_a_new_period_starts_at_zero() -> None:
    account = account_of(entitlement(), byok=10)
    late = reserve(uuid7_session_id(NEXT_PERIOD_US, 1))
    assert refused(decide(account, late, NEXT_PERIOD_US - 1, None, None)) is Reason.SESSION_QUOTA_EXCEEDED
    assert granted(decide(account, late, NEXT_PERIOD_US, None, None)).period_start_us == NEXT_PERIOD_US


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (BlockReason.BUDGET_EXCEEDED, Reason.BUDGET_EXCEEDED),
        (BlockReason.PAYMENT_OVERDUE, Reason.PAYMENT_OVERDUE),
        (BlockReason.ACCOUNT_SUSPENDED, Reason.ACCOUNT_SUSPENDED),
    ],
)
def test_blocks(block: BlockReason, reason: Reason) -> None:
    for_ever = account_of(entitlement(block=Block(block, "", 0)))
    far = reserve(uuid7_session_id(NOW_US + 300 * DAY_US, 1))
    assert refused(decide(for_ever, reserve(SESSION), NOW_US, None, None)) is reason
    assert refused(decide(for_ever, far, NOW_US + 300 * DAY_US, None, None)) is reason

    until_now = account_of(entitlement(block=Block(block, "", NOW_US)))
    assert refused(decide(until_now, reserve(SESSION), NOW_US - 1, None, None)) is reason
    granted(decide(until_now, reserve(SESSION), NOW_US, None, None))


def test_a_blocks_own_sentence_is_what_the_caller_reads() -> None:
    account = account_of(entitlement(block=Block(BlockReason.PAYMENT_OVERDUE, "Pay invoice 17.", 0)))
    error = decide(account, reserve(SESSION), NOW_US, None, None).error
    assert error is not None
    assert error.message == "Pay invoice 17."


def test_a_term_takes_effect_at_its_time_within_the_period() -> None:
    change_us = us(2026, 3, 20)
    account = account_of(entitlement(ACCOUNT, term(limit=5), term(change_us, limit=8)), byok=5)
    late = reserve(uuid7_session_id(change_us, 1))
    assert refused(decide(account, late, change_us - 1, None, None)) is Reason.SESSION_QUOTA_EXCEEDED
    granted(decide(account, late, change_us, None, None))


def test_a_later_term_may_take_managed_access_away() -> None:
    account = account_of(entitlement(ACCOUNT, term(), term(NEXT_PERIOD_US, plan_id="free", managed_providers=())))
    managed = [Candidate("openai", "m", MANAGED)]
    granted(decide(account, reserve(SESSION, candidates=managed), NOW_US, None, None))
    late = reserve(uuid7_session_id(NEXT_PERIOD_US, 1), candidates=managed)
    assert refused(decide(account, late, NEXT_PERIOD_US, None, None)) is Reason.BYOK_REQUIRED


def test_before_the_first_term_nothing_is_in_force() -> None:
    scene = Scene()
    not_yet_in_force(scene)
    assert refused(scene.decide()) is Reason.ENTITLEMENT_MISSING


def test_before_the_anchor_nothing_is_in_force() -> None:
    account = account_of(entitlement(ACCOUNT, term(ANCHOR_US - DAY_US), anchor_us=NOW_US + 1))
    assert refused(decide(account, reserve(SESSION), NOW_US, None, None)) is Reason.ENTITLEMENT_MISSING
    granted(decide(account, reserve(SESSION), NOW_US + 1, None, None))


def test_the_end_is_exclusive() -> None:
    account = account_of(entitlement(end_us=NOW_US))
    granted(decide(account, reserve(SESSION), NOW_US - 1, None, None))
    assert refused(decide(account, reserve(SESSION), NOW_US, None, None)) is Reason.SUBSCRIPTION_ENDED
    late = reserve(uuid7_session_id(NOW_US + 90 * DAY_US, 1))
    assert refused(decide(account, late, NOW_US + 90 * DAY_US, None, None)) is Reason.SUBSCRIPTION_ENDED


def test_a_replaced_entitlement_counts_at_once() -> None:
    account = account_of(entitlement(limit=1), byok=1)
    assert refused(decide(account, reserve(SESSION), NOW_US, None, None)) is Reason.SESSION_QUOTA_EXCEEDED
    account.entitlement, account.in_force = entitlement(limit=2, revision=2), None
    assert granted(decide(account, reserve(SESSION), NOW_US, None, None)).entitlement_revision == 2


def test_a_session_commits_into_the_period_in_which_it_was_reserved() -> None:
    account = account_of(entitlement())
    first = decide(account, reserve(SESSION), NOW_US, None, None)
    assert first.change is not None
    apply(account, first.change)
    over = decide(account, commit(SESSION), NEXT_PERIOD_US + 5, first.session, None)
    assert over.change is not None
    apply(account, over.change)
    assert over.change.event is EventType.COMMITTED
    assert account.counters[ANCHOR_US] == Counters(reserved=0, managed=0, byok=1)
    assert NEXT_PERIOD_US not in account.counters
    assert account.running == 0
