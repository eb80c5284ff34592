"""The SQLite store when its disk fills up, and when one job of a group is our own defect."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.quota.adapters.sqlite import SqliteStore
from services.quota.domain.commands import Command, Done
from services.quota.domain.cursors import Position
from services.quota.domain.model import partition_of
from services.shared.errors import FlowStackError, Reason
from tests.support.clock import ManualClock
from tests.support.quota import (
    ACCOUNT,
    BYOK,
    commit,
    done,
    entitlement,
    new_session_id,
    one,
    outcome,
    prune_all,
    reason_of,
    release,
    reserve,
    results_of,
    sqlite_store,
)

BULKY = outcome(BYOK, b"x" * 60_000)
BEGINNING = Position(partition_of(ACCOUNT), 0, 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let a test mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def make_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)


def allow_no_new_pages(store: SqliteStore) -> None:
    """SQLite answers `database or disk is full` to whatever needs another page."""
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")


def allow_pages(store: SqliteStore) -> None:
    store._connection.execute("PRAGMA max_page_count = 1000000")


async def used(store: SqliteStore) -> tuple[int, int]:
    quota = await store.quota(ACCOUNT)
    assert quota is not None
    return quota.byok_sessions, quota.sessions_reserved


async def test_a_full_database_fails_the_whole_group_and_leaves_nothing_half_done(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement(limit=1_000))
        running = done(await one(store, reserve(new_session_id(clock)))).session
        epoch, before = store.epoch, await store.quota(ACCOUNT)
        allow_no_new_pages(store)
        small, bulky = reserve(new_session_id(clock)), commit(running.session_id, ended=BULKY)
        answers = await asyncio.gather(results_of(store, [small]), results_of(store, [bulky]))
        assert [reason_of(result) for (result,) in answers] == [Reason.QUOTA_UNAVAILABLE] * 2
        assert await store.quota(ACCOUNT) == before
        assert await store.session(ACCOUNT, small.session_id) is None
        assert await store.session(ACCOUNT, running.session_id) == running
        assert (await store.read_events(BEGINNING, 10)).events == []

        allow_pages(store)
        assert store.epoch == epoch
        assert not done(await one(store, bulky)).replayed
        assert not done(await one(store, small)).replayed
        assert await used(store) == (1, 1)
        (event,) = (await store.read_events(BEGINNING, 10)).events
        assert event.session.outcome == BULKY


async def test_a_full_disk(small_disk: Path, clock: ManualClock) -> None:
    async with sqlite_store(small_disk / "quota.db", clock) as store:
        await store.put_entitlement(entitlement(limit=10_000))
        granted: list[str] = []
        counted: list[str] = []
        refused: Command | None = None
        while refused is None:
            assert len(granted) < 1_000, "the disk never filled up"
            session_id = new_session_id(clock)
            for command in (reserve(session_id), commit(session_id, ended=BULKY)):
                result = await one(store, command)
                if isinstance(result, Done):
                    (counted if result.session.resolve_us else granted).append(session_id)
                else:
                    assert reason_of(result) is Reason.QUOTA_UNAVAILABLE
                    refused = command
                    break
        assert counted, "something fits on the disk"

        make_room(small_disk)
        assert not done(await one(store, refused)).replayed
        expected = len(counted) + 1 if refused.session_id in granted else len(counted)
        assert (await used(store))[0] == expected
        for session_id in counted:
            assert done(await one(store, commit(session_id, ended=BULKY))).replayed
        assert len((await store.read_events(BEGINNING, 1_000)).events) == expected
    async with sqlite_store(small_disk / "quota.db", clock) as store:
        assert (await used(store))[0] == expected, "the file says the same"


async def test_a_defect_of_one_job_does_not_take_the_others_down(tmp_path: Path, clock: ManualClock) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement())
        # No column can hold this lease; validation keeps it from every caller, so it stands for a defect of ours.
        poison = reserve(new_session_id(clock), lease_us=2**70)
        good = [reserve(new_session_id(clock)) for _ in range(4)]
        answers = await asyncio.gather(
            store.execute(good[:2]),
            store.execute([poison]),
            store.execute(good[2:]),
            store.quota(ACCOUNT),
            return_exceptions=True,
        )
        assert isinstance(answers[1], OverflowError)
        assert not isinstance(answers[1], FlowStackError)
        for results in (answers[0], answers[2]):
            assert isinstance(results, list)
            assert [done(result).replayed for result in results] == [False, False]
        assert await used(store) == (0, 4)
        assert await store.session(ACCOUNT, poison.session_id) is None
        assert not done(await one(store, reserve(new_session_id(clock)))).replayed, "it goes on"


async def test_jobs_keep_their_order_when_each_has_to_go_alone(tmp_path: Path, clock: ManualClock) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement(limit=2))
        poison = reserve(new_session_id(clock), lease_us=2**70)
        first, second, third = (reserve(new_session_id(clock)) for _ in range(3))
        answers = await asyncio.gather(
            *(store.execute([command]) for command in (first, poison, second, third)), return_exceptions=True
        )
        assert isinstance(answers[1], OverflowError)
        results = [answer[0] for answer in answers if isinstance(answer, list)]
        assert [done(result).session.session_id for result in results[:2]] == [first.session_id, second.session_id]
        assert reason_of(results[2]) is Reason.SESSION_QUOTA_EXCEEDED


async def test_pruning_leaves_no_rows(tmp_path: Path, clock: ManualClock) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement())
        for number in range(3):
            session_id = new_session_id(clock)
            done(await one(store, reserve(session_id, request_id=f"req-{number}")))
            done(await one(store, commit(session_id)))
        done(await one(store, release(new_session_id(clock), reason=6)))
        newest = (await store.read_events(BEGINNING, 10)).events[-1]
        await store.acknowledge([Position(newest.partition, newest.position, newest.time_us)])
        clock.advance(3 * 24 * 3600)
        await prune_all(store)
        counts = {
            table: store._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("sessions", "requests", "events")
        }
        assert counts == {"sessions": 0, "requests": 0, "events": 0}


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three accounts are kept in memory, where there are really 50,000."""
    monkeypatch.setattr("services.quota.adapters.sqlite.memory.ACCOUNTS_MAX", 3)


