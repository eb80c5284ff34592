"""Documents, keys and filters sent to see what breaks: each is kept as it is, or refused in a sentence."""

from __future__ import annotations

import json

import pytest

from tests.support.billing import failure_of, reason_of
from tests.support.vault import BOB, VaultClient, VaultUnderTest

MEBIBYTE = 1_048_576

SQL = (
    "' OR '1'='1",
    "'; DROP TABLE documents; --",
    '" OR ""="',
    "acct_bob' --",
    "') UNION SELECT text FROM documents --",
    "%",
    "_",
    "*",
    "\\' OR 1=1 --",
    "$1",
    "%s",
    "%(key)s",
    ":key",
    "?",
    '$."a"',
    '"."',
    "a]",
    "{a,b}",
    "1; SELECT pg_sleep(10)",
    "\u02bc OR 1=1",
    "k ",
    "K",
    "\u202ek",
    "😀" * 100,
)

REFUSED = {
    "an array": "[]",
    "a scalar": '"text"',
    "no JSON": "{a: 1}",
    "two values": "{} {}",
    "a comment": "{} // c",
    "trailing comma": '{"a":1,}',
    "leading zero": '{"a":01}',
    "a bare point": '{"a":1.}',
    "hexadecimal": '{"a":0x10}',
    "NaN": '{"a":NaN}',
    "infinity": '{"a":-Infinity}',
    "NUL": '{"a":"\\u0000"}',
    "NUL in a name": '{"\\u0000":1}',
    "a raw control character": '{"a":"\x01"}',
    "half a pair": '{"a":"\\ud83d"}',
    "the other half": '{"a":["\\udE00"]}',
    "halves the wrong way round": '{"a":"\\ude00\\ud83d"}',
    "half a pair in a name": '{"\\ud800":1}',
    "a repeated name": '{"a":{"b":1,"b":2}}',
    "a name repeated by an escape": '{"a":1,"\\u0061":2}',
    "depth 65": '{"a":' + "[" * 64 + "]" * 64 + "}",
    "no end of depth": '{"a":' + "[" * 500_000,
    "depth in names": '{"a":' * 65 + "1" + "}" * 65,
    "an exponent": '{"a":1e1000000000}',
}

TAKEN = {
    "depth 64": '{"a":' + "[" * 63 + "]" * 63 + "}",
    "a pair": '{"a":"\\ud83d\\ude00 \U0001f600 \\uD83D\\uDE00"}',
    "an escaped backslash before u0000": '{"a":"\\\\u0000"}',
    "noncharacters": '{"a":"\uffff\ufffe\U0010ffff"}',
    "prototype": '{"__proto__":{"x":1},"constructor":null}',
    "operators as names": '{"$gt":1,"$where":{"$ne":2}}',
    "many digits": '{"a":' + "9" * 100_000 + "." + "1" * 100_000 + "}",
    "exponents": '{"a":1e999999998,"b":-1e-999999998,"c":0e99999999999999999999}',
    "empty names": '{"":{"":{"":1}}}',
    "percent": '{"%":1,"%25":2,"%a":3,"a":[]}',
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_is_told_without_being_quoted(alice: VaultClient, name: str) -> None:
    code, error = await failure_of(alice.store("c", REFUSED[name], key="k"))
    assert (code.name, error.reason.value) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [one.field for one in error.violations] == ["document_json"]
    assert len(error.message) < 200
    assert await reason_of(alice.retrieve("c", "k")) == "DOCUMENT_NOT_FOUND"


@pytest.mark.parametrize("name", TAKEN)
async def test_what_is_taken_comes_back_as_it_was(alice: VaultClient, name: str) -> None:
    await alice.store("c", TAKEN[name], key="k")
    assert (await alice.retrieve("c", "k")).document.document_json == TAKEN[name]
    assert await alice.keys("c", '{"nothing":{"$exists":false}}', ["a", "-b"]) == ["k"]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":"' + "x" * (MEBIBYTE - 8) + '"}',
        '{"a":[' + "1," * 524_000 + "1]}",
        '{"a":[' + "[]," * 349_000 + "[]]}",
        "{" + ",".join(f'"{number}":{{}}' for number in range(90_000)) + "}",
    ],
    ids=["text", "numbers", "arrays", "names"],
)
async def test_documents_of_a_mebibyte(alice: VaultClient, text: str) -> None:
    assert MEBIBYTE * 0.9 < len(text) <= MEBIBYTE
    await alice.store("c", text, key="k")
    assert (await alice.retrieve("c", "k")).document.document_json == text
    assert await alice.keys("c", '{"a.3":{"$ne":"y"}}', ["a"]) == ["k"]


