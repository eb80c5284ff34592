"""Leases: they run out by quota's clock, and never because quota itself was away."""

from __future__ import annotations

import pytest

from services.quota.domain.model import EventType
from services.shared.errors import Reason
from tests.conformance.quota.lab import Lab
from tests.support.clock import DAY_US, HOUR_US, SECOND_US
from tests.support.quota import (
    ACCOUNT,
    HOLD_US,
    NEXT_PERIOD_US,
    commit,
    entitlement,
    outcome,
    release,
    reserve,
)

LEASE_US = 100 * SECOND_US


async def test_a_lease_runs_out(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(LEASE_US - 1)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    lab.clock.advance_us(1)
    await lab.store.sweep()
    found = await lab.store.session(ACCOUNT, session.session_id)
    assert found is not None
    assert (found.state.name, found.resolve_us) == ("EXPIRED", session.expire_us)
    assert await lab.counts() == (0, 0)
    (event,) = await lab.events()
    assert (event.type, event.session) == (EventType.EXPIRED, found)


async def test_the_default_lease_is_330_seconds(lab: Lab) -> None:
    session = await lab.reserved()
    assert session.expire_us - session.reserve_us == 330 * SECOND_US


async def test_a_lease_runs_out_before_anything_is_decided_at_that_time(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, limit=1))
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(LEASE_US)
    await lab.reserved()
    assert await lab.fails(commit(session.session_id)) is Reason.SESSION_ALREADY_RESOLVED
    assert await lab.fails(release(session.session_id)) is Reason.SESSION_ALREADY_RESOLVED
    assert await lab.counts() == (0, 1)


