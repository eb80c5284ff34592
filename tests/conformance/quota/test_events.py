"""Session events: once each and in order, kept until acknowledged, with watermarks that hold."""

from __future__ import annotations

import asyncio

import pytest

from services.quota.domain.cursors import Position
from services.quota.domain.model import EventType, partition_of
from services.shared.errors import FlowStackError, Reason
from tests.conformance.quota.lab import Lab, accounts_of_one_partition, place_of
from tests.support.clock import DAY_US, HOUR_US, SECOND_US
from tests.support.quota import (
    ACCOUNT,
    NEXT_PERIOD_US,
    commit,
    done,
    entitlement,
    prune_all,
    release,
    reserve,
    uuid7_session_id,
)

PARTITION = partition_of(ACCOUNT)
BEGINNING = Position(PARTITION, 0, 0)
KEPT_US = 2 * DAY_US


async def refusal_of_reading(lab: Lab, position: Position) -> Reason:
    with pytest.raises(FlowStackError) as caught:
        await lab.store.read_events(position, 10)
    return caught.value.reason


async def refusal_of_acknowledging(lab: Lab, *positions: Position) -> Reason:
    with pytest.raises(FlowStackError) as caught:
        await lab.store.acknowledge(positions)
    return caught.value.reason


async def is_known(lab: Lab, session_id: str) -> bool:
    return await lab.store.session(ACCOUNT, session_id) is not None


async def test_each_resolution_is_one_event_in_order(lab: Lab) -> None:
    committed = await lab.committed()
    lab.clock.advance(1)
    released = await lab.released()
    expiring = await lab.reserved(lease_us=SECOND_US)
    lab.clock.advance(1)
    await lab.store.sweep()
    events = await lab.events()
    assert [(event.type, event.session.session_id) for event in events] == [
        (EventType.COMMITTED, committed.session_id),
        (EventType.RELEASED, released.session_id),
        (EventType.EXPIRED, expiring.session_id),
    ]
    assert [event.session for event in events[:2]] == [committed, released]
    assert [event.time_us for event in events] == [event.session.resolve_us for event in events]
    positions = [event.position for event in events]
    assert positions == sorted(set(positions))


async def test_repeats_and_refusals_make_no_events(lab: Lab) -> None:
    session = await lab.committed()
    await lab.succeeds(commit(session.session_id))
    await lab.fails(release(session.session_id))
    await lab.fails(commit(lab.new_id()))
    await lab.reserved()
    assert len(await lab.events()) == 1


async def test_a_partition_has_its_accounts_events_and_no_others(lab: Lab) -> None:
    together = accounts_of_one_partition(2)
    apart = next(name for name in ("acct_a", "acct_b") if partition_of(name) != PARTITION)
    for account_id in (*together, apart):
        await lab.entitle(entitlement(account_id))
        await lab.committed(account_id)
    await lab.committed()
    assert [event.session.account_id for event in await lab.events()] == [*together, ACCOUNT]
    assert [event.session.account_id for event in await lab.events(apart)] == [apart]


async def test_pages(lab: Lab) -> None:
    ids = [(await lab.committed()).session_id for _ in range(5)]
    first = await lab.store.read_events(BEGINNING, 3)
    assert [event.session.session_id for event in first.events] == ids[:3]
    assert first.has_more
    second = await lab.store.read_events(place_of(first.events[-1]), 2)
    assert [event.session.session_id for event in second.events] == ids[3:]
    assert not second.has_more
    last = await lab.store.read_events(place_of(second.events[-1]), 2)
    assert (last.events, last.has_more) == ([], False)


async def test_events_come_again_until_they_are_acknowledged_and_pruned(lab: Lab) -> None:
    await lab.committed()
    first = await lab.events()
    assert await lab.events() == first
    await lab.restart()
    assert await lab.events() == first


async def test_positions_go_on_after_a_restart(lab: Lab) -> None:
    await lab.committed()
    (first,) = await lab.events()
    await lab.restart()
    session = await lab.committed()
    (second,) = await lab.events(after=first.position, time_us=first.time_us)
    assert second.position > first.position
    assert second.session == session


