"""ReadSessionEvents, AcknowledgeSessionEvents and WatchQuota over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from services.quota.domain.cursors import Position, cursor_from_position
from services.quota.domain.model import partition_of
from tests.grpc.quota.conftest import Client
from tests.grpc.quota.wire import (
    commit_request,
    entitlement_request,
    failure,
    release_request,
    reserve_request,
    seconds,
    time_of,
)
from tests.support.clock import DAY_US, ManualClock
from tests.support.quota import ACCOUNT, OTHER, QuotaServer, prune_all

CODE = grpc.StatusCode
PARTITION = partition_of(ACCOUNT)


def positions_of(*places: tuple[int, str]) -> list[pb.PartitionPosition]:
    return [pb.PartitionPosition(partition=partition, after_cursor=cursor) for partition, cursor in places]


def reading(*places: tuple[int, str], follow: bool = False) -> pb.ReadSessionEventsRequest:
    return pb.ReadSessionEventsRequest(positions=positions_of(*places), follow=follow)


def acknowledging(*places: tuple[int, str]) -> pb.AcknowledgeSessionEventsRequest:
    return pb.AcknowledgeSessionEventsRequest(positions=positions_of(*places))


async def all_events(quota: Client, cursor: str = "", partition: int = PARTITION) -> list[pb.SessionEvent]:
    call = quota.ReadSessionEvents(reading((partition, cursor)))
    return [event async for response in call for event in response.events]


async def committed(quota: Client, account_id: str = ACCOUNT) -> type_pb2.Session:
    session_id = quota.new_id()
    await quota.ReserveSession(reserve_request(session_id, account_id))
    return (await quota.CommitSession(commit_request(session_id, account_id))).session


async def next_events(call: grpc.aio.UnaryStreamCall) -> Sequence[pb.SessionEvent]:
    """The next events of a followed stream; messages with watermarks alone are passed over."""
    while True:
        response = await call.read()
        assert response is not grpc.aio.EOF
        if response.events:
            return response.events


async def test_reading_ends_when_all_is_read(quota: Client, clock: ManualClock) -> None:
    session = await committed(quota)
    released_id = quota.new_id()
    await quota.ReserveSession(reserve_request(released_id))
    released = (await quota.ReleaseSession(release_request(released_id))).session
    first, second = await all_events(quota)
    assert (first.type, first.session) == (pb.SESSION_EVENT_TYPE_COMMITTED, session)
    assert (second.type, second.session) == (pb.SESSION_EVENT_TYPE_RELEASED, released)
    assert first.partition == PARTITION
    assert first.event_time == time_of(clock.now_us())
    assert await all_events(quota, first.cursor) == [second]
    assert await all_events(quota, second.cursor) == []


async def test_many_pages(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=1_000))
    ids = [quota.new_id() for _ in range(600)]

    async def commands() -> AsyncIterator[pb.ExecuteCommandsRequest]:
        for kind in ("reserve", "commit"):
            make = reserve_request if kind == "reserve" else commit_request
            yield pb.ExecuteCommandsRequest(
                commands=[pb.SessionCommand(sequence=n, **{kind: make(i)}) for n, i in enumerate(ids)]  # type: ignore[arg-type]
            )

    async for _ in quota.ExecuteCommands(commands()):
        pass
    call = quota.ReadSessionEvents(reading((PARTITION, "")))
    responses = [response async for response in call]
    found = [event.session.session_id for response in responses for event in response.events]
    assert found == ids
    assert [len(response.watermarks) for response in responses] == [0] * (len(responses) - 1) + [1]
    assert len({event.cursor for response in responses for event in response.events}) == 600


async def test_pages_fit_the_messages_that_every_client_takes(quota: Client) -> None:
    # gRPC's clients take 4 MiB in a message by default.
    await quota.PutEntitlement(entitlement_request(revision=2, limit=1_000))
    labels = {f"{n:064}": "x" * 256 for n in range(16)}
    attempt = type_pb2.Attempt(provider="p" * 64, model="m" * 256)
    ids = [quota.new_id() for _ in range(250)]
    for session_id in ids:
        await quota.ReserveSession(reserve_request(session_id, labels=labels))
        await quota.CommitSession(commit_request(session_id, attempts=[attempt] * 64))
    call = quota.ReadSessionEvents(reading((PARTITION, "")))
    responses = [response async for response in call]
    assert [event.session.session_id for response in responses for event in response.events] == ids
    assert [len(response.watermarks) for response in responses] == [0] * (len(responses) - 1) + [1]


async def test_all_partitions_at_once(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(OTHER))
    sessions = [await committed(quota), await committed(quota, OTHER)]
    call = quota.ReadSessionEvents(reading(*((partition, "") for partition in range(64))))
    responses = [response async for response in call]
    events = [event for response in responses for event in response.events]
    assert {event.session.session_id for event in events} == {session.session_id for session in sessions}
    assert all(event.partition == partition_of(event.session.account_id) for event in events)
    watermarks = [watermark.partition for response in responses for watermark in response.watermarks]
    assert sorted(watermarks) == list(range(64))


async def test_a_follower_gets_what_comes_later(quota: Client) -> None:
    before = await committed(quota)
    call = quota.ReadSessionEvents(reading((PARTITION, ""), follow=True))
    assert [event.session for event in await next_events(call)] == [before]
    for _ in range(3):
        later = await committed(quota)
        assert [event.session for event in await next_events(call)] == [later]
    call.cancel()


async def test_followers_each_get_everything(quota: Client) -> None:
    calls = [quota.ReadSessionEvents(reading((PARTITION, ""), follow=True)) for _ in range(3)]
    for call in calls:
        await call.read()
    session = await committed(quota)
    for call in calls:
        assert [event.session for event in await next_events(call)] == [session]
        call.cancel()


async def test_a_follower_of_another_partition_is_left_alone(quota: Client, server: QuotaServer) -> None:
    other = (PARTITION + 1) % 64
    call = quota.ReadSessionEvents(reading((other, ""), follow=True))
    first = await call.read()
    assert [watermark.partition for watermark in first.watermarks] == [other]
    await committed(quota)
    await quota.PutEntitlement(entitlement_request("acct_x"))
    waiting = asyncio.ensure_future(call.read())
    await committed(quota)
    assert not waiting.done()
    call.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_followers_get_watermarks_while_nothing_happens(
    quota: Client, server: QuotaServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.quota.service.HEARTBEAT_SECONDS", 0.001)
    call = quota.ReadSessionEvents(reading((PARTITION, ""), follow=True))
    await call.read()
    for _ in range(2):
        clock.advance(10)
        await server.store.move_clock()
        while True:
            response = await call.read()
            assert not response.events
            (watermark,) = response.watermarks
            if watermark.watermark_time == time_of(clock.now_us()):
                break
    call.cancel()


async def test_a_watermark_names_the_oldest_running_session(quota: Client, clock: ManualClock) -> None:
    reserved = (await quota.ReserveSession(reserve_request(quota.new_id()))).session
    clock.advance(5)
    await committed(quota)
    (response,) = [r async for r in quota.ReadSessionEvents(reading((PARTITION, "")))]
    (watermark,) = response.watermarks
    assert watermark.oldest_reserve_time == reserved.reserve_time
    assert watermark.watermark_time == time_of(clock.now_us())
    await quota.CommitSession(commit_request(reserved.session_id))
    (response,) = [r async for r in quota.ReadSessionEvents(reading((PARTITION, "")))]
    assert not response.watermarks[0].HasField("oldest_reserve_time")


async def test_a_lease_that_runs_out_reaches_followers(quota: Client, server: QuotaServer, clock: ManualClock) -> None:
    await server.store.sweep()
    clock.advance(60)
    session = (await quota.ReserveSession(reserve_request(quota.new_id(), lease_duration=seconds(1)))).session
    call = quota.ReadSessionEvents(reading((PARTITION, ""), follow=True))
    await call.read()
    clock.advance(1)
    await server.store.sweep()
    (event,) = await next_events(call)
    assert event.type == pb.SESSION_EVENT_TYPE_EXPIRED
    assert event.session.session_id == session.session_id
    assert event.session.state == type_pb2.SESSION_STATE_EXPIRED
    call.cancel()


async def test_acknowledged_events_are_pruned(quota: Client, server: QuotaServer, clock: ManualClock) -> None:
    session = await committed(quota)
    (event,) = await all_events(quota)
    for _ in range(2):
        await quota.AcknowledgeSessionEvents(acknowledging((PARTITION, event.cursor)))
    await quota.AcknowledgeSessionEvents(acknowledging((PARTITION, "")))
    clock.advance_us(2 * DAY_US + 1)
    await prune_all(server.store)
    assert await all_events(quota) == []
    told = await failure(quota.GetSession(pb.GetSessionRequest(account_id=ACCOUNT, session_id=session.session_id)))
    assert told.reason == "SESSION_NOT_FOUND"
    assert await all_events(quota, event.cursor) == []


async def test_cursors_that_are_refused(quota: Client, server: QuotaServer, clock: ManualClock) -> None:
    await committed(quota)
    (event,) = await all_events(quota)
    here = Position(PARTITION, 1, clock.now_us())
    epoch = server.store.epoch
    refused = {
        "garbage": "not a cursor",
        "another partition": cursor_from_position(epoch, here._replace(partition=(PARTITION + 1) % 64)),
        "another store": cursor_from_position("0" * 16, here),
        "not yet": cursor_from_position(epoch, here._replace(position=99)),
        "another time": cursor_from_position(epoch, here._replace(time_us=5)),
        "beyond any integer": cursor_from_position(epoch, here._replace(position=10**30)),
        "too long": "A" * 129,
    }
    for name, cursor in refused.items():
        for call in (
            quota.ReadSessionEvents(reading((PARTITION, cursor))),
            quota.ReadSessionEvents(reading((PARTITION, cursor), follow=True)),
            quota.AcknowledgeSessionEvents(acknowledging((PARTITION, cursor))),
        ):
            told = await failure(call)
            assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST"), name
            if name == "another store":
                assert told.metadata == {"store_epoch": epoch}
    assert await all_events(quota) == [event]


@pytest.mark.parametrize(
    "places", [(), ((64, ""),), ((-1, ""),), ((3, ""), (3, "")), tuple((n % 64, "") for n in range(65))]
)
async def test_malformed_positions(quota: Client, places: tuple[tuple[int, str], ...]) -> None:
    told = await failure(quota.ReadSessionEvents(reading(*places)))
    assert (told.code, told.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_watching_a_quota(quota: Client) -> None:
    call = quota.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT))

    async def counts() -> tuple[int, int, int]:
        shown = (await call.read()).quota
        return shown.session_limit, shown.sessions_committed, shown.sessions_reserved

    assert await counts() == (10, 0, 0)
    session_id = quota.new_id()
    await quota.ReserveSession(reserve_request(session_id))
    assert await counts() == (10, 0, 1)
    await quota.CommitSession(commit_request(session_id))
    assert await counts() == (10, 1, 0)
    await quota.PutEntitlement(entitlement_request(revision=2, limit=20))
    assert await counts() == (20, 1, 0)
    call.cancel()


async def test_a_watcher_ends_at_the_newest_however_fast_changes_come(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(revision=2, limit=500))
    call = quota.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT))
    await call.read()
    await asyncio.gather(*(committed(quota) for _ in range(100)))
    seen: list[int] = []
    while not seen or seen[-1] != 100:
        seen.append((await call.read()).quota.sessions_committed)
    assert seen == sorted(seen)
    call.cancel()


async def test_a_watcher_hears_nothing_of_other_accounts(quota: Client) -> None:
    await quota.PutEntitlement(entitlement_request(OTHER))
    call = quota.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT))
    await call.read()
    await committed(quota, OTHER)
    await committed(quota)
    counts = 0
    while counts != 1:
        shown = (await call.read()).quota
        assert shown.account_id == ACCOUNT
        counts = shown.sessions_committed
    call.cancel()


async def test_streams_that_are_left_leave_nothing_behind(quota: Client, server: QuotaServer) -> None:
    calls = [quota.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT)) for _ in range(5)]
    calls += [quota.ReadSessionEvents(reading((PARTITION, ""), follow=True)) for _ in range(5)]
    for call in calls:
        await call.read()
    assert (len(server.service._watchers), len(server.service._followers)) == (1, 5)
    for call in calls:
        call.cancel()
    while server.service._watchers or server.service._followers:
        # The server learns of a cancellation in a later turn of this loop; a leak runs into the test's time limit.
        await quota.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT))