async def test_a_byte_more_is_refused(alice: VaultClient) -> None:
    code, error = await failure_of(alice.store("c", '{"a":"' + "x" * (MEBIBYTE - 7) + '"}', key="k"))
    assert (code.name, [one.field for one in error.violations]) == ("INVALID_ARGUMENT", ["document_json"])


async def test_keys_and_names_that_are_sql_in_other_hands(service: VaultUnderTest, alice: VaultClient) -> None:
    bob = service.customer(BOB)
    await bob.store("c", '{"secret":1}', key="k")
    for text in SQL:
        document = json.dumps({text: {text: text}}, ensure_ascii=False)
        await alice.store("c", document, key=text)
        assert (await alice.retrieve("c", text)).document.document_json == document
    assert sorted(await alice.keys("c")) == sorted(SQL)
    for text in (text for text in SQL if not text.startswith("$")):
        path = f"{text}.{text}" if "." not in text else text
        found = await alice.keys("c", json.dumps({path: {"$exists": True}}), [path[:40], "-_key"])
        assert found == ([text] if "." not in text else [])
        assert (await alice.keys("c", json.dumps({text: text}))) == []
        assert await alice.keys("c", json.dumps({"$or": [{text: {"$in": [text, [text], {text: 1}]}}]})) == []
    for text in SQL:
        assert (await alice.delete("c", key=text)).deleted_count == 1
    assert await bob.keys("c") == ["k"]


@pytest.mark.parametrize("collection", ["", "a b", "a/b", "c'--", "ä", "x" * 129, "c\0"])
async def test_a_collection_of_another_form_is_refused(alice: VaultClient, collection: str) -> None:
    for call in (alice.store(collection, "{}"), alice.query(collection), alice.delete(collection, key="k")):
        code, error = await failure_of(call)
        assert (code.name, [one.field for one in error.violations]) == ("INVALID_ARGUMENT", ["collection"])


@pytest.mark.parametrize("key", ["", "a\0b", "a\nb", "\x7f", "é" * 257])
async def test_a_key_of_another_form_is_refused(alice: VaultClient, key: str) -> None:
    for call in (alice.store("c", "{}", key=key), alice.retrieve("c", key), alice.delete("c", key=key)):
        code, error = await failure_of(call)
        assert (code.name, {one.field for one in error.violations}) == ("INVALID_ARGUMENT", {"key"})


async def test_filters_of_the_largest_size(alice: VaultClient) -> None:
    await alice.store("c", '{"n":7,"a":{"b":1}}', key="k")
    ors = json.dumps({"$or": [{f"p{number}.q.{number}": {"$nin": [number, str(number)]}} for number in range(256)]})
    values = json.dumps({"n": {"$in": list(range(10_000))}})
    arrays = json.dumps({"n": {"$nin": [[number] for number in range(9_000)]}}, separators=(",", ":"))
    objects = json.dumps({"a": {"$in": [{"b": number} for number in range(5_000)]}}, separators=(",", ":"))
    path = json.dumps({".".join("a" * 32_000): {"$exists": False}})
    deep = '{"$not":' * 15 + '{"n":7}' + "}" * 15
    long_text = json.dumps({"n": {"$ne": "x" * 65_000}})
    for text, found in (
        (ors, ["k"]),
        (values, ["k"]),
        (arrays, ["k"]),
        (objects, ["k"]),
        (path, ["k"]),
        (deep, []),
        (long_text, ["k"]),
    ):
        assert len(text) < 65_536
        assert await alice.keys("c", text) == found
        assert await alice.keys("c", text, [f"s{number}" for number in range(8)]) == found
