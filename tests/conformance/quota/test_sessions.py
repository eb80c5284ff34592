"""The life of a session, as every store has to live it."""

from __future__ import annotations

import asyncio

import pytest

from services.quota.domain.commands import Done
from services.quota.domain.model import Block, BlockReason, Candidate, SessionState
from services.shared.errors import Reason
from tests.conformance.quota.lab import Lab
from tests.support.clock import DAY_US, HOUR_US, SECOND_US
from tests.support.quota import (
    ACCOUNT,
    ANCHOR_US,
    BYOK,
    MANAGED,
    NEXT_PERIOD_US,
    OTHER,
    commit,
    done,
    entitlement,
    outcome,
    reason_of,
    release,
    reserve,
    term,
    uuid7_session_id,
)


async def test_a_reservation_holds_a_unit(lab: Lab) -> None:
    session = await lab.reserved()
    assert session.state is SessionState.RESERVED
    assert (session.reserve_us, session.period_start_us) == (lab.clock.now_us(), ANCHOR_US)
    assert await lab.counts() == (0, 1)
    assert await lab.store.session(ACCOUNT, session.session_id) == session


async def test_a_commit_counts_it(lab: Lab) -> None:
    session = await lab.reserved()
    lab.clock.advance(5)
    answer = await lab.succeeds(commit(session.session_id, ended=outcome(MANAGED, b"served")))
    assert answer.session == session._replace(
        state=SessionState.COMMITTED, resolve_us=lab.clock.now_us(), outcome=outcome(MANAGED, b"served")
    )
    assert not answer.replayed
    quota = await lab.quota()
    assert answer.quota == quota
    assert (quota.managed_sessions, quota.byok_sessions, quota.sessions_reserved) == (1, 0, 0)


async def test_a_release_gives_the_unit_back(lab: Lab) -> None:
    session = await lab.reserved()
    answer = await lab.succeeds(release(session.session_id, reason=2, ended=outcome(0, b"failed")))
    assert answer.session.state is SessionState.RELEASED
    assert (answer.session.release_reason, answer.session.outcome) == (2, outcome(0, b"failed"))
    assert await lab.counts() == (0, 0)


async def test_the_answers_quota_is_the_one_after_the_command(lab: Lab) -> None:
    answer = await lab.succeeds(reserve(lab.new_id()))
    assert answer.quota is not None
    assert answer.quota.sessions_reserved == 1


async def test_the_last_unit_goes_once(lab: Lab) -> None:
    sessions = [await lab.reserved() for _ in range(10)]
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED
    assert (await lab.quota()).refusal_reason == "SESSION_QUOTA_EXCEEDED"
    await lab.succeeds(commit(sessions[0].session_id))
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED
    await lab.succeeds(release(sessions[1].session_id))
    await lab.reserved()
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED
    assert await lab.counts() == (1, 9)


async def test_parallel_callers_get_exactly_what_is_left(lab: Lab) -> None:
    for _ in range(3):
        await lab.committed()
    results = await asyncio.gather(*(lab.run(reserve(lab.new_id())) for _ in range(200)))
    granted = [result for (result,) in results if isinstance(result, Done)]
    refused = [result for (result,) in results if not isinstance(result, Done)]
    assert len(granted) == 7
    assert {reason_of(result) for result in refused} == {Reason.SESSION_QUOTA_EXCEEDED}
    assert await lab.counts() == (3, 7)


async def test_parallel_repeats_of_one_reserve_hold_one_unit(lab: Lab) -> None:
    command = reserve(lab.new_id())
    answers = [done(result) for (result,) in await asyncio.gather(*(lab.run(command) for _ in range(50)))]
    assert sum(not answer.replayed for answer in answers) == 1
    assert await lab.counts() == (0, 1)