async def test_a_read_at_that_time_sees_it_expired(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(LEASE_US)
    assert await lab.counts() == (0, 0)
    assert await lab.state(session) == "EXPIRED"


async def test_a_commit_in_the_last_microsecond_counts(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(LEASE_US - 1)
    await lab.succeeds(commit(session.session_id))
    lab.clock.advance_us(DAY_US)
    await lab.store.sweep()
    assert await lab.state(session) == "COMMITTED"
    assert await lab.counts() == (1, 0)
    assert len(await lab.events()) == 1


async def test_a_resolved_session_does_not_expire(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    await lab.succeeds(release(session.session_id))
    lab.clock.advance_us(LEASE_US)
    await lab.store.sweep()
    assert await lab.state(session) == "RELEASED"


async def test_each_lease_runs_out_at_its_own_time(lab: Lab) -> None:
    await lab.reserved(lease_us=3 * SECOND_US)
    await lab.reserved(lease_us=1 * SECOND_US)
    await lab.reserved(lease_us=2 * SECOND_US)
    seen = []
    for _ in range(3):
        lab.clock.advance(1)
        await lab.store.sweep()
        seen.append((await lab.counts())[1])
    assert seen == [2, 1, 0]


async def test_an_expired_session_of_the_last_period_frees_that_period(lab: Lab) -> None:
    lab.clock.advance_us(NEXT_PERIOD_US - lab.clock.now_us() - SECOND_US)
    await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(LEASE_US)
    await lab.store.sweep()
    assert await lab.counts() == (0, 0)
    await lab.entitle(entitlement(revision=2, concurrent=1))
    await lab.reserved()


async def test_expiry_is_held_back_after_a_restart(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(HOUR_US)
    await lab.restart()
    await lab.serve()
    lab.clock.advance_us(HOLD_US - 1)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    await lab.succeeds(commit(session.session_id))
    lab.clock.advance_us(HOUR_US)
    await lab.store.sweep()
    assert await lab.state(session) == "COMMITTED"


async def test_expiry_goes_on_once_the_store_has_served_for_the_hold(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(HOUR_US)
    await lab.restart()
    await lab.store.sweep()
    lab.clock.advance_us(HOLD_US)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


async def test_the_hold_begins_with_serving_not_with_opening(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    await lab.restart()
    lab.clock.advance_us(HOUR_US)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"


async def test_the_hold_does_not_lengthen_a_lease_that_is_not_due(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    await lab.restart()
    await lab.store.sweep()
    lab.clock.advance_us(LEASE_US)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


async def test_a_unit_stays_held_while_its_expiry_is_held_back(lab: Lab) -> None:
    await lab.entitle(entitlement(revision=2, limit=1))
    await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(HOUR_US)
    await lab.restart()
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED


async def test_expiry_is_held_back_after_an_outage(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.medium.fail()
    lab.clock.advance_us(LEASE_US)
    assert await lab.fails(commit(session.session_id)) is Reason.QUOTA_UNAVAILABLE
    lab.medium.mend()
    await lab.store.sweep()
    lab.clock.advance_us(HOLD_US - 1)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    await lab.succeeds(commit(session.session_id))
    assert await lab.counts() == (1, 0)


async def test_the_hold_counts_from_the_outages_end(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.medium.fail()
    assert await lab.fails(reserve(lab.new_id())) is Reason.QUOTA_UNAVAILABLE
    lab.clock.advance_us(HOUR_US)
    assert await lab.fails(reserve(lab.new_id())) is Reason.QUOTA_UNAVAILABLE
    lab.medium.mend()
    lab.clock.advance_us(HOLD_US)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    lab.clock.advance_us(HOLD_US)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


@pytest.mark.parametrize("jump_s", [3600.0, 86_400.0 * 40])
async def test_expiry_is_held_back_after_the_clock_was_set_forward(lab: Lab, jump_s: float) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.jump(jump_s)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    lab.clock.advance_us(HOLD_US - 1)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    lab.clock.advance_us(1)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


async def test_a_small_correction_of_the_clock_holds_nothing_back(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.jump(5)
    lab.clock.advance_us(LEASE_US - 5 * SECOND_US)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


async def test_time_that_passed_while_nothing_was_asked_is_no_jump(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    lab.clock.advance_us(DAY_US)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


async def test_a_clock_set_back_stops_quotas_time_until_it_has_caught_up(lab: Lab) -> None:
    session = await lab.reserved(lease_us=LEASE_US)
    reserved_us = lab.clock.now_us()
    lab.clock.jump(-3600)
    other = await lab.reserved(lease_us=LEASE_US)
    assert other.reserve_us == reserved_us
    lab.clock.advance_us(HOUR_US)
    await lab.store.sweep()
    assert await lab.state(session) == "RESERVED"
    lab.clock.advance_us(LEASE_US)
    await lab.store.sweep()
    assert await lab.state(session) == "EXPIRED"


async def test_a_clock_set_back_across_a_restart_goes_back_nowhere(lab: Lab) -> None:
    session = await lab.committed()
    await lab.restart()
    lab.clock.jump(-3600)
    later = await lab.reserved()
    assert later.reserve_us >= session.resolve_us
    events = await lab.events()
    await lab.succeeds(release(later.session_id))
    events = await lab.events()
    assert [event.time_us for event in events] == sorted(event.time_us for event in events)


async def test_the_period_never_goes_back(lab: Lab) -> None:
    lab.clock.advance_us(NEXT_PERIOD_US - lab.clock.now_us() + SECOND_US)
    assert (await lab.quota()).period_start_us == NEXT_PERIOD_US
    lab.clock.jump(-3600)
    assert (await lab.quota()).period_start_us == NEXT_PERIOD_US
    assert (await lab.reserved()).period_start_us == NEXT_PERIOD_US


async def test_leases_beyond_a_restart_are_known(lab: Lab) -> None:
    kept = await lab.reserved(lease_us=10 * HOUR_US, labels=[("k", "v")], request_id="req-1")
    gone = await lab.reserved(lease_us=LEASE_US)
    counted = await lab.reserved(lease_us=LEASE_US)
    await lab.succeeds(commit(counted.session_id, ended=outcome(payload=b"x")))
    await lab.restart()
    await lab.served_for_the_hold()
    lab.clock.advance_us(LEASE_US)
    assert await lab.counts() == (1, 1)
    assert await lab.state(gone) == "EXPIRED"
    assert await lab.store.session(ACCOUNT, kept.session_id) == kept