async def test_positions_go_on_after_everything_was_pruned(lab: Lab) -> None:
    await lab.committed()
    place = await lab.acknowledge_all()
    lab.clock.advance_us(KEPT_US + SECOND_US)
    await prune_all(lab.store)
    assert await lab.events() == []
    await lab.restart()
    await lab.committed()
    (event,) = await lab.events(after=place.position, time_us=place.time_us)
    assert event.position > place.position
    assert await lab.events() == [event]


async def test_nothing_is_pruned_before_it_was_acknowledged(lab: Lab) -> None:
    session = await lab.committed()
    lab.clock.advance_us(30 * DAY_US)
    await prune_all(lab.store)
    assert len(await lab.events()) == 1
    assert await is_known(lab, session.session_id)


async def test_nothing_is_pruned_before_48_hours(lab: Lab) -> None:
    session = await lab.committed()
    await lab.acknowledge_all()
    lab.clock.advance_us(KEPT_US - 1)
    await prune_all(lab.store)
    assert await is_known(lab, session.session_id)
    lab.clock.advance_us(2)
    await prune_all(lab.store)
    assert not await is_known(lab, session.session_id)
    assert await lab.events() == []


async def test_only_what_was_acknowledged_is_pruned(lab: Lab) -> None:
    first, second = await lab.committed(), await lab.released()
    await lab.store.acknowledge([place_of((await lab.events())[0])])
    lab.clock.advance_us(KEPT_US + 1)
    await prune_all(lab.store)
    assert not await is_known(lab, first.session_id)
    assert await is_known(lab, second.session_id)
    assert [event.session.session_id for event in await lab.events()] == [second.session_id]


async def test_pruning_leaves_the_counters(lab: Lab) -> None:
    await lab.committed()
    await lab.acknowledge_all()
    running = await lab.reserved(lease_us=HOUR_US)
    await lab.succeeds(commit(running.session_id))
    lab.clock.advance_us(KEPT_US + 1)
    await prune_all(lab.store)
    assert await lab.counts() == (2, 0)
    await lab.restart()
    assert await lab.counts() == (2, 0)


async def test_a_reserved_session_is_never_pruned(lab: Lab) -> None:
    session = await lab.reserved(lease_us=10 * DAY_US)
    await lab.committed()
    await lab.acknowledge_all()
    lab.clock.advance_us(5 * DAY_US)
    await prune_all(lab.store)
    assert await lab.state(session) == "RESERVED"


async def test_tombstones_are_pruned_too(lab: Lab) -> None:
    ids = [lab.new_id() for _ in range(3)]
    await lab.succeeds(release(ids[0], reason=6))
    await lab.committed()
    await lab.succeeds(release(ids[1], reason=6))
    unacknowledged = await lab.committed()
    await lab.succeeds(release(ids[2], reason=6))
    await lab.store.acknowledge([place_of((await lab.events())[0])])
    lab.clock.advance_us(KEPT_US + 1)
    await prune_all(lab.store)
    assert [await is_known(lab, session_id) for session_id in ids] == [False, False, True]
    await lab.acknowledge_all()
    await prune_all(lab.store)
    assert not await is_known(lab, ids[2])
    assert not await is_known(lab, unacknowledged.session_id)


async def test_a_lone_tombstone_is_pruned_without_anybody_acknowledging(lab: Lab) -> None:
    session_id = lab.new_id()
    await lab.succeeds(release(session_id, reason=6))
    lab.clock.advance_us(KEPT_US - 1)
    await prune_all(lab.store)
    assert await is_known(lab, session_id)
    lab.clock.advance_us(2)
    await prune_all(lab.store)
    assert not await is_known(lab, session_id)


