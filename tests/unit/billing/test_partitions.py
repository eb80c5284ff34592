"""Partitions are leased: shared fairly as replicas come and go, and written by their holder alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.adapters.sql.database import Database, open_database
from services.billing.domain.leases import LeaseState, fair_share, share
from services.billing.domain.ledger import (
    PARTITIONS,
    EventBatch,
    LedgerEntry,
    PartitionLease,
    PositionedEntry,
    Watermark,
    advanced,
)
from services.billing.store import Transaction

LEASE_US = 10_000_000
BEGIN_US = 1_000_000_000


def entry(session_id: str, account_id: str = "acct_unknown") -> LedgerEntry:
    return LedgerEntry(
        account_id, session_id, 1, 1, 2, 1, 1, 2, 1, 2, "", "", 0, None, None, None, None, None, False,
        0, 0, "", "", "{}", "{}", 1,
    )  # fmt: skip


async def balance(database: Database, replica: str, now_us: int = BEGIN_US) -> dict[int, PartitionLease]:
    held = await database.transact(lambda t: t.partitions.balance(replica, now_us, LEASE_US))
    return {lease.partition: lease for lease in held.leases}


async def advance(database: Database, leases: Sequence[PartitionLease], now_us: int = BEGIN_US) -> bool:
    return await database.transact(lambda t: t.partitions.advance(leases, now_us + LEASE_US))


@pytest.fixture
async def other(database: Database, database_address: str) -> AsyncIterator[Database]:
    """Another replica's way to the same database; on SQLite there is no other."""
    if not database.shared:
        yield database
        return
    opened = await open_database(database_address)
    yield opened
    await opened.close()


async def test_a_lone_replica_holds_everything_and_keeps_it(database: Database) -> None:
    first = await balance(database, "a")
    assert set(first) == set(range(PARTITIONS))
    assert await balance(database, "a", BEGIN_US + 100 * LEASE_US) == first


async def test_shares_even_out_as_replicas_come_and_go(database: Database, other: Database) -> None:
    stores = {"a": database, "b": other, "c": database}
    await balance(database, "a")
    assert await balance(other, "b") == {}, "nobody is robbed of what it holds"
    rounds = [{name: await balance(stores[name], name) for name in ("a", "b", "c")} for _ in range(3)][-1]
    assert sorted(len(held) for held in rounds.values()) == [21, 21, 22]
    assert sorted(part for held in rounds.values() for part in held) == list(range(PARTITIONS))

    await other.transact(lambda t: t.partitions.release("b"))
    rounds = [{name: await balance(stores[name], name) for name in ("a", "c")} for _ in range(2)][-1]
    assert sorted(len(held) for held in rounds.values()) == [32, 32]

    # c falls silent: until its leases end nobody takes what is its own.
    before_us, after_us = BEGIN_US + LEASE_US - 1, BEGIN_US + LEASE_US
    assert len(await balance(database, "a", before_us)) == 32
    assert len(await balance(database, "a", after_us)) == PARTITIONS


async def test_what_a_replica_stored_is_where_the_next_one_begins(database: Database, other: Database) -> None:
    held = await balance(database, "a")
    batch = EventBatch((PositionedEntry(3, "c7", entry("ses_1")),), (Watermark(3, 70, 60), Watermark(9, 80, 0)))
    moved = advanced(held, batch)
    assert set(moved) == {3, 9}
    assert await advance(database, tuple(moved.values()))
    later = await balance(other, "b", BEGIN_US + 2 * LEASE_US)
    assert later[3] == PartitionLease(3, held[3].fence + 1, "c7", 70, 60)
    assert later[9] == PartitionLease(9, held[9].fence + 1, "", 80, 0)
    assert await database.transact(lambda t: t.partitions.watermark_us(3)) == 70


async def test_a_replica_paused_past_its_lease_writes_nothing(database: Database, other: Database) -> None:
    old = await balance(database, "a")
    new = await balance(other, "b", BEGIN_US + LEASE_US)
    assert all(new[part].fence > old[part].fence for part in range(PARTITIONS))
    late = [old[5]._replace(cursor="late"), old[6]._replace(watermark_us=99)]
    for leases in ([late[0]], [late[1]], late, [new[4], late[0]]):
        assert not await advance(database, leases)
    assert {lease.cursor for lease in await database.transact(lambda t: t.partitions.all())} == {""}
    assert await advance(other, [new[5]._replace(cursor="now")])


