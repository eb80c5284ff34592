"""Three accounts that use the same names, and what plain Python holds each of them to have.

`accounts_stay_apart` does random things in a vault and in the model, and compares all that every account sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Final, NamedTuple

import pytest

from services.shared.errors import FlowStackError
from services.vault.convert import sort_from_proto
from services.vault.domain.codes import encode_path
from services.vault.domain.documents import Document, Place
from services.vault.service.queries import DocumentPage, Query
from services.vault.service.upkeep import Sweeper
from services.vault.store import Transaction
from tests.support.clock import SECOND_US, ManualClock
from tests.support.vault import sorts
from tests.support.vault_books import VaultBooks
from tests.support.vault_reference import Kept, decode, query

COLLECTIONS: Final = ("c", "d")
KEYS: Final = ("k", "K", "é")
PATHS: Final = ("a", "b", "a.x", "a.0")
INDEXED: Final = ("a", "b")
LONG: Final = "x" * 127
# Neighbours of one another, so that a bound that is a little off lets one too many or too few through.
VALUES: Final = (
    "null", "false", "true", "0", "1", "1.0", "1.5", "2", "10", '""', '"1"', '"a"', '"ab"', f'"{LONG}a"', f'"{LONG}b"',
    "[]", "[1]", "{}", '{"x":1}', '{"x":2}',
)  # fmt: skip
OPERATORS: Final = ("", "$eq", "$ne", "$in", "$nin", "$exists", "range", "range", "range")
SORTS: Final = (*PATHS, "_key", "_create_time", "_update_time")

numbers = itertools.count()


class Held(NamedTuple):
    """A document, as the model has it. Times are microseconds since 1970; 0 for no expiry."""

    text: str
    create_us: int
    update_us: int
    expire_us: int


Documents = dict[str, Held]


class Palette:
    """Makes documents and filters of a few values, so that they often meet."""

    def __init__(self, random: Random) -> None:
        self._random = random
        # A pair of neighbours at least.
        first = random.randrange(len(VALUES) - 1)
        self._values = [*VALUES[first : first + 2], *random.sample(VALUES, 2)]
        self._ordered = [value for value in self._values if value[0] not in "[{"] or ["1"]

    def document(self) -> str:
        """A document's text."""
        names = self._random.sample("ab", self._random.choice((1, 2, 2)))
        return "{" + ",".join(f'"{name}":{self._random.choice(self._values)}' for name in names) + "}"

    def filter(self, levels: int = 3) -> str:
        """A filter's text, with every operator and nesting."""
        random = self._random
        kind = random.choice(("one", "one", "one", "both", "$and", "$or", "$not")) if levels else "one"
        if kind == "$not":
            return f'{{"$not":{self.filter(levels - 1)}}}'
        if kind.startswith("$"):
            inner = ",".join(self.filter(levels - 1) for _ in range(random.randint(1, 3)))
            return f'{{"{kind}":[{inner}]}}'
        return self._conditions(random.sample(INDEXED, 2) if kind == "both" else [random.choice((*INDEXED, *PATHS))])

    def demand(self, path: str) -> str:
        """A filter's text, of which an index of `path` can find the documents."""
        others = [one for one in INDEXED if one != path and self._random.random() < 0.2]
        return self._conditions([path, *others], ("$eq", "$in", "$exists", "range", "range", "range"))

    def _conditions(self, paths: Sequence[str], operators: Sequence[str] = OPERATORS) -> str:
        return "{" + ",".join(f'"{path}":{self._comparison(operators)}' for path in paths) + "}"

    def _comparison(self, operators: Sequence[str]) -> str:
        random = self._random
        operator = random.choice(operators)
        if operator == "range":
            names = random.sample(("$gt", "$gte", "$lt", "$lte"), random.choice((1, 1, 1, 2)))
            return "{" + ",".join(f'"{name}":{random.choice(self._ordered)}' for name in names) + "}"
        if operator == "$exists":
            return f'{{"$exists":{random.choice(("true", "false"))}}}'
        if operator in ("$in", "$nin"):
            return f'{{"{operator}":[{",".join(random.choices(self._values, k=random.randint(0, 3)))}]}}'
        value = random.choice(self._values)
        return f'{{"{operator}":{value}}}' if operator else value


def random_sort(random: Random) -> list[str]:
    """An order, as `sorts` takes it."""
    return [random.choice(("", "-")) + name for name in random.sample(SORTS, random.choice((0, 1, 1, 2, 3)))]