async def test_pruning_a_session_leaves_its_request_id_to_its_successor(lab: Lab) -> None:
    first = await lab.reserved(request_id="req-1")
    await lab.succeeds(release(first.session_id))
    await lab.acknowledge_all()
    lab.clock.advance_us(KEPT_US + 1)
    await lab.reserved(request_id="req-1", lease_us=HOUR_US)
    await prune_all(lab.store)
    assert not await is_known(lab, first.session_id)
    assert await lab.fails(reserve(lab.new_id(), request_id="req-1")) is Reason.DUPLICATE_REQUEST


async def test_a_pruned_session_id_can_never_be_reserved_again(lab: Lab) -> None:
    # The id was made as far ahead as is allowed, so it is still fresh for as long as can be.
    session_id = uuid7_session_id(lab.clock.now_us() + DAY_US, 1)
    await lab.run(reserve(session_id), commit(session_id))
    await lab.acknowledge_all()
    for step_us in (KEPT_US - 1, 1, 1, 998, 1):
        lab.clock.advance_us(step_us)
        await prune_all(lab.store)
        (result,) = await lab.run(reserve(session_id))
        if isinstance(result, FlowStackError):
            assert result.reason is Reason.INVALID_REQUEST
        else:
            assert result.replayed, "counted a second time"
    assert not await is_known(lab, session_id)
    assert await lab.counts() == (1, 0)


async def test_acknowledging_is_idempotent_and_never_goes_back(lab: Lab) -> None:
    sessions = [await lab.committed() for _ in range(3)]
    places = [place_of(event) for event in await lab.events()]
    await lab.store.acknowledge([places[1]])
    await lab.store.acknowledge([places[1]])
    await lab.store.acknowledge([places[0]])
    await lab.store.acknowledge([BEGINNING])
    await lab.restart()
    lab.clock.advance_us(KEPT_US + 1)
    await prune_all(lab.store)
    assert [await is_known(lab, session.session_id) for session in sessions] == [False, False, True]
    await lab.store.acknowledge([places[0]])


async def test_places_of_another_history_are_refused(lab: Lab) -> None:
    await lab.committed()
    (event,) = await lab.events()
    ahead = Position(PARTITION, event.position + 1, event.time_us)
    elsewhen = Position(PARTITION, event.position, event.time_us + 1)
    elsewhere = Position((PARTITION + 1) % 64, event.position, event.time_us)
    for position in (ahead, elsewhen, elsewhere):
        assert await refusal_of_reading(lab, position) is Reason.INVALID_REQUEST
        assert await refusal_of_acknowledging(lab, position) is Reason.INVALID_REQUEST


async def test_one_refused_place_marks_none(lab: Lab) -> None:
    session = await lab.committed()
    (event,) = await lab.events()
    bad = Position((PARTITION + 1) % 64, 9, 9)
    assert await refusal_of_acknowledging(lab, place_of(event), bad) is Reason.INVALID_REQUEST
    lab.clock.advance_us(KEPT_US + 1)
    await prune_all(lab.store)
    assert await is_known(lab, session.session_id)


async def test_a_reader_may_be_behind_what_was_pruned(lab: Lab) -> None:
    first = await lab.committed()
    place = place_of((await lab.events())[0])
    second = await lab.committed()
    await lab.acknowledge_all()
    lab.clock.advance_us(KEPT_US + 1)
    await prune_all(lab.store)
    third = await lab.committed()
    left = await lab.events(after=place.position, time_us=place.time_us)
    assert [event.session.session_id for event in left] == [third.session_id]
    assert not await is_known(lab, first.session_id)
    assert not await is_known(lab, second.session_id)


async def test_a_watermark_is_never_ahead_of_the_clock_nor_goes_back(lab: Lab) -> None:
    seen = []
    for step in range(6):
        if step % 2:
            await lab.committed()
        else:
            await lab.store.move_clock()
        page = await lab.store.read_events(BEGINNING, 100)
        assert page.watermark_us <= lab.clock.now_us()
        seen.append(page.watermark_us)
        lab.clock.advance(1)
        if step == 3:
            await lab.restart()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


