"""Long looks through documents on SQLite, where one connection serves all: others get their turn meanwhile, and the
answer is of one moment all the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.shared.errors import FlowStackError, Reason
from services.vault.adapters.sql import time_limit
from services.vault.adapters.sql.database import Database, open_database
from services.vault.adapters.sql.time_limit import Watch
from services.vault.convert import sort_from_proto
from services.vault.domain import looking
from services.vault.domain.indexing import IndexState
from services.vault.domain.looking import Pace
from services.vault.service.queries import DocumentPage, Query
from services.vault.store import Transaction
from tests.support.clock import ManualClock
from tests.support.vault import ALICE, BOB, sorts
from tests.support.vault_books import VaultBooks
from tests.support.vault_reference import Kept, decode, query

Work = Callable[[Transaction], Awaitable[Any]]


class Steps:
    """Runs something before each transaction of a query, while no transaction runs."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.before: Callable[[], Awaitable[None]] | None = None
        self._transact = database.transact
        monkeypatch.setattr(database, "transact", self._counted)

    async def _counted(self, work: Work, *, snapshot: bool = False) -> Any:
        if snapshot:
            self.count += 1
            if self.before is not None:
                await self.before()
        return await self._transact(work, snapshot=snapshot)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=[1, 200], ids=["one document a turn", "some documents a turn"])
async def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """A store where a turn is over after so many steps of SQLite's machine, instead of after a time."""
    monkeypatch.setattr(time_limit, "_STEPS", request.param)
    opened = await open_database(f"sqlite:///{tmp_path / 'vault.db'}", Watch(turn_s=0.0))
    yield opened
    await opened.close()


@pytest.fixture
def books(database: Database, clock: ManualClock) -> VaultBooks:
    return VaultBooks(database, clock)


@pytest.fixture
def steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(database, monkeypatch)


async def fill(books: VaultBooks, account_id: str = ALICE, count: int = 40) -> None:
    for number in range(count):
        await books.store(account_id, "c", f"k{number:03}", f'{{"n":{(number * 7) % count},"m":{number % 3}}}')


async def test_other_calls_complete_while_a_query_looks_through_documents(books: VaultBooks, steps: Steps) -> None:
    await fill(books)
    is_suspended, may_go_on = asyncio.Event(), asyncio.Event()

    async def suspend() -> None:
        if steps.count == 8:
            is_suspended.set()
            await may_go_on.wait()

    steps.before = suspend
    looking_through = asyncio.create_task(books.query(ALICE, "c", '{"m":{"$ne":1}}', ["-n"], 3))
    await is_suspended.wait()
    steps.before = None
    await books.store(BOB, "d", "k", '{"n":1}')
    await books.store(ALICE, "c", "new", '{"n":99}')
    assert await books.documents.delete_matching(ALICE, "c", '{"n":39}') == 1
    assert await books.query(BOB, "d", '{"n":1}') == ["k"]
    assert not looking_through.done()
    may_go_on.set()
    found = await looking_through
    assert found[0] == "new"
    assert found == await books.query(ALICE, "c", '{"m":{"$ne":1}}', ["-n"], 50)


async def test_every_step_gives_a_turn_to_who_waits(books: VaultBooks, steps: Steps) -> None:
    await fill(books)
    looking_through = asyncio.create_task(books.query(ALICE, "c", '{"nothing":1}', ["-n"]))
    turns = 0
    while not looking_through.done():
        await books.store(BOB, "d", "k", "{}")
        turns += 1
    assert await looking_through == []
    assert steps.count > 5
    assert turns >= steps.count - 1


async def test_a_query_that_finds_no_end_is_ended_with_advice(
    books: VaultBooks, steps: Steps, clock: ManualClock
) -> None:
    await fill(books)

    async def let_time_pass() -> None:
        clock.advance(looking.QUERY_SECONDS_MAX / 4)

    steps.before = let_time_pass
    with pytest.raises(FlowStackError, match="an index of it is being made") as raised:
        await books.query(ALICE, "c", '{"nothing":1}', ["-n"])
    assert raised.value.reason is Reason.CALL_TIME_LIMIT
    assert steps.count == 6, "one that was to do it all, and five of a quarter of the time each"
    steps.before = None
    assert len(await books.query(ALICE, "c", "")) == 40, "all else goes on"


async def test_an_index_that_goes_meanwhile_is_done_without(books: VaultBooks, steps: Steps) -> None:
    await fill(books)
    await books.build_index(ALICE, "c", ("n",))
    expected = await books.query(ALICE, "c", '{"m":1}', ["-n"])
    assert len(expected) == 13
    steps.count = 0

    async def drop() -> None:
        if steps.count == 8:
            (index,) = await books.database.transact(lambda t: t.indexes.of(ALICE, "c"))
            assert index.state is IndexState.READY
            await books.database.transact(lambda t: t.indexes.begin_drop(ALICE, index))
            await books.work_on_indexes()

    steps.before = drop
    assert await books.query(ALICE, "c", '{"m":1}', ["-n"]) == expected
    assert await books.indexes(ALICE, "c") == {}


async def test_a_deletion_gives_turns_too(books: VaultBooks, database: Database) -> None:
    await fill(books)
    deleting = asyncio.create_task(books.documents.delete_matching(ALICE, "c", '{"m":{"$in":[1,"x"]}}'))
    turns = 0
    while not deleting.done():
        await books.store(BOB, "d", "k", "{}")
        turns += 1
    assert await deleting == 13
    assert turns > 5
    assert len(await books.query(ALICE, "c", "")) == 27