@dataclass
class World:
    """Accounts in a vault, and the model of them."""

    books: VaultBooks
    clock: ManualClock
    random: Random
    accounts: tuple[str, ...] = ()
    model: dict[tuple[str, str], Documents] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.palette = Palette(self.random)
        number = next(numbers)
        # One is the beginning of another, and one is another in capitals.
        self.accounts = (f"acct_{number}_x", f"acct_{number}_xy", f"acct_{number}_X")
        self.model = {(account, name): {} for account in self.accounts for name in COLLECTIONS}

    def any_account(self) -> str:
        """An account."""
        return self.random.choice(self.accounts)

    def any_collection(self) -> str:
        """A collection's name."""
        return self.random.choice(COLLECTIONS)

    def live(self, account_id: str, collection: str) -> Documents:
        """What an account sees of a collection."""
        now_us = self.clock.now_us()
        kept = self.model[account_id, collection]
        return {key: held for key, held in kept.items() if not held.expire_us or held.expire_us > now_us}

    def found(self, account_id: str, collection: str, wanted: str, sort: Sequence[str] = ()) -> list[str]:
        """What plain Python finds."""
        kept = [
            Kept(
                key, decode(one.text) | {"_create_time": Decimal(one.create_us), "_update_time": Decimal(one.update_us)}
            )
            for key, one in self.live(account_id, collection).items()
        ]
        return query(kept, decode(wanted or "{}"), list(sort))

    async def store(self) -> None:
        """Stores a document, sometimes for a second."""
        account_id, collection, key = self.any_account(), self.any_collection(), self.random.choice(KEYS)
        text, ttl_us = self.palette.document(), self.random.choice((None, None, SECOND_US))
        before = self.live(account_id, collection).get(key)
        now_us = self.clock.now_us()
        await self.books.store(account_id, collection, key, text, ttl_us=ttl_us)
        self.model[account_id, collection][key] = Held(
            text, before.create_us if before else now_us, now_us, now_us + ttl_us if ttl_us else 0
        )

    async def delete_key(self) -> None:
        """Deletes one document."""
        account_id, collection, key = self.any_account(), self.any_collection(), self.random.choice(KEYS)
        deleted = await self.books.documents.delete_key(Place(account_id, collection, key), None)
        assert deleted == int(key in self.live(account_id, collection))
        self.model[account_id, collection].pop(key, None)

    async def delete_matching(self) -> None:
        """Deletes what a filter lets through."""
        account_id, collection, wanted = self.any_account(), self.any_collection(), self.palette.filter()
        through = self.found(account_id, collection, wanted)
        assert await self.books.documents.delete_matching(account_id, collection, wanted) == len(through), wanted
        for key in through:
            del self.model[account_id, collection][key]

    async def delete_collection(self) -> None:
        """Deletes a collection."""
        account_id, collection = self.any_account(), self.any_collection()
        deleted = await self.books.documents.delete_collection(account_id, collection)
        assert deleted == len(self.live(account_id, collection))
        for key in self.live(account_id, collection):
            del self.model[account_id, collection][key]

    async def let_some_expire(self) -> None:
        """Lets a second pass; sweeps away what has expired, or does not yet."""
        self.clock.advance_us(SECOND_US)
        sweeper = Sweeper(self.books.database, self.clock)
        if self.random.random() < 0.8:
            while await sweeper.run_once():
                pass

    async def build_indexes(self) -> None:
        """Makes indexes of some paths in some collections."""
        for (account_id, collection), documents in self.model.items():
            for path in INDEXED if documents else ():
                if self.random.random() < 0.6:
                    await self.books.build_index(account_id, collection, encode_path(path))

    async def compare_query(self, account_id: str, collection: str) -> None:
        """Compares a query, page by page, with the model."""
        wanted, sort, limit = self.palette.filter(), random_sort(self.random), self.random.choice((1, 1, 2, 3))
        if self.random.random() < 0.5:
            path = self.random.choice(INDEXED)
            wanted, sort = self.palette.demand(path), [self.random.choice(("", "-")) + path, *sort][: len(sort)]
            sort = sorted(set(sort), key=sort.index)
        asked = Query(account_id, collection, wanted, tuple(map(sort_from_proto, sorts(sort))), limit, "")
        pages = await self._pages(asked)
        held = self.live(account_id, collection)
        found = [(one.key, one.text) for page in pages for one in page.documents]
        expected = [(key, held[key].text) for key in self.found(account_id, collection, wanted, sort)]
        assert found == expected, (account_id, collection, wanted, sort, limit)
        for other in self.accounts:
            if other != account_id and pages[0].next_token:
                with pytest.raises(FlowStackError, match="page_token"):
                    await self.books.queries.query(replace(asked, account_id=other, page_token=pages[0].next_token))

    async def _pages(self, asked: Query) -> list[DocumentPage]:
        pages = [await self.books.queries.query(asked)]
        while pages[-1].next_token:
            again = replace(asked, page_token=pages[-1].next_token)
            pages.append(await self.books.queries.query(again))
            assert len(pages) < 50, "the pages have no end"
        return pages

    def _retrieval(self, place: Place) -> Callable[[Transaction], Awaitable[Document | None]]:
        return lambda transaction: transaction.documents.get(place, self.clock.now_us())

    async def compare_all(self) -> None:
        """Compares all that every account sees."""
        for account_id in self.accounts:
            expected = {}
            for collection in COLLECTIONS:
                live = self.live(account_id, collection)
                page = await self.books.queries.query(Query(account_id, collection, "", (), 1000, ""))
                seen = {one.key: Held(one.text, one.create_us, one.update_us, one.expire_us) for one in page.documents}
                assert seen == live, (account_id, collection)
                place = Place(account_id, collection, self.random.choice(KEYS))
                document = await self.books.database.transact(self._retrieval(place))
                assert (document.text if document else None) == (live[place.key].text if place.key in live else None)
                if live:
                    size = sum(len(key.encode()) + len(held.text.encode()) for key, held in live.items())
                    expected[collection] = (len(live), size)
            listed = await self.books.queries.list_collections(account_id, 0, "")
            assert {one.name: (one.document_count, one.size_bytes) for one in listed.collections} == expected
            assert listed.used_bytes == sum(size for _, size in expected.values())


async def accounts_stay_apart(books: VaultBooks, clock: ManualClock, random: Random, *, is_indexed: bool) -> None:
    """Does random things, and asserts that each account has and sees what is its own, and all of it."""
    world = World(books, clock, random)
    for _ in range(random.randint(10, 18)):
        await world.store()
    if is_indexed:
        await world.build_indexes()
    changes = (
        world.store, world.store, world.delete_key, world.delete_matching, world.delete_matching,
        world.delete_collection, world.let_some_expire, world.let_some_expire,
    )  # fmt: skip
    for _ in range(random.randint(1, 3)):
        for _ in range(6):
            await world.compare_query(world.any_account(), world.any_collection())
        await random.choice(changes)()
        await world.compare_all()