async def test_no_event_comes_from_before_a_watermark(lab: Lab) -> None:
    running = await lab.reserved()
    lab.clock.advance(10)
    await lab.store.move_clock()
    watermark_us = (await lab.store.read_events(BEGINNING, 1)).watermark_us
    assert watermark_us == lab.clock.now_us()
    lab.clock.jump(-8)
    await lab.restart()
    await lab.succeeds(commit(running.session_id))
    (event,) = await lab.events()
    assert event.time_us >= watermark_us


async def test_the_clock_moves_while_nothing_happens(lab: Lab) -> None:
    lab.clock.advance(100)
    before_us = (await lab.store.read_events(BEGINNING, 1)).watermark_us
    await lab.store.move_clock()
    after_us = (await lab.store.read_events(BEGINNING, 1)).watermark_us
    assert before_us < after_us == lab.clock.now_us()


async def test_the_oldest_running_session_is_told(lab: Lab) -> None:
    async def oldest_us() -> int:
        return (await lab.store.read_events(BEGINNING, 1)).oldest_reserve_us

    assert await oldest_us() == 0
    first = await lab.reserved()
    lab.clock.advance(1)
    second = await lab.reserved()
    assert await oldest_us() == first.reserve_us
    await lab.restart()
    assert await oldest_us() == first.reserve_us
    await lab.succeeds(commit(first.session_id))
    assert await oldest_us() == second.reserve_us
    await lab.succeeds(release(second.session_id))
    assert await oldest_us() == 0


async def test_a_page_never_says_complete_while_a_resolution_is_on_its_way(lab: Lab) -> None:
    # A reader bills a period once the watermark is past it and no session of it runs. A session that resolves while
    # the page is read has to be either among the events or still running.
    await lab.entitle(entitlement(revision=2, limit=10_000))
    lab.clock.advance_us(NEXT_PERIOD_US - lab.clock.now_us() - SECOND_US)
    sessions = [await lab.reserved() for _ in range(10)]
    lab.clock.advance(2)
    await lab.store.move_clock()
    at, unresolved = BEGINNING, {session.session_id for session in sessions}
    for session in sessions:
        busy = [reserve(lab.new_id()) for _ in range(300)]
        _, results, page = await asyncio.gather(
            lab.store.execute(busy),
            lab.store.execute([commit(session.session_id)]),
            lab.store.read_events(at, 100),
        )
        done(results[0])
        unresolved -= {event.session.session_id for event in page.events}
        if unresolved:
            assert 0 < page.oldest_reserve_us < NEXT_PERIOD_US
        if page.events:
            at = place_of(page.events[-1])


async def test_listeners_hear_of_what_is_durable(lab: Lab) -> None:
    heard: list[tuple[frozenset[int], frozenset[str]]] = []
    lab.store.on_committed(lambda committed: heard.append((committed.partitions, committed.accounts)))

    session = await lab.reserved()
    assert heard.pop() == (frozenset(), frozenset({ACCOUNT}))
    await lab.succeeds(commit(session.session_id))
    assert heard.pop() == (frozenset({PARTITION}), frozenset({ACCOUNT}))
    await lab.entitle(entitlement(revision=2))
    assert heard.pop() == (frozenset(), frozenset({ACCOUNT}))
    await lab.reserved(lease_us=SECOND_US)
    heard.clear()
    lab.clock.advance(1)
    await lab.store.sweep()
    assert heard.pop() == (frozenset({PARTITION}), frozenset({ACCOUNT}))

    await lab.succeeds(commit(session.session_id))
    await lab.fails(reserve("ses_bad"))
    await lab.entitle(entitlement(revision=2))
    await lab.quota()
    await lab.events()
    await lab.store.sweep()
    assert heard == [], "reads, repeats and refusals change nothing"


async def test_every_listener_hears(lab: Lab) -> None:
    heard: list[str] = []
    lab.store.on_committed(lambda _: heard.append("first"))
    lab.store.on_committed(lambda _: heard.append("second"))
    await lab.reserved()
    assert heard == ["first", "second"]