async def test_parallel_resolutions_of_one_session_resolve_it_once(lab: Lab) -> None:
    session = await lab.reserved()
    commands = [commit(session.session_id), release(session.session_id)] * 20
    results = [result for (result,) in await asyncio.gather(*(lab.run(command) for command in commands))]
    firsts = [result for result in results if isinstance(result, Done) and not result.replayed]
    assert len(firsts) == 1
    final = firsts[0].session.state
    assert await lab.counts() == (int(final is SessionState.COMMITTED), 0)
    assert len(await lab.events()) == 1
    assert {reason_of(result) for result in results if not isinstance(result, Done)} == {
        Reason.SESSION_ALREADY_RESOLVED
    }


async def test_a_batch_is_decided_in_order(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, limit=1))
    first, second, third = lab.new_id(), lab.new_id(), lab.new_id()
    results = await lab.run(
        reserve(first),
        reserve(second),
        release(first),
        reserve(second),
        commit(second),
        commit(second),
        reserve(third),
        reserve(first),
    )
    outcomes = [
        (result.session.state.name, result.replayed) if isinstance(result, Done) else result.reason.value
        for result in results
    ]
    assert outcomes == [
        ("RESERVED", False),
        "SESSION_QUOTA_EXCEEDED",
        ("RELEASED", False),
        ("RESERVED", False),
        ("COMMITTED", False),
        ("COMMITTED", True),
        "SESSION_QUOTA_EXCEEDED",
        ("RELEASED", True),
    ]


async def test_a_batch_over_many_accounts_answers_in_its_order(lab: Lab) -> None:
    accounts = [f"acct_many{number}" for number in range(150)]
    for account_id in accounts:
        await lab.entitle(entitlement(account_id, limit=1))
    commands = [reserve(lab.new_id(), account_id) for account_id in accounts * 2]
    results = await lab.run(*commands)
    assert [done(result).session.session_id for result in results[:150]] == [c.session_id for c in commands[:150]]
    assert {reason_of(result) for result in results[150:]} == {Reason.SESSION_QUOTA_EXCEEDED}


async def test_one_bad_command_fails_alone(lab: Lab) -> None:
    good, bad = reserve(lab.new_id()), reserve("ses_nonsense")
    results = await lab.run(good, bad, commit(lab.new_id()), reserve(lab.new_id(), OTHER), reserve(lab.new_id()))
    assert not done(results[0]).replayed
    assert [reason_of(result) for result in results[1:4]] == [
        Reason.INVALID_REQUEST,
        Reason.SESSION_NOT_FOUND,
        Reason.ENTITLEMENT_MISSING,
    ]
    assert not done(results[4]).replayed
    assert await lab.counts() == (0, 2)


async def test_an_empty_batch_has_no_results(lab: Lab) -> None:
    assert await lab.run() == []


async def test_a_denial_is_not_remembered(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, limit=0))
    command = reserve(lab.new_id())
    assert await lab.fails(command) is Reason.SESSION_QUOTA_EXCEEDED
    assert await lab.store.session(ACCOUNT, command.session_id) is None
    await lab.entitle(entitlement(revision=3, limit=1))
    assert not (await lab.succeeds(command)).replayed


async def test_every_refusal_changes_nothing(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, concurrent=1))
    running = await lab.reserved(request_id="req-1")
    before = await lab.quota()
    managed = [Candidate("anthropic", "m", MANAGED)]
    old = uuid7_session_id(lab.clock.now_us() - 2 * DAY_US, 1)
    refused = {
        Reason.INVALID_REQUEST: reserve(old),
        Reason.SESSION_PARAMETERS_DIFFER: reserve(running.session_id),
        Reason.DUPLICATE_REQUEST: reserve(lab.new_id(), request_id="req-1"),
        Reason.ENTITLEMENT_MISSING: reserve(lab.new_id(), OTHER),
        Reason.BYOK_REQUIRED: reserve(lab.new_id(), candidates=managed),
        Reason.CONCURRENCY_LIMIT_EXCEEDED: reserve(lab.new_id()),
        Reason.SESSION_NOT_FOUND: release(old),
    }
    for reason, command in refused.items():
        assert await lab.fails(command) is reason
        assert await lab.quota() == before
    assert await lab.events() == []
    for command in refused.values():
        if command.session_id != running.session_id:
            assert await lab.store.session(command.account_id, command.session_id) is None


