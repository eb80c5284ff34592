"""What was answered stays: across restarts, kills and outages of the medium."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.quota.domain.commands import Done
from services.quota.domain.cursors import Position
from services.quota.domain.model import partition_of
from services.shared.errors import FlowStackError, Reason
from tests.conformance.quota.lab import MEDIA, Lab
from tests.support.clock import HOUR_US, ManualClock
from tests.support.quota import (
    ACCOUNT,
    MANAGED,
    OTHER,
    commit,
    done,
    entitlement,
    outcome,
    prune_all,
    reason_of,
    release,
    reserve,
    results_of,
)

RICH = {
    "request_id": "req-\u00e9",
    "api_key_id": "key_1",
    "labels": (("a", ""), ("b", 'quote " and \u2603')),
    "lease_us": HOUR_US,
}


async def test_replays_across_a_restart(lab: Lab) -> None:
    command = reserve(lab.new_id(), **RICH)
    first = await lab.succeeds(command)
    await lab.restart()
    assert await lab.succeeds(command) == Done(first.session, first.quota, replayed=True)
    over = await lab.succeeds(commit(command.session_id, ended=outcome(MANAGED, b"\x00\xff")))
    await lab.restart()
    assert await lab.succeeds(commit(command.session_id, ended=outcome(MANAGED, b"\x00\xff"))) == Done(
        over.session, over.quota, replayed=True
    )
    assert await lab.fails(commit(command.session_id)) is Reason.SESSION_PARAMETERS_DIFFER
    assert await lab.fails(reserve(command.session_id)) is Reason.SESSION_PARAMETERS_DIFFER
    assert await lab.fails(reserve(lab.new_id(), request_id="req-\u00e9")) is Reason.DUPLICATE_REQUEST


async def test_a_tombstone_outlives_a_restart(lab: Lab) -> None:
    session_id = lab.new_id()
    await lab.succeeds(release(session_id, reason=6, ended=outcome(0, b"x")))
    await lab.restart()
    assert await lab.fails(reserve(session_id)) is Reason.SESSION_ALREADY_RESOLVED
    assert (await lab.succeeds(release(session_id, reason=6, ended=outcome(0, b"x")))).replayed


async def test_the_limit_holds_across_a_restart(lab: Lab) -> None:
    for _ in range(4):
        await lab.committed()
    for _ in range(6):
        await lab.reserved()
    await lab.restart()
    assert await lab.counts() == (4, 6)
    assert await lab.fails(reserve(lab.new_id())) is Reason.SESSION_QUOTA_EXCEEDED


async def test_what_was_answered_survives_a_kill(lab: Lab) -> None:
    """After every single answer the process is killed; its successor has to know all that was answered."""
    session_id = lab.new_id()
    reserved = done((await lab.run(reserve(session_id, **RICH)))[0]).session
    await lab.crash()
    assert await lab.store.session(ACCOUNT, session_id) == reserved
    assert await lab.counts() == (0, 1)

    committed = (await lab.succeeds(commit(session_id))).session
    await lab.crash()
    assert await lab.store.session(ACCOUNT, session_id) == committed
    assert await lab.counts() == (1, 0)
    assert [event.session for event in await lab.events()] == [committed]

    tombstone = lab.new_id()
    await lab.succeeds(release(tombstone, reason=6))
    await lab.crash()
    assert await lab.fails(reserve(tombstone)) is Reason.SESSION_ALREADY_RESOLVED

    raised = await lab.entitle(entitlement(revision=2, limit=77))
    await lab.crash()
    assert await lab.store.entitlement(ACCOUNT) == raised

    place = await lab.acknowledge_all()
    lab.clock.advance(3 * 24 * 3600)
    await lab.crash()
    await prune_all(lab.store)
    assert await lab.events() == []
    await lab.crash()
    await lab.committed()
    (event,) = await lab.events(after=place.position, time_us=place.time_us)
    assert event.position > place.position


async def test_the_clock_survives_a_kill(lab: Lab) -> None:
    lab.clock.advance(1000)
    await lab.store.move_clock()
    told_us = (await lab.store.read_events(Position(partition_of(ACCOUNT), 0, 0), 1)).watermark_us
    await lab.crash()
    lab.clock.jump(-500)
    assert (await lab.reserved()).reserve_us >= told_us


async def test_the_epoch_names_the_history(lab: Lab, tmp_path: Path) -> None:
    epoch = lab.store.epoch
    await lab.restart()
    assert lab.store.epoch == epoch
    await lab.crash()
    assert lab.store.epoch == epoch


@pytest.mark.parametrize("kind", list(MEDIA))
async def test_a_new_store_has_a_new_epoch(kind: str, tmp_path: Path) -> None:
    epochs = set()
    for name in ("one", "two"):
        store = await MEDIA[kind](tmp_path / name).open(ManualClock())
        epochs.add(store.epoch)
        await store.close()
    assert len(epochs) == 2


async def test_an_outage_refuses_everything_and_changes_nothing(lab: Lab) -> None:
    running = await lab.reserved()
    before = await lab.quota()
    lab.medium.fail()
    results = await asyncio.gather(
        lab.run(reserve(lab.new_id()), reserve(lab.new_id())),
        lab.run(commit(running.session_id)),
        lab.run(release(lab.new_id())),
    )
    assert {reason_of(result) for batch in results for result in batch} == {Reason.QUOTA_UNAVAILABLE}
    with pytest.raises(FlowStackError) as caught:
        await lab.entitle(entitlement(revision=2))
    assert caught.value.reason is Reason.QUOTA_UNAVAILABLE
    lab.medium.mend()
    assert await lab.quota() == before
    assert await lab.state(running) == "RESERVED"
    assert await lab.events() == []
    assert (await lab.store.entitlement(ACCOUNT)) == entitlement()


async def test_after_an_outage_it_goes_on_without_a_restart(lab: Lab) -> None:
    running = await lab.reserved()
    command = reserve(lab.new_id())
    lab.medium.fail()
    assert await lab.fails(command) is Reason.QUOTA_UNAVAILABLE
    assert await lab.fails(commit(running.session_id)) is Reason.QUOTA_UNAVAILABLE
    lab.medium.mend()
    assert not (await lab.succeeds(command)).replayed, "the refused reserve was forgotten"
    assert not (await lab.succeeds(commit(running.session_id))).replayed
    assert await lab.counts() == (1, 1)
    assert len(await lab.events()) == 1
    await lab.restart()
    assert await lab.counts() == (1, 1)


async def test_an_outage_is_not_heard_of_by_listeners(lab: Lab) -> None:
    heard: list[object] = []
    lab.store.on_committed(heard.append)
    lab.medium.fail()
    await lab.fails(reserve(lab.new_id()))
    lab.medium.mend()
    assert heard == []


async def test_closing_finishes_what_was_asked(lab: Lab) -> None:
    ids = [lab.new_id() for _ in range(10)]
    asked = [asyncio.ensure_future(lab.store.execute([reserve(session_id)])) for session_id in ids]
    await asyncio.sleep(0)
    await lab.restart()
    answers = [done(result) for (result,) in await asyncio.gather(*asked)]
    assert [answer.session.session_id for answer in answers] == ids
    assert await lab.counts() == (0, 10)


async def test_a_closed_store_answers_unavailable(lab: Lab) -> None:
    closed = lab.store
    await lab.restart()
    (result,) = await results_of(closed, [reserve(lab.new_id())])
    assert reason_of(result) is Reason.QUOTA_UNAVAILABLE


async def test_a_cancelled_callers_decision_stands(lab: Lab) -> None:
    commands = [reserve(lab.new_id()) for _ in range(5)]
    for command in commands:
        caller = asyncio.ensure_future(lab.store.execute([command]))
        await asyncio.sleep(0)
        caller.cancel()
        assert isinstance((await asyncio.gather(caller, return_exceptions=True))[0], asyncio.CancelledError)
    assert await lab.counts() == (0, 5)
    for command in commands:
        assert (await lab.succeeds(command)).replayed


async def test_an_unknown_account_is_known_after_its_entitlement(lab: Lab) -> None:
    assert await lab.fails(reserve(lab.new_id(), OTHER)) is Reason.ENTITLEMENT_MISSING
    await lab.entitle(entitlement(OTHER))
    await lab.reserved(OTHER)
