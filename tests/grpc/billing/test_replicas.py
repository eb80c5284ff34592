"""Several replicas of billing on one PostgreSQL, and a PostgreSQL that is killed under them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from services.billing.config import BillingSettings
from services.billing.domain.ledger import PARTITIONS
from tests.support.billing import BillingUnderTest, billing, reason_of, settings_for
from tests.support.clock import ManualClock
from tests.support.database import migrated, read_rows
from tests.support.fake_quota_events import FakeQuotaEvents
from tests.support.postgres import PostgresServer, running_server

QUICK_LEASE_S = 0.06
"""Replicas say three times in it that they are alive. By the tests' clock, which stands, leases never end."""


@pytest.fixture
def settings(tmp_path: Path, quota: FakeQuotaEvents, billing_postgres: str) -> BillingSettings:
    return settings_for(tmp_path, quota.address, billing_database=billing_postgres, billing_lease_seconds=QUICK_LEASE_S)


def owners(settings: BillingSettings) -> Counter[str]:
    return Counter(row["owner"] for row in read_rows(settings.billing_database, "partition_cursors"))


async def shared_by(settings: BillingSettings, replicas: int) -> Counter[str]:
    """Waits until so many replicas have a fair share each."""
    while True:
        # In a thread: the replicas run in this loop, and each look takes longer than a step of theirs.
        found = await asyncio.to_thread(owners, settings)
        if sorted(found.values()) == sorted(
            PARTITIONS // replicas + (n < PARTITIONS % replicas) for n in range(replicas)
        ):
            return found


async def drained_as_time_goes_on(quota: FakeQuotaEvents, clock: ManualClock) -> None:
    """Waits until all is acknowledged, an hour for each quick lease.

    One that was overtaken says that it is alive, is left its share, and does not look for it for an hour again.
    """
    draining = asyncio.create_task(quota.drained())
    while not draining.done():
        clock.advance(3_600)
        await asyncio.wait([draining], timeout=QUICK_LEASE_S)
    await draining


async def resolve_some(service: BillingUnderTest, quota: FakeQuotaEvents, accounts: list[str], name: str) -> None:
    for number, account_id in enumerate(accounts):
        await quota.resolve(account_id, f"ses_{name}_{number}")


async def test_replicas_share_as_they_come_and_go_and_nothing_is_lost_or_double(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(billing(settings, clock))
        accounts = [(await first.open_account("starter")).account.account_id for _ in range(40)]
        (alone,) = await shared_by(settings, 1)
        await resolve_some(first, quota, accounts, "alone")
        async with billing(settings, clock) as second:
            shares = await shared_by(settings, 2)
            assert alone in shares
            await resolve_some(second, quota, accounts, "two")
            async with billing(settings, clock):
                await resolve_some(second, quota, accounts, "joining")
                await shared_by(settings, 3)
                await resolve_some(second, quota, accounts, "three")
            # The third went while these were on their way.
            await shared_by(settings, 2)
            await resolve_some(second, quota, accounts, "left")
            await quota.drained()
        assert list(await shared_by(settings, 1)) == [alone]
        await resolve_some(first, quota, accounts, "end")
        await quota.drained()
    rows = read_rows(settings.billing_database)
    found = Counter((row["account_id"], row["session_id"]) for row in rows)
    assert len(found) == 40 * 6
    assert set(found.values()) == {1}
    assert owners(settings) == {"": PARTITIONS}, "who ends gives up what it has"


async def test_a_replica_paused_past_its_lease_is_overtaken(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    # The first says nothing for an hour of its own: it is paused, and its lease ends by the clock.
    paused = settings.model_copy(update={"billing_lease_seconds": 3_600.0})
    async with billing(paused, clock) as first:
        accounts = [(await first.open_account("starter")).account.account_id for _ in range(20)]
        (old,) = await shared_by(paused, 1)
        await quota.set_withhold(True)
        await resolve_some(first, quota, accounts, "late")
        clock.advance(3_600)
        async with billing(settings, clock) as second:
            while owners(settings)[old]:
                await asyncio.sleep(0)
            # Both are sent the events now; what the first makes of them is refused.
            await quota.set_withhold(False)
            await drained_as_time_goes_on(quota, clock)
            await resolve_some(second, quota, accounts, "later")
            await drained_as_time_goes_on(quota, clock)
    rows = read_rows(settings.billing_database)
    assert len(rows) == 40
    fences = {row["fence"] for row in read_rows(settings.billing_database, "partition_cursors")}
    assert min(fences) >= 2


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


async def test_postgresql_killed_under_load_loses_nothing_and_doubles_nothing(
    tmp_path: Path, clock: ManualClock, quota: FakeQuotaEvents, server: PostgresServer
) -> None:
    address = migrated(server.address())
    settings = settings_for(tmp_path, quota.address, billing_database=address)
    opened: list[str] = []
    refused = 0
    stop = asyncio.Event()

    async def open_accounts(service: BillingUnderTest) -> None:
        nonlocal refused
        while not stop.is_set():
            try:
                opened.append((await service.open_account("starter", request_id=f"r{len(opened)}")).account.account_id)
            except grpc.aio.AioRpcError:
                refused += 1

    sent = 0
    async with billing(settings, clock) as service:
        accounts = [(await service.open_account("starter")).account.account_id for _ in range(20)]
        load = asyncio.create_task(open_accounts(service))
        for _ in range(3):
            for _ in range(5):
                await resolve_some(service, quota, accounts, f"load{sent}")
                sent += 1
                before = len(opened)
                while len(opened) == before:
                    await asyncio.sleep(0)
            await asyncio.to_thread(server.kill)
            await resolve_some(service, quota, accounts, f"down{sent}")
            sent += 1
            await asyncio.to_thread(server.start)
        await quota.drained()
        stop.set()
        await load
    rows = read_rows(address)
    assert len(rows) == sent * len(accounts)
    assert len({(row["account_id"], row["session_id"]) for row in rows}) == len(rows)
    # What was answered is there, and a request that was repeated after an unknown end made one account.
    stored = [row["account_id"] for row in read_rows(address, "accounts")]
    assert sorted(stored) == sorted({*accounts, *opened})
    assert len(opened) == len(set(opened))
    assert refused > 0, "the load ran while the database was down"


async def test_a_database_that_is_down_answers_a_sentence_and_serves_again(
    tmp_path: Path, clock: ManualClock, quota: FakeQuotaEvents, server: PostgresServer
) -> None:
    settings = settings_for(tmp_path, quota.address, billing_database=migrated(server.address()))
    async with billing(settings, clock) as service:
        customer = await service.new_customer("starter")
        await asyncio.to_thread(server.kill)
        assert await reason_of(service.authenticate(customer.secret)) == "BILLING_UNAVAILABLE"
        await asyncio.to_thread(server.start)
        while True:
            try:
                answer = await service.authenticate(customer.secret)
            except grpc.aio.AioRpcError:
                continue
            assert answer.account_id == customer.account_id
            break