async def test_replays(lab: Lab) -> None:
    command = reserve(lab.new_id(), request_id="req-1", api_key_id="key_1", labels=[("a", "1"), ("b", "2")])
    first = await lab.succeeds(command)
    lab.clock.advance(1)
    assert await lab.succeeds(command) == Done(first.session, first.quota, replayed=True)
    over = await lab.succeeds(commit(command.session_id))
    lab.clock.advance(1)
    assert await lab.succeeds(commit(command.session_id)) == Done(over.session, over.quota, replayed=True)
    assert await lab.succeeds(command) == Done(over.session, over.quota, replayed=True)
    assert await lab.counts() == (1, 0)
    assert len(await lab.events()) == 1


async def test_the_same_session_id_in_two_accounts_is_two_sessions(lab: Lab) -> None:
    await lab.entitle(entitlement(OTHER))
    session_id = lab.new_id()
    await lab.succeeds(reserve(session_id))
    assert await lab.store.session(OTHER, session_id) is None
    assert await lab.fails(commit(session_id, OTHER)) is Reason.SESSION_NOT_FOUND
    results = await lab.run(reserve(session_id, OTHER), commit(session_id, OTHER), release(session_id))
    assert [done(result).session.state.name for result in results] == ["RESERVED", "COMMITTED", "RELEASED"]
    assert (await lab.counts(), await lab.counts(OTHER)) == ((0, 0), (1, 0))


async def test_one_accounts_use_is_nothing_to_another(lab: Lab) -> None:
    await lab.entitle(entitlement(OTHER, limit=1))
    await lab.committed(OTHER)
    assert await lab.counts() == (0, 0)
    await lab.reserved(request_id="req-1")
    assert await lab.fails(reserve(lab.new_id(), OTHER, request_id="req-1")) is Reason.SESSION_QUOTA_EXCEEDED


async def test_a_tombstone_refuses_the_late_reserve_and_costs_nothing(lab: Lab) -> None:
    session_id = lab.new_id()
    answer = await lab.succeeds(release(session_id, reason=6))
    assert answer.session.is_tombstone
    assert await lab.fails(reserve(session_id)) is Reason.SESSION_ALREADY_RESOLVED
    assert await lab.fails(commit(session_id)) is Reason.SESSION_ALREADY_RESOLVED
    assert (await lab.succeeds(release(session_id, reason=6))).replayed
    assert await lab.fails(release(session_id, reason=1)) is Reason.SESSION_PARAMETERS_DIFFER
    assert await lab.counts() == (0, 0)
    assert await lab.events() == [], "nobody has to hear of it"


async def test_a_tombstone_needs_no_entitlement(lab: Lab) -> None:
    answer = await lab.succeeds(release(lab.new_id(), OTHER, reason=6))
    assert answer.quota is None


async def test_a_request_id_is_held_while_its_session_runs_or_was_counted(lab: Lab) -> None:
    session = await lab.reserved(request_id="req-1")
    assert await lab.fails(reserve(lab.new_id(), request_id="req-1")) is Reason.DUPLICATE_REQUEST
    await lab.succeeds(commit(session.session_id))
    lab.clock.advance_us(DAY_US - 1)
    assert await lab.fails(reserve(lab.new_id(), request_id="req-1")) is Reason.DUPLICATE_REQUEST
    lab.clock.advance_us(1)
    successor = await lab.reserved(request_id="req-1")
    assert await lab.fails(reserve(lab.new_id(), request_id="req-1")) is Reason.DUPLICATE_REQUEST
    await lab.succeeds(release(successor.session_id))
    await lab.reserved(request_id="req-1")