async def store_accounts(store: SqliteStore, count: int) -> list[str]:
    accounts = [f"acct_{number}" for number in range(count)]
    for account_id in accounts:
        await store.put_entitlement(entitlement(account_id, limit=1))
    return accounts


async def test_a_group_on_more_accounts_than_memory_keeps(
    tmp_path: Path, clock: ManualClock, small_memory: None
) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock, hold_us=0) as store:
        accounts = await store_accounts(store, 20)
        work = []
        for account_id in (*accounts, *accounts):
            # The reads between them keep the commands apart: each is a job's own step of the same group.
            work.append(store.execute([reserve(new_session_id(clock), account_id)]))
            work.append(store.quota(account_id))
        answers = (await asyncio.gather(*work))[::2]
        assert [done(result).replayed for (result,) in answers[:20]] == [False] * 20  # type: ignore[union-attr, misc]
        assert {reason_of(result) for (result,) in answers[20:]} == {  # type: ignore[union-attr, misc]
            Reason.SESSION_QUOTA_EXCEEDED
        }


async def test_leases_of_more_accounts_than_memory_keeps_run_out_together(
    tmp_path: Path, clock: ManualClock, small_memory: None
) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock, hold_us=0) as store:
        accounts = await store_accounts(store, 20)
        await store.execute([reserve(new_session_id(clock), account_id) for account_id in accounts])
        clock.advance(3600)
        for account_id in accounts:
            assert not done(await one(store, reserve(new_session_id(clock), account_id))).replayed


async def test_reads_on_a_full_disk_do_not_shorten_the_hold(tmp_path: Path, clock: ManualClock) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement())
        await store.sweep()
        clock.advance(60)
        running = done(await one(store, reserve(new_session_id(clock), lease_us=30_000_000))).session
        allow_no_new_pages(store)
        assert reason_of(await one(store, commit(running.session_id, ended=BULKY))) is Reason.QUOTA_UNAVAILABLE
        for _ in range(60):
            with pytest.raises(FlowStackError):
                await store.sweep()
            await store.quota(ACCOUNT)
            clock.advance(1)
        allow_pages(store)
        await store.sweep()
        # Commands have been possible again for no time at all: the router's next try has to find its lease.
        assert not done(await one(store, commit(running.session_id, ended=BULKY))).replayed


async def test_a_defect_does_not_hold_expiry_back(tmp_path: Path, clock: ManualClock) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement())
        clock.advance(60)
        running = done(await one(store, reserve(new_session_id(clock), lease_us=30_000_000))).session

        def defect(_: object) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store._writer.submit(defect)
        clock.advance(31)
        await store.sweep()
        expired = await store.session(ACCOUNT, running.session_id)
        assert expired is not None
        assert expired.state.name == "EXPIRED"


async def test_pruning_goes_on_until_nothing_is_left(tmp_path: Path, clock: ManualClock) -> None:
    async with sqlite_store(tmp_path / "quota.db", clock) as store:
        await store.put_entitlement(entitlement(limit=1_000))
        commands = [reserve(new_session_id(clock)) for _ in range(450)]
        await store.execute(commands)
        await store.execute([release(command.session_id) for command in commands])
        newest = (await store.read_events(BEGINNING, 450)).events[-1]
        await store.acknowledge([Position(newest.partition, newest.position, newest.time_us)])
        clock.advance(48 * 3600 + 1)
        partition = partition_of(ACCOUNT)
        assert [await store.prune(partition) for _ in range(3)] == [True, True, False]
        assert await store.session(ACCOUNT, commands[-1].session_id) is None
