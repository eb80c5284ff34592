"""Random filters and sorts over random documents: each store answers what plain Python does, by an index or without."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.vault.adapters.sql.database import Database
from services.vault.domain.codes import encode_path
from tests.support.clock import ManualClock
from tests.support.vault import ALICE, BOB
from tests.support.vault_books import VaultBooks
from tests.support.vault_reference import Kept, decode, query

SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Raw(str):
    """A number as it is written."""


NUMBERS = (
    "0", "-0", "0.0", "1", "1.0", "10e-1", "0.1e1", "-1", "2", "10", "9", "1e2", "100", "1e-2", "-1e-2", "0.01",
    "9007199254740992", "9007199254740993", "-9007199254740993", "123456789012345678901234567890",
    "123456789012345678901234567891", "1e400", "-1e400", "1e-400", "19.90", "19.9", "0.1", "0.10000000000000001",
)  # fmt: skip
TEXTS = (
    "",
    "a",
    "b",
    "B",
    "ab",
    "ü",
    "u\u0308",
    "\uffff",
    "😀",
    "1",
    "0",
    "true",
    "{}",
    '{"%a":""}',
    "~",
    "' OR 1=1 --",
    "x" * 130,
)
NAMES = ("a", "b", "0", "1", "ü", "", "%", '"', "\\", "%a", "$.a", "[0]", "a b", "A")
PATHS = (
    "a", "b", "0", "a.b", "a.0", "a.1", "b.a", "a.b.a", "ü", ".", "%", '"', "\\", "%a", "a.%a", "[0]", "a.-1", "a.00",
    "nowhere",
)  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS).map(Raw), st.sampled_from(TEXTS), st.text(max_size=3).filter(
        lambda text: "\0" not in text
    ),
    st.integers().map(lambda number: Raw(str(number))),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5,
)
documents = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
literals = values.filter(lambda value: not (isinstance(value, dict) and any(name.startswith("$") for name in value)))
comparisons = st.one_of(
    st.fixed_dictionaries({"$eq": values}),
    st.fixed_dictionaries({"$ne": values}),
    st.dictionaries(st.sampled_from(("$gt", "$gte", "$lt", "$lte")), scalars, min_size=1, max_size=2),
    st.fixed_dictionaries({"$in": st.lists(values, max_size=3)}),
    st.fixed_dictionaries({"$nin": st.lists(values, max_size=3)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
conditions = st.dictionaries(st.sampled_from(PATHS), literals | comparisons, min_size=1, max_size=2)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)
sorts = st.lists(st.sampled_from((*PATHS, "_key")), max_size=3, unique=True).flatmap(
    lambda paths: st.tuples(*(st.sampled_from((path, f"-{path}")) for path in paths)).map(list)
)


def text_of(value: Any, *, ascii_only: bool = False) -> str:
    """JSON, with numbers as they are written."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        members = (
            f"{text_of(name, ascii_only=ascii_only)}: {text_of(one, ascii_only=ascii_only)}"
            for name, one in value.items()
        )
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(text_of(one, ascii_only=ascii_only) for one in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


@dataclass
class Case:
    """What one example is about."""

    mine: list[Any]
    theirs: list[Any]
    wanted: list[Any]
    sort: list[str]
    limit: int
    ascii_only: bool

    def text(self, value: Any) -> str:
        """A document's or filter's text."""
        return text_of(value, ascii_only=self.ascii_only)

    def paths(self) -> list[str]:
        """The paths that an index could be of."""
        named = {name.removeprefix("-") for name in self.sort} | {name for one in self.wanted for name in one}
        return sorted(named - {"_key", "$and", "$or", "$not"})


cases = st.builds(
    Case,
    mine=st.lists(documents, max_size=7),
    theirs=st.lists(documents, max_size=3),
    wanted=st.lists(filters, min_size=1, max_size=6),
    sort=sorts,
    limit=st.integers(1, 4),
    ascii_only=st.booleans(),
)
KEYS = ("k", "é", "K", "z", "😀", "\uffff", "10")
numbers = itertools.count()


@pytest.mark.parametrize("is_indexed", [False, True])
@SETTINGS
@given(case=cases)
async def test_a_store_finds_what_plain_python_does(vault_database: Database, is_indexed: bool, case: Case) -> None:
    books = VaultBooks(vault_database, ManualClock())
    collection = f"c{next(numbers)}"
    kept = []
    for key, value in zip(KEYS, case.mine, strict=False):
        await books.store(ALICE, collection, key, case.text(value))
        kept.append(Kept(key, decode(case.text(value))))
    for place, value in enumerate(case.theirs):
        await books.store(BOB, collection, f"theirs{place}", case.text(value))
    if is_indexed:
        for path in case.paths():
            await books.build_index(ALICE, collection, encode_path(path))
    for one in [{}, *case.wanted]:
        text = case.text(one)
        found = await books.query(ALICE, collection, text, case.sort, case.limit)
        assert found == query(kept, decode(text), case.sort), (text, case.sort)
    first = case.text(case.wanted[0])
    through = query(kept, decode(first), [])
    assert await books.documents.delete_matching(ALICE, collection, first) == len(through)
    assert await books.query(ALICE, collection, "") == query([one for one in kept if one.key not in through], {}, [])
    assert len(await books.query(BOB, collection, "")) == len(case.theirs), "nobody else's were touched"