async def test_what_a_duplicate_is_told(lab: Lab) -> None:
    session = await lab.reserved(request_id="req-1")
    (result,) = await lab.run(reserve(lab.new_id(), request_id="req-1", labels=[("other", "body")]))
    assert reason_of(result) is Reason.DUPLICATE_REQUEST
    assert result.metadata == {"session_id": session.session_id, "session_state": "RESERVED"}  # type: ignore[union-attr]


async def test_a_released_or_expired_session_hands_its_request_id_on(lab: Lab) -> None:
    first = await lab.reserved(request_id="req-1")
    await lab.succeeds(release(first.session_id))
    second = await lab.reserved(request_id="req-1", lease_us=SECOND_US)
    lab.clock.advance(1)
    third = await lab.reserved(request_id="req-1")
    assert await lab.state(second) == "EXPIRED"
    (result,) = await lab.run(reserve(lab.new_id(), request_id="req-1"))
    assert result.metadata["session_id"] == third.session_id  # type: ignore[union-attr]


async def test_request_ids_within_one_batch(lab: Lab) -> None:
    first, second, third = lab.new_id(), lab.new_id(), lab.new_id()
    results = await lab.run(
        reserve(first, request_id="req-1"),
        reserve(second, request_id="req-1"),
        release(first),
        reserve(third, request_id="req-1"),
        reserve(second, request_id="req-1"),
    )
    assert reason_of(results[1]) is Reason.DUPLICATE_REQUEST
    assert done(results[3]).session.session_id == third
    assert results[4].metadata["session_id"] == third  # type: ignore[union-attr]


async def test_a_session_without_a_request_id_is_nobodys_duplicate(lab: Lab) -> None:
    await lab.reserved()
    await lab.reserved()
    assert await lab.counts() == (0, 2)


async def test_a_session_counts_in_the_period_in_which_it_was_reserved(lab: Lab) -> None:
    lab.clock.advance_us(NEXT_PERIOD_US - lab.clock.now_us() - SECOND_US)
    session = await lab.reserved()
    lab.clock.advance(1)
    assert await lab.counts() == (0, 0)
    answer = await lab.succeeds(commit(session.session_id))
    assert answer.session.period_start_us == ANCHOR_US
    assert await lab.counts() == (0, 0)
    (event,) = await lab.events()
    assert event.session.period_start_us == ANCHOR_US


async def test_concurrency_is_counted_across_periods(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, concurrent=1))
    lab.clock.advance_us(NEXT_PERIOD_US - lab.clock.now_us() - SECOND_US)
    session = await lab.reserved()
    lab.clock.advance(2)
    assert await lab.fails(reserve(lab.new_id())) is Reason.CONCURRENCY_LIMIT_EXCEEDED
    await lab.restart()
    assert await lab.fails(reserve(lab.new_id())) is Reason.CONCURRENCY_LIMIT_EXCEEDED
    await lab.succeeds(commit(session.session_id))
    await lab.reserved()


async def test_entitlements_are_kept(lab: Lab) -> None:
    given = entitlement(
        OTHER,
        term(limit=3, managed_providers=("openai", "bedrock")),
        term(NEXT_PERIOD_US, plan_id="free", limit=1, managed_providers=(), upgrade_plan_id=""),
        revision=4,
        end_us=NEXT_PERIOD_US + DAY_US,
        block=Block(BlockReason.BUDGET_EXCEEDED, "Over.", NEXT_PERIOD_US),
    )
    assert await lab.store.entitlement(OTHER) is None
    assert await lab.store.quota(OTHER) is None
    assert await lab.entitle(given) == given
    assert await lab.entitle(given) == given, "a repeat"
    await lab.restart()
    assert await lab.store.entitlement(OTHER) == given
    assert await lab.entitle(given) == given, "a repeat after a restart"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revision": 1}, Reason.STALE_REVISION),
        ({"end_us": NEXT_PERIOD_US}, Reason.STALE_REVISION),
        ({"revision": 3, "period_anchor_us": ANCHOR_US - DAY_US}, Reason.INVALID_REQUEST),
        ({"revision": 3, "terms": (term(), term())}, Reason.INVALID_REQUEST),
    ],
)
async def test_entitlements_that_are_refused(lab: Lab, changes: dict[str, object], reason: Reason) -> None:
    stored = await lab.entitle(entitlement(revision=2))
    offered = stored._replace(**changes)
    results = await asyncio.gather(lab.entitle(offered), return_exceptions=True)
    assert reason_of(results[0]) is reason  # type: ignore[arg-type]
    assert await lab.store.entitlement(ACCOUNT) == stored