async def test_a_lease_that_ended_is_still_good_while_nobody_took_it(database: Database) -> None:
    held = await balance(database, "a")
    assert await advance(database, [held[1]._replace(cursor="c1")], BEGIN_US + 5 * LEASE_US)
    assert await balance(database, "b", BEGIN_US + 5 * LEASE_US) != {}, "what was not written again is free"
    assert 1 not in await balance(database, "b", BEGIN_US + 5 * LEASE_US), "and what was is not"


async def test_rows_and_cursor_are_written_together_or_not_at_all(database: Database) -> None:
    held = await balance(database, "a")
    moved = [held[3]._replace(cursor="c1", watermark_us=50)]

    async def store(transaction: Transaction) -> None:
        assert await transaction.partitions.advance(moved, BEGIN_US)
        await transaction.ledger.insert((PositionedEntry(3, "c1", entry("ses_1")),), 1)

    async def fail(transaction: Transaction) -> None:
        await store(transaction)
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        await database.transact(fail)
    assert (await database.transact(lambda t: t.partitions.all()))[3].cursor == ""
    assert await database.transact(lambda t: t.ledger.strays("", None, 10)) == []
    await database.transact(store)
    assert (await database.transact(lambda t: t.partitions.all()))[3].cursor == "c1"
    assert len(await database.transact(lambda t: t.ledger.strays("", None, 10))) == 1


@pytest.mark.parametrize("database_address", ["postgresql"], indirect=True)
async def test_a_replica_that_hangs_in_a_transaction_keeps_nobody_waiting(database: Database, other: Database) -> None:
    held = await balance(database, "a")
    written, go_on = asyncio.Event(), asyncio.Event()

    async def hang(transaction: Transaction) -> bool:
        advanced = await transaction.partitions.advance([held[0]._replace(cursor="c1")], BEGIN_US)
        written.set()
        await go_on.wait()
        return advanced

    hanging = asyncio.create_task(database.transact(hang))
    await written.wait()
    taken = await balance(other, "b", BEGIN_US + LEASE_US)
    assert set(taken) == set(range(1, PARTITIONS)), "all but the one that is being written"
    go_on.set()
    assert await hanging
    taken = await balance(other, "b", BEGIN_US + LEASE_US)
    assert taken[0].cursor == "c1"


@pytest.mark.parametrize("database_address", ["postgresql"], indirect=True)
async def test_replicas_that_move_at_the_same_time_never_hold_the_same(database: Database, other: Database) -> None:
    for round_number in range(20):
        now_us = BEGIN_US + round_number * LEASE_US // 2
        await asyncio.gather(
            *(balance((database, other)[number % 2], f"replica-{number}", now_us) for number in range(6))
        )
    held = [await balance(database, f"replica-{number}", now_us) for number in range(6)]
    assert sorted(part for leases in held for part in leases) == list(range(PARTITIONS))
    assert {len(leases) for leases in held} == {10, 11}


names = st.sampled_from(["a", "b", "c", "d"])
moves = st.lists(st.tuples(names, st.integers(0, LEASE_US), st.booleans()), max_size=60)


@given(moves)
def test_any_history_of_replicas_keeps_each_partition_with_one_and_ends_fair(
    history: list[tuple[str, int, bool]],
) -> None:
    states = {part: LeaseState(part, "", 0, 0) for part in range(PARTITIONS)}
    alive: dict[str, int] = {}
    now_us = BEGIN_US

    def move(name: str) -> None:
        alive[name] = now_us + LEASE_US
        living = [other for other, until_us in alive.items() if until_us > now_us]
        shares = share(tuple(states.values()), living, name, now_us)
        for part in shares.take:
            assert not states[part].owner or states[part].end_us <= now_us, "taken from one whose lease runs"
            states[part] = LeaseState(part, name, states[part].fence + 1, now_us + LEASE_US)
        for part in shares.keep:
            assert states[part].owner == name
            states[part] = states[part]._replace(end_us=now_us + LEASE_US)
        for part in shares.give:
            assert states[part].owner == name
            states[part] = states[part]._replace(owner="", end_us=0)

    for name, passed_us, ends in history:
        now_us += passed_us
        if ends:
            alive.pop(name, None)
            states = {p: s._replace(owner="", end_us=0) if s.owner == name else s for p, s in states.items()}
        else:
            move(name)
    now_us += LEASE_US
    for _ in range(3):
        for name in ("a", "b"):
            move(name)
    assert sorted(state.owner for state in states.values()) == ["a"] * 32 + ["b"] * 32


@given(st.integers(1, 200), st.sets(st.text(max_size=3), min_size=1))
def test_fair_shares_add_up(partitions: int, alive: set[str]) -> None:
    shares = [fair_share(partitions, name, alive) for name in sorted(alive)]
    assert sum(shares) == partitions
    assert all(0 <= first - second <= 1 for first, second in pairwise(shares))
