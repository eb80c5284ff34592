"""Filters, sorts and pages over gRPC."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.billing import failure_of, reason_of
from tests.support.clock import ManualClock
from tests.support.vault import ALICE, BOB, VaultClient, VaultUnderTest

DOCUMENTS: dict[str, str] = {
    "array": '{"v": [1, "two", {"three": 3}], "n": 1}',
    "big": '{"v": 9007199254740993, "n": 2}',
    "bigger": '{"v": 9007199254740994, "n": 3}',
    "false": '{"v": false, "n": 4}',
    "missing": '{"n": 5, "a": {"b": {"c": "deep"}}}',
    "money": '{"v": 19.90, "n": 6}',
    "null": '{"v": null, "n": 7}',
    "object": '{"v": {"x": 1, "y": [true]}, "n": 8}',
    "one": '{"v": 1, "n": 9, "a.b": "dotted"}',
    "text": '{"v": "b", "n": 10, "a": {"b": 2}}',
    "text2": '{"v": "ä", "n": 11}',
    "true": '{"v": true, "n": 12}',
}
EVERY = list(DOCUMENTS)

FILTERS: dict[str, list[str]] = {
    '{"v": 1}': ["one"],
    '{"v": 1.0}': ["one"],
    '{"v": {"$eq": 1e0}}': ["one"],
    '{"v": "1"}': [],
    '{"v": true}': ["true"],
    '{"v": null}': ["null"],
    '{"v": {"$ne": null}}': [key for key in EVERY if key != "null"],
    '{"v": {"$exists": true}}': [key for key in EVERY if key != "missing"],
    '{"v": {"$exists": false}}': ["missing"],
    '{"v": 9007199254740993}': ["big"],
    '{"v": {"$gt": 9007199254740993}}': ["bigger"],
    '{"v": {"$gte": 9007199254740993, "$lt": 9007199254740994}}': ["big"],
    '{"v": {"$lte": 19.9}}': ["money", "one"],
    '{"v": 19.9}': ["money"],
    '{"v": {"$gt": "a"}}': ["text", "text2"],
    '{"v": {"$lt": "z"}}': ["text"],
    '{"v": {"$gt": false}}': ["true"],
    '{"v": {"$gte": null}}': ["null"],
    '{"v": {"$gt": null}}': [],
    '{"v": {"$in": [1, "b", null, {"y": [true], "x": 1.0}]}}': ["null", "object", "one", "text"],
    '{"v": {"$in": []}}': [],
    '{"v": {"$nin": [1, "b", null]}}': [key for key in EVERY if key not in ("one", "text", "null")],
    '{"v": [1, "two", {"three": 3.0}]}': ["array"],
    '{"v": {"y": [true], "x": 1}}': ["object"],
    '{"v.0": 1}': ["array"],
    '{"v.2.three": {"$gte": 3}}': ["array"],
    '{"v.-1": {"$exists": true}}': [],
    '{"v.x": 1}': ["object"],
    '{"a.b": 2}': ["text"],
    '{"a.b.c": "deep"}': ["missing"],
    '{"n": {"$gt": 3}, "v": {"$gt": 0}}': ["money", "one"],
    '{"$and": [{"n": {"$gt": 3}}, {"n": {"$lte": 5}}]}': ["false", "missing"],
    '{"$or": [{"v": true}, {"v": false}]}': ["false", "true"],
    '{"$not": {"n": {"$lt": 12}}}': ["true"],
    '{"$not": {"v": {"$gt": 0}}}': [key for key in EVERY if key not in ("big", "bigger", "money", "one")],
    '{"$not": {"$or": [{"n": {"$ne": 1}}, {"v": 7}]}}': ["array"],
    "": EVERY,
    "{}": EVERY,
}


async def fill(client: VaultClient, documents: dict[str, str], collection: str = "c") -> None:
    for key, text in documents.items():
        await client.store(collection, text, key=key)


async def test_operators(alice: VaultClient) -> None:
    await fill(alice, DOCUMENTS)
    for text, keys in FILTERS.items():
        assert await alice.keys("c", text) == keys, text


async def test_what_deletes_is_what_is_found(alice: VaultClient) -> None:
    for number, (text, keys) in enumerate(FILTERS.items()):
        if not text.strip("{}"):
            continue
        collection = f"c{number}"
        await fill(alice, {key: DOCUMENTS[key] for key in ("big", "missing", "null", "one", "text")}, collection)
        expected = set(keys) & {"big", "missing", "null", "one", "text"}
        assert (await alice.delete(collection, filter_json=text)).deleted_count == len(expected), text
        assert not expected & set(await alice.keys(collection))


@pytest.mark.parametrize("empty", ["{}", "{ }", "\n{\n}"])
async def test_an_empty_filter_deletes_nothing(alice: VaultClient, empty: str) -> None:
    await alice.store("c", "{}", key="k")
    code, error = await failure_of(alice.delete("c", filter_json=empty))
    assert (code.name, [one.field for one in error.violations]) == ("INVALID_ARGUMENT", ["filter_json"])
    assert await alice.keys("c") == ["k"]
    assert await reason_of(alice.delete("c")) == "INVALID_REQUEST", "no target at all"
    assert (await alice.delete("c", all_documents=True)).deleted_count == 1


async def test_kinds_sort_apart_and_what_is_missing_comes_first(alice: VaultClient) -> None:
    await fill(alice, DOCUMENTS)
    ascending = [
        "missing", "null", "one", "money", "big", "bigger", "text", "text2", "false", "true", "array", "object",
    ]  # fmt: skip
    assert await alice.keys("c", sort=["v"]) == ascending
    assert await alice.keys("c", sort=["-v", "-_key"], limit=5) == ascending[::-1]
    assert await alice.keys("c", sort=["-n"], limit=5) == EVERY[::-1]
    assert await alice.keys("c", sort=["-_key"]) == EVERY[::-1]


async def test_own_times_sort(alice: VaultClient, clock: ManualClock) -> None:
    for key in ("b", "c", "a"):
        await alice.store("c", "{}", key=key)
        clock.advance(1)
    await alice.store("c", "{}", key="b")
    assert await alice.keys("c", sort=["_create_time"], limit=1) == ["b", "c", "a"]
    assert await alice.keys("c", sort=["-_update_time"], limit=2) == ["b", "a", "c"]


async def test_texts_are_told_apart_by_their_beginning(alice: VaultClient) -> None:
    await fill(alice, {"a": json.dumps({"t": "x" * 127 + "b"}), "b": json.dumps({"t": "x" * 127 + "a"})})
    assert await alice.keys("c", sort=["t"]) == ["a", "b"], "alike as far as that, so by key"
    assert await alice.keys("c", json.dumps({"t": {"$lt": "x" * 127 + "b"}})) == ["b"], "a filter looks at all of it"


async def test_a_page_token_fits_however_long_what_is_sorted_by_is(alice: VaultClient) -> None:
    names = [f"f{number}" for number in range(8)]
    for number in range(2):
        await alice.store("c", json.dumps(dict.fromkeys(names, "😀" * 200)), key=f"{number}" + "é" * 255)
    assert len(await alice.keys("c", sort=names, limit=1)) == 2


async def test_a_page_is_bounded_in_bytes(alice: VaultClient) -> None:
    text = json.dumps({"t": "x" * 1_048_000})
    for number in range(5):
        await alice.store("c", text, key=f"k{number}")
    pages = []
    token = ""
    while not pages or token:
        page = await alice.query("c", page_token=token, limit=1000)
        pages.append(len(page.documents))
        token = page.next_page_token
    assert pages == [3, 2]


async def test_a_page_token_is_good_for_its_own_query_alone(service: VaultUnderTest, alice: VaultClient) -> None:
    bob = service.customer(BOB)
    for client in (alice, bob):
        await fill(client, dict.fromkeys("abc", '{"n":1}'))
        await fill(client, dict.fromkeys("abc", '{"n":1}'), "d")
    token = (await alice.query("c", '{"n":1}', ["n"], limit=1)).next_page_token
    assert [one.key for one in (await alice.query("c", '{"n":1}', ["n"], limit=2, page_token=token)).documents] == [
        "b",
        "c",
    ]
    others: list[Any] = [
        bob.query("c", '{"n":1}', ["n"], page_token=token),
        alice.query("d", '{"n":1}', ["n"], page_token=token),
        alice.query("c", '{"n": 1}', ["n"], page_token=token),
        alice.query("c", '{"n":1}', ["-n"], page_token=token),
        alice.query("c", '{"n":1}', page_token=token),
        alice.query("c", '{"n":1}', ["n"], page_token=token[:-1] + ("A" if token[-1] != "A" else "B")),
        alice.query("c", '{"n":1}', ["n"], page_token="nonsense"),
        alice.list_collections(page_token=token),
    ]
    for call in others:
        code, error = await failure_of(call)
        assert (code.name, [one.field for one in error.violations]) == ("INVALID_ARGUMENT", ["page_token"])
    again = await service.admin(ALICE).query("c", '{"n":1}', ["n"], limit=1, page_token=token)
    assert [one.key for one in again.documents] == ["b"], "the account decides, not who asks"


async def test_pages_show_each_document_once_while_others_come_and_go(alice: VaultClient) -> None:
    await fill(alice, {f"k{number}": f'{{"n":{number}}}' for number in range(0, 20, 2)})
    seen: list[str] = []
    token = ""
    while not seen or token:
        page = await alice.query("c", sort=["n"], limit=3, page_token=token)
        seen += [document.key for document in page.documents]
        token = page.next_page_token
        await alice.store("c", f'{{"n":{len(seen) * 2 - 1}}}', key=f"k{len(seen) * 2 - 1}")
        await alice.delete("c", key=seen[-1])
    assert len(seen) == len(set(seen))
    assert {f"k{number}" for number in range(0, 20, 2)} <= set(seen)


async def test_collections_are_listed_by_name_in_pages(alice: VaultClient, clock: ManualClock) -> None:
    for name in ("b", "a", "B", "a.b", "c"):
        await alice.store(name, '{"x":1}', key="k")
        clock.advance(1)
    await alice.store("b", '{"x":12}', key="k2")
    names: list[str] = []
    token = ""
    while not names or token:
        page = await alice.list_collections(page_size=2, page_token=token)
        names += [one.collection for one in page.collections]
        token = page.next_page_token
    assert names == ["B", "a", "a.b", "b", "c"]
    (_, _, _, b, _) = (await alice.list_collections()).collections
    assert (b.document_count, b.size_bytes, b.update_time.ToMicroseconds()) == (2, 18, clock.now_us())
    assert page.used_bytes == 5 * 8 + 10
    await alice.delete("b", all_documents=True)
    assert "b" not in [one.collection for one in (await alice.list_collections()).collections]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sort": ["n", "n"]}, "sort"),
        ({"sort": [""]}, "sort[0].field"),
        ({"sort": [f"f{number}" for number in range(9)]}, "sort"),
        ({"sort": ["x" * 257]}, "sort[0].field"),
        ({"limit": -1}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"filter_json": "{" + " " * 65536}, "filter_json"),
        ({"filter_json": '{"a":{"$regex":"."}}'}, "filter_json"),
    ],
)
async def test_a_bad_query_names_its_field(alice: VaultClient, fields: dict[str, Any], field: str) -> None:
    code, error = await failure_of(alice.query("c", **fields))
    assert code.name == "INVALID_ARGUMENT"
    assert field in [one.field for one in error.violations]