async def test_a_deletion_looks_at_some_documents_at_once_on_each_store(
    vault_database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_DOCUMENTS", 8)
    books = VaultBooks(vault_database, clock)
    await fill(books)
    transactions = 0
    shipped = vault_database.transact

    async def counted(work: Work, *, snapshot: bool = False) -> Any:
        nonlocal transactions
        transactions += 1
        return await shipped(work, snapshot=snapshot)

    monkeypatch.setattr(vault_database, "transact", counted)
    assert await books.documents.delete_matching(ALICE, "c", '{"n":39}') == 1
    assert transactions == 4, "8, 10, 12 documents, and the rest"


def test_the_pace_falls_fast_and_rises_slowly() -> None:
    pace = Pace()
    first = pace.documents
    pace.slow_down()
    assert pace.documents == first // 4
    pace.speed_up()
    assert first // 4 < pace.documents < first // 3
    for _ in range(20):
        pace.slow_down()
    assert pace.documents == 1
    for _ in range(200):
        pace.speed_up()
    assert pace.documents == looking._DOCUMENTS_MAX


KEYS = [f"k{number}" for number in range(9)]
texts = st.builds('{{"a":{},"b":{}}}'.format, st.integers(0, 4), st.integers(0, 2)) | st.just("{}")
# None deletes.
changes = st.tuples(st.sampled_from([*KEYS, "new", "newer"]), st.none() | texts)
WANTED = ("", '{"a":{"$gte":2}}', '{"b":1}', '{"$not":{"a":1}}')
SORTS = ([], ["-_key"], ["a"], ["-a"], ["a", "-b"], ["_create_time"], ["-_update_time", "a"], ["b", "-_key"])
SETTINGS = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


numbers = itertools.count()


@dataclass
class Case:
    """What one example is about."""

    documents: list[str]
    happening: list[list[tuple[str, str | None]]]
    """What changes before each of a query's transactions."""
    wanted: str
    sort: list[str]
    limit: int


cases = st.builds(
    Case,
    documents=st.lists(texts, min_size=6, max_size=9),
    happening=st.lists(st.lists(changes, max_size=2), max_size=10),
    wanted=st.sampled_from(WANTED),
    sort=st.sampled_from(SORTS),
    limit=st.integers(1, 4),
)


class Mirror:
    """A collection, and what plain Python holds it to be."""

    def __init__(self, books: VaultBooks, clock: ManualClock, collection: str) -> None:
        self._books = books
        self._clock = clock
        self.collection = collection
        self.texts: dict[str, str] = {}
        self._times: dict[str, tuple[int, int]] = {}

    async def change(self, key: str, text: str | None) -> None:
        """Stores a document, or deletes it."""
        self._clock.advance(1)
        if text is None:
            await self._books.database.transact(lambda t: t.documents.delete(ALICE, self.collection, [key]))
            self.texts.pop(key, None)
            self._times.pop(key, None)
            return
        await self._books.store(ALICE, self.collection, key, text)
        created_us, _ = self._times.get(key, (self._clock.now_us(), 0))
        self.texts[key], self._times[key] = text, (created_us, self._clock.now_us())

    def find(self, wanted: str, sort: list[str]) -> list[str]:
        """What a query finds now."""
        kept = []
        for key, text in self.texts.items():
            created_us, updated_us = map(Decimal, self._times[key])
            kept.append(Kept(key, decode(text) | {"_create_time": created_us, "_update_time": updated_us}))
        return query(kept, decode(wanted or "{}"), sort)


async def answers_of_one_moment(books: VaultBooks, steps: Steps, clock: ManualClock, case: Case, paths: str) -> None:
    """Asserts that a page is what plain Python finds at the end of the query, whatever happens meanwhile."""
    mirror = Mirror(books, clock, f"c{next(numbers)}")
    for key, text in zip(KEYS, case.documents, strict=False):
        await mirror.change(key, text)
    for path in paths:
        await books.build_index(ALICE, mirror.collection, (path,))
    left = list(case.happening)

    async def happen() -> None:
        for key, text in left.pop(0) if left else ():
            await mirror.change(key, text)

    fields = tuple(sort_from_proto(one) for one in sorts(case.sort))
    asked = Query(ALICE, mirror.collection, case.wanted, fields, case.limit, "")
    steps.count, steps.before = 0, happen
    page: DocumentPage = await books.queries.query(asked)
    steps.before = None
    expected = mirror.find(case.wanted, case.sort)
    found = [one.key for one in page.documents]
    assert steps.count > 1, "it was done in steps"
    assert found == expected[: len(found)]
    assert [one.text for one in page.documents] == [mirror.texts[key] for key in found]
    assert any(case.happening) or len(found) == min(case.limit, len(expected)), "a page is full where nothing happens"
    while page.next_token:
        page = await books.queries.query(replace(asked, page_token=page.next_token))
        found += [one.key for one in page.documents]
    assert found == expected


@pytest.mark.parametrize("database", [1], indirect=True, ids=[""])
@pytest.mark.parametrize("paths", ["", "ab"], ids=["no index", "indexed"])
@SETTINGS
@given(case=cases)
async def test_the_answer_is_of_one_moment(
    books: VaultBooks, steps: Steps, clock: ManualClock, paths: str, case: Case
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "_DOCUMENTS", 2)
        await answers_of_one_moment(books, steps, clock, case, paths)