async def test_an_upgrade_keeps_what_was_used(lab: Lab) -> None:
    for _ in range(10):
        await lab.committed()
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED
    await lab.entitle(entitlement(revision=2, limit=12))
    await lab.reserved()
    assert await lab.counts() == (10, 1)


async def test_a_limit_below_what_is_used_refuses_and_lets_running_ones_finish(lab: Lab) -> None:
    sessions = [await lab.reserved() for _ in range(4)]
    await lab.entitle(entitlement(revision=2, limit=2))
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED
    for session in sessions:
        await lab.succeeds(commit(session.session_id))
    assert await lab.counts() == (4, 0)


async def test_running_sessions_finish_after_the_end(lab: Lab) -> None:
    first, second = await lab.reserved(), await lab.reserved()
    await lab.entitle(entitlement(revision=2, end_us=lab.clock.now_us()))
    assert await lab.fails(reserve(lab.new_id())) is Reason.SUBSCRIPTION_ENDED
    await lab.succeeds(commit(first.session_id))
    await lab.succeeds(release(second.session_id))
    lab.clock.advance_us(100 * DAY_US)
    quota = await lab.quota()
    assert (quota.period_start_us, quota.byok_sessions, quota.refusal_reason) == (ANCHOR_US, 1, "SUBSCRIPTION_ENDED")


async def test_a_block_ends_by_itself(lab: Lab) -> None:
    until_us = lab.clock.now_us() + HOUR_US
    await lab.entitle(entitlement(revision=2, block=Block(BlockReason.BUDGET_EXCEEDED, "", until_us)))
    lab.clock.advance_us(HOUR_US - 1)
    assert await lab.fails(reserve(lab.new_id())) is Reason.BUDGET_EXCEEDED
    lab.clock.advance_us(1)
    await lab.reserved()


async def test_a_new_subscription_starts_its_own_count(lab: Lab) -> None:
    running = await lab.reserved()
    await lab.committed()
    lab.clock.advance(1)
    now_us = lab.clock.now_us()
    await lab.entitle(entitlement(revision=2, subscription_id="sub_2", anchor_us=now_us))
    assert await lab.counts() == (0, 0)
    await lab.succeeds(commit(running.session_id))
    assert await lab.counts() == (0, 0)
    assert (await lab.reserved()).period_start_us == now_us


async def test_counters_equal_the_sum_of_the_sessions(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, limit=100))
    ids = [lab.new_id() for _ in range(40)]
    await lab.run(*(reserve(session_id, lease_us=(1 + n % 2) * HOUR_US) for n, session_id in enumerate(ids)))
    await lab.run(*(commit(session_id, ended=outcome(BYOK)) for session_id in ids[:8]))
    await lab.run(*(commit(session_id, ended=outcome(MANAGED)) for session_id in ids[8:13]))
    await lab.run(*(release(session_id) for session_id in ids[13:20]))
    lab.clock.advance_us(HOUR_US)
    await lab.store.sweep()
    sessions = [await lab.store.session(ACCOUNT, session_id) for session_id in ids]
    states = [session.state for session in sessions if session is not None]
    quota = await lab.quota()
    assert quota.managed_sessions + quota.byok_sessions == states.count(SessionState.COMMITTED) == 13
    assert quota.managed_sessions == 5
    assert quota.sessions_reserved == states.count(SessionState.RESERVED) == 10
    assert len(await lab.events()) == 30
