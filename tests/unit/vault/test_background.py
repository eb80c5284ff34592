"""What goes on beside the calls, on each store: indexes, sweeping, purging."""

from __future__ import annotations

import pytest

from services.shared.errors import FlowStackError, Reason
from services.vault.adapters.sql.database import Database
from services.vault.adapters.sql.tables import METADATA
from services.vault.domain import indexing as domain
from services.vault.domain.indexing import UNUSED_US, IndexState
from services.vault.service import indexing as indexing_service
from services.vault.service import upkeep
from services.vault.service.indexing import Wish
from services.vault.service.upkeep import Purger, Sweeper
from tests.support.clock import DAY_US, ManualClock
from tests.support.vault import ALICE, BOB
from tests.support.vault_books import VaultBooks

SECOND_US = 1_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(vault_database: Database, clock: ManualClock) -> VaultBooks:
    return VaultBooks(vault_database, clock)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "DOCUMENTS_MIN", 3)
    monkeypatch.setattr(domain, "INDEXES_PER_COLLECTION_MAX", 2)
    monkeypatch.setattr(indexing_service, "DOCUMENTS_AT_ONCE", 2)
    monkeypatch.setattr(upkeep, "DOCUMENTS_AT_ONCE", 2)


async def rows_of(database: Database) -> dict[str, int]:
    async with database.engine.connect() as connection:
        return {
            name: (await connection.exec_driver_sql(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in METADATA.tables
        }


async def fill(books: VaultBooks, account_id: str, collection: str, count: int = 7) -> None:
    for number in range(count):
        await books.store(account_id, collection, f"k{number}", f'{{"n":{(number * 3) % count},"m":{number % 2}}}')


async def test_a_query_that_sorts_gets_an_index_and_the_same_answer(books: VaultBooks) -> None:
    await fill(books, ALICE, "c")
    await fill(books, BOB, "c")
    before = await books.query(ALICE, "c", '{"m":1}', ["-n"], 2)
    await books.work_on_indexes()
    assert await books.indexes(ALICE, "c") == {("n",): IndexState.READY}
    assert await books.indexes(BOB, "c") == {}
    assert (await rows_of(books.database))["sort_entries"] == 7, "nobody else's documents are in it"
    assert await books.query(ALICE, "c", '{"m":1}', ["-n"], 2) == before


async def test_a_query_for_one_value_gets_an_index(books: VaultBooks) -> None:
    await fill(books, ALICE, "c")
    before = await books.query(ALICE, "c", '{"n":{"$eq":3},"m":{"$gte":0}}')
    await books.work_on_indexes()
    assert await books.indexes(ALICE, "c") == {("n",): IndexState.READY}
    assert await books.query(ALICE, "c", '{"n":{"$eq":3},"m":{"$gte":0}}') == before == ["k1"]
    assert await books.documents.delete_matching(ALICE, "c", '{"n":3}') == 1
    assert await books.query(ALICE, "c", '{"n":3}') == []


async def test_an_index_follows_what_is_stored_and_deleted_while_it_is_built(books: VaultBooks) -> None:
    await fill(books, ALICE, "c")
    books.indexing.wish(Wish(ALICE, "c", ("n",)))
    assert await books.indexing.run_once()
    assert await books.indexes(ALICE, "c") == {("n",): IndexState.BUILDING}
    # Before and behind the place that the work has come to.
    for key, value in (("k0", 90), ("k6", -1), ("k9", 95), ("a", 40)):
        await books.store(ALICE, "c", key, f'{{"n":{value}}}')
    await books.documents.delete_matching(ALICE, "c", '{"m":1}')
    await books.work_on_indexes()
    expected = ["k6", "k4", "k2", "a", "k0", "k9"]
    assert sorted(expected) == sorted(await books.query(ALICE, "c", ""))
    assert await books.query(ALICE, "c", "", ["n"], 2) == expected
    assert (await rows_of(books.database))["sort_entries"] == len(expected)
    await books.store(ALICE, "c", "k9", '{"other":1}')
    assert await books.query(ALICE, "c", "", ["n"], 2) == ["k9", *expected[:-1]], "nothing there sorts first"


async def test_small_collections_get_none_until_they_grow(books: VaultBooks, clock: ManualClock) -> None:
    await fill(books, ALICE, "c", 2)
    await books.query(ALICE, "c", "", ["n"])
    await books.work_on_indexes()
    assert await books.indexes(ALICE, "c") == {}
    await fill(books, ALICE, "c")
    await books.query(ALICE, "c", "", ["n"])
    assert not await books.indexing.run_once(), "what was refused is not looked at with every query"
    clock.advance(indexing_service.REFUSED_S)
    await books.query(ALICE, "c", "", ["n"])
    await books.work_on_indexes()
    assert await books.indexes(ALICE, "c") == {("n",): IndexState.READY}


async def test_a_path_that_is_too_long_for_an_index_is_compared_without(books: VaultBooks) -> None:
    long = ".".join("a" * 200)
    await fill(books, ALICE, "c")
    assert await books.query(ALICE, "c", f'{{"{long}":1}}') == []
    await books.work_on_indexes()
    assert await books.query(ALICE, "c", f'{{"n":3,"{long}":{{"$ne":1}}}}') == ["k1"]
    await books.work_on_indexes()
    assert await books.indexes(ALICE, "c") == {("n",): IndexState.READY}
    for path in ("." * 255, '"' * 256, "😀" * 64):
        await books.query(ALICE, "c", "", [path])
        await books.work_on_indexes()
        assert IndexState.READY in (await books.indexes(ALICE, "c")).values(), "as long as a sort may name"
        await books.documents.delete_collection(ALICE, "c")
        await fill(books, ALICE, "c")


async def test_indexes_are_bounded_and_unused_ones_make_room(books: VaultBooks, clock: ManualClock) -> None:
    await fill(books, ALICE, "c")
    for path in ("n", "m", "x"):
        await books.query(ALICE, "c", "", [path])
        await books.work_on_indexes()
    assert set(await books.indexes(ALICE, "c")) == {("n",), ("m",)}
    clock.advance_us(UNUSED_US - 1)
    await books.query(ALICE, "c", "", ["m"])
    await books.work_on_indexes()
    clock.advance_us(1)
    expected = await books.query(ALICE, "c", "", ["x"])
    await books.work_on_indexes()
    assert set(await books.indexes(ALICE, "c")) == {("m",)}, "n was used the longest ago"
    assert await books.query(ALICE, "c", "", ["x"]) == expected
    await books.work_on_indexes()
    assert await books.indexes(ALICE, "c") == dict.fromkeys([("m",), ("x",)], IndexState.READY)


async def test_an_emptied_collection_leaves_nothing(books: VaultBooks) -> None:
    await fill(books, ALICE, "c")
    await books.query(ALICE, "c", "", ["n"])
    await books.work_on_indexes()
    assert await books.documents.delete_collection(ALICE, "c") == 7
    assert await rows_of(books.database) == {
        "accounts": 1, "collections": 0, "documents": 0, "sort_indexes": 0, "sort_entries": 0,
    }  # fmt: skip


async def test_what_has_expired_is_swept_away_in_pieces(books: VaultBooks, clock: ManualClock) -> None:
    for number in range(5):
        await books.store(ALICE, "c", f"k{number}", '{"a":1}', ttl_us=SECOND_US)
        await books.store(BOB, "d", f"k{number}", '{"a":1}', ttl_us=SECOND_US * (2 if number else 1))
    await books.store(ALICE, "c", "stays", "{}")
    sweeper = Sweeper(books.database, clock)
    assert not await sweeper.run_once()
    clock.advance(1)
    assert (await rows_of(books.database))["documents"] == 11
    page = await books.queries.list_collections(ALICE, 0, "")
    assert [(one.name, one.document_count) for one in page.collections] == [("c", 1)], "gone before it is swept"
    rounds = 0
    while await sweeper.run_once():
        rounds += 1
    assert rounds == 4, "pieces of two, one account at a time"
    assert (await rows_of(books.database))["documents"] == 5
    assert (await books.queries.list_collections(ALICE, 0, ""))[:1] == page[:1]
    assert (await books.queries.list_collections(ALICE, 0, "")).used_bytes == len("stays{}")


class Directory:
    """Billing, as far as deletions go."""

    def __init__(self) -> None:
        self.purges: dict[str, int] = {}
        self.asked: list[str] = []
        self.is_down = False
        self.strange = ""

    async def purge_us(self, account_id: str) -> int | None:
        if self.is_down:
            raise FlowStackError(Reason.BILLING_UNAVAILABLE, "Down.")
        self.asked.append(account_id)
        if account_id == self.strange:
            raise FlowStackError(Reason.INTERNAL, "A defect.")
        return self.purges.get(account_id)


async def test_a_deleted_account_is_purged_when_billing_says_so(books: VaultBooks, clock: ManualClock) -> None:
    await fill(books, ALICE, "c")
    await fill(books, ALICE, "d", 1)
    await fill(books, BOB, "c")
    await books.query(ALICE, "c", "", ["n"])
    await books.work_on_indexes()
    directory = Directory()
    purger = Purger(books.database, directory, clock)
    assert await purger.run_once()
    assert not await purger.run_once(), "billing is asked once a day"
    assert sorted(directory.asked) == [ALICE, BOB]
    directory.purges[ALICE] = clock.now_us() + 30 * DAY_US
    for _ in range(29):
        clock.advance_us(DAY_US)
        await purger.run_once()
    assert len(await books.query(ALICE, "c", "")) == 7
    clock.advance_us(DAY_US)
    await purger.run_once()
    assert await books.query(ALICE, "c", "") == []
    assert len(await books.query(BOB, "c", "")) == 7
    assert await rows_of(books.database) == {
        "accounts": 1, "collections": 1, "documents": 7, "sort_indexes": 0, "sort_entries": 0,
    }  # fmt: skip


async def test_nothing_is_purged_while_billing_does_not_answer(books: VaultBooks, clock: ManualClock) -> None:
    await fill(books, ALICE, "c")
    directory = Directory()
    directory.is_down = True
    with pytest.raises(FlowStackError, match="Down"):
        await Purger(books.database, directory, clock).run_once()
    assert len(await books.query(ALICE, "c", "")) == 7


async def test_an_account_that_billing_fails_at_does_not_keep_others_from_being_purged(
    books: VaultBooks, clock: ManualClock
) -> None:
    for account_id in (ALICE, BOB):
        await fill(books, account_id, "c", 1)
    directory = Directory()
    directory.strange = ALICE
    directory.purges[BOB] = clock.now_us()
    assert await Purger(books.database, directory, clock).run_once()
    assert len(await books.query(ALICE, "c", "")) == 1
    assert await books.query(BOB, "c", "") == []


async def test_an_account_without_documents_is_forgotten(books: VaultBooks, clock: ManualClock) -> None:
    await books.store(ALICE, "c", "k", "{}")
    await books.documents.delete_collection(ALICE, "c")
    assert await Purger(books.database, Directory(), clock).run_once()
    assert set((await rows_of(books.database)).values()) == {0}
