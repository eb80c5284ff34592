"""When replicas look at the leases again: soon after another left them something, and seldom otherwise.

Time is virtual.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.leases import LOOKS_IN_ROUND, ROUNDS_IN_LEASE, Lacking, next_look_us
from services.billing.domain.ledger import PARTITIONS, EventBatch, LedgerEntry
from services.billing.ledger_store import Balance
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.reader import SessionEventReader
from services.shared.background import Backoff, keep_running
from tests.simulation import billing_host
from tests.simulation.hosts import HostClock
from tests.support.simulation_loop import Life, SimulatedLoop

T = TypeVar("T")

LEASE_S: Final = 24.0
ROUND_S: Final = LEASE_S / ROUNDS_IN_LEASE
SOON_S: Final = ROUND_S / LOOKS_IN_ROUND


class SilentQuota:
    """A quota in which nothing happens."""

    async def read_session_events(self, after: Mapping[int, str]) -> AsyncIterator[EventBatch]:
        await asyncio.Event().wait()
        yield EventBatch((), ())

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        raise NotImplementedError


class NoStrays:
    """A ledger with nothing kept aside."""

    async def take_strays(self, limit: int) -> tuple[LedgerEntry, ...]:
        return ()


class Replicas:
    """Replicas of billing that share partitions, in virtual time."""

    shared = True

    def __init__(self) -> None:
        self.loop = SimulatedLoop(0, 0.0)
        self.books = billing_host.Books.empty(range(PARTITIONS))
        self.looks: Counter[str] = Counter()
        self.clock = HostClock(self.loop, 1_000_000_000)

    def start(self, name: str) -> Life:
        life = Life(self.loop, name)
        context = Context(cast("Any", self), cast("Any", SilentQuota()), *(cast("Any", None) for _ in range(2)),
                          self.clock, bytes)  # fmt: skip
        reader = SessionEventReader(context, cast("Any", None), Booking(context), name, LEASE_S)
        life.start(keep_running("session events", reader.run_once, Backoff(0.1, 1.0, lambda: 1.0)))
        return life

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        partitions = CountedPartitions(self.books, self.looks)
        return await work(SimpleNamespace(partitions=partitions, ledger=NoStrays()))

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def until(self, shares: Mapping[str, int]) -> float:
        """Lets time pass until the partitions are shared like this; answers how long that took, in seconds."""
        begin_s = self.loop.time()
        while self.shares() != shares:
            assert self.loop.time() < begin_s + 10 * LEASE_S, self.shares()
            self.pass_time(0.01)
        return self.loop.time() - begin_s

    def shares(self) -> Mapping[str, int]:
        return Counter(state.owner for state in self.books.states.values())


class CountedPartitions(billing_host.Partitions):
    """Partitions that count how often each replica looks."""

    def __init__(self, books: billing_host.Books, looks: Counter[str]) -> None:
        super().__init__(books)
        self._looks = looks

    async def balance(self, replica: str, now_us: int, lease_us: int) -> Balance:
        self._looks[replica] += 1
        return await super().balance(replica, now_us, lease_us)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    made = Replicas()
    yield made
    made.loop.end()


def test_what_one_that_died_had_is_taken_when_its_leases_end(replicas: Replicas) -> None:
    replicas.start("a")
    replicas.pass_time(1.5 * SOON_S)
    dying = replicas.start("b")
    replicas.until({"a": 32, "b": 32})
    # It dies right after it said that it is alive: the longest that one can wait for what it had.
    seen = replicas.looks["b"]
    while replicas.looks["b"] == seen:
        replicas.pass_time(0.01)
    dying.kill()
    assert LEASE_S - 0.1 <= replicas.until({"a": PARTITIONS}) <= LEASE_S + SOON_S


def test_one_that_comes_has_its_share_soon_after_it_is_given_up(replicas: Replicas) -> None:
    replicas.start("a")
    replicas.until({"a": PARTITIONS})
    replicas.pass_time(2.5 * ROUND_S)
    replicas.start("b")
    given_up_s = replicas.until({"a": 32, "": 32})
    taken_s = replicas.until({"a": 32, "b": 32})
    # It looks after one part of a round, two, four and so on: it never waits longer than it has waited so far.
    assert taken_s <= max(given_up_s, SOON_S) + 0.1
    assert taken_s < ROUND_S / 2


def test_replicas_that_lack_nothing_look_as_seldom_as_they_can(replicas: Replicas) -> None:
    for name in ("a", "b", "c"):
        replicas.start(name)
    replicas.pass_time(2 * LEASE_S)
    assert sorted(replicas.shares().values()) == [21, 21, 22]
    replicas.looks.clear()
    replicas.pass_time(10 * LEASE_S)
    assert set(replicas.looks.values()) <= {10 * ROUNDS_IN_LEASE - 1, 10 * ROUNDS_IN_LEASE}


times = st.integers(0, 10**9)


@given(st.integers(0, 64), times, times, st.integers(1_000, 10**9), st.integers(0, 10**6))
def test_a_look_comes_within_a_round_and_never_at_once(
    missing: int, end_us: int, now_us: int, lease_us: int, looks: int
) -> None:
    lack = Lacking(missing, end_us if end_us > now_us else 0)
    wait_us = next_look_us(lack, now_us, lease_us, looks)
    round_us = lease_us // ROUNDS_IN_LEASE
    assert round_us // LOOKS_IN_ROUND <= wait_us <= round_us
    if round_us // LOOKS_IN_ROUND <= lack.others_end_us - now_us <= round_us:
        assert wait_us <= lack.others_end_us - now_us
