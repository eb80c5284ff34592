"""Storing, retrieving and deleting documents over gRPC."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.billing import failure_of, reason_of
from tests.support.clock import ManualClock
from tests.support.vault import VaultClient

TEXTS = [
    "{}",
    '{"a": 1, "b": [1, 2.50, {"c": null}]}',
    '{"big":9007199254740993,"bigger":123456789012345678901234567890,"tiny":1e-400,"price":19.90,"exponent":1E+2}',
    '{ "spaces" :\n [ true , false ] }',
    '{"ünï":"\\u00fc 😀 \\ud83d\\ude00","quote\\"":"\\\\","":"empty","%25":"%"}',
]


@pytest.mark.parametrize("text", TEXTS)
async def test_a_document_comes_back_as_it_was(alice: VaultClient, clock: ManualClock, text: str) -> None:
    stored = await alice.store("c", text, key="k")
    document = (await alice.retrieve("c", "k")).document
    assert (stored.key, stored.version, stored.HasField("expire_time")) == ("k", 1, False)
    assert (document.collection, document.key, document.document_json) == ("c", "k", text)
    assert document.version == 1
    assert document.create_time.ToMicroseconds() == document.update_time.ToMicroseconds() == clock.now_us()
    (queried,) = (await alice.query("c")).documents
    assert queried == document


async def test_a_key_is_made_where_none_is_given(alice: VaultClient, clock: ManualClock) -> None:
    keys = []
    for _ in range(3):
        keys.append((await alice.store("c", "{}")).key)
        clock.advance(1)
    assert len(set(keys)) == 3
    assert await alice.keys("c") == keys, "later ones sort later"


async def test_storing_again_replaces(alice: VaultClient, clock: ManualClock) -> None:
    await alice.store("c", '{"n":1}', key="k")
    created_us = clock.now_us()
    clock.advance(5)
    assert (await alice.store("c", '{"n":2}', key="k")).version == 2
    document = (await alice.retrieve("c", "k")).document
    assert json.loads(document.document_json) == {"n": 2}
    assert document.create_time.ToMicroseconds() == created_us
    assert document.update_time.ToMicroseconds() == created_us + 5_000_000


async def test_if_version_decides(alice: VaultClient) -> None:
    code, error = await failure_of(alice.store("c", "{}", key="k", if_version=1))
    assert (code.name, error.reason.value, error.metadata) == ("ABORTED", "VERSION_MISMATCH", {"current_version": "0"})
    assert (await alice.store("c", "{}", key="k", if_version=0)).version == 1
    _, error = await failure_of(alice.store("c", "{}", key="k", if_version=0))
    assert error.metadata == {"current_version": "1"}
    assert (await alice.store("c", "{}", key="k", if_version=1)).version == 2
    assert await reason_of(alice.delete("c", key="k", if_version=1)) == "VERSION_MISMATCH"
    assert (await alice.delete("c", key="k", if_version=2)).deleted_count == 1
    assert await reason_of(alice.delete("c", key="k", if_version=2)) == "VERSION_MISMATCH"


async def test_a_deleted_key_starts_anew(alice: VaultClient, clock: ManualClock) -> None:
    for _ in range(2):
        await alice.store("c", "{}", key="k")
    assert (await alice.delete("c", key="k")).deleted_count == 1
    assert (await alice.delete("c", key="k")).deleted_count == 0
    assert await reason_of(alice.retrieve("c", "k")) == "DOCUMENT_NOT_FOUND"
    clock.advance(1)
    assert (await alice.store("c", "{}", key="k")).version == 1
    assert (await alice.retrieve("c", "k")).document.create_time.ToMicroseconds() == clock.now_us()


async def test_an_unknown_collection_holds_nothing(alice: VaultClient) -> None:
    assert await reason_of(alice.retrieve("none", "k")) == "DOCUMENT_NOT_FOUND"
    assert list((await alice.query("none")).documents) == []
    assert (await alice.delete("none", all_documents=True)).deleted_count == 0
    assert (await alice.delete("none", filter_json='{"a":1}')).deleted_count == 0


async def test_what_has_expired_is_gone_at_once(alice: VaultClient, clock: ManualClock) -> None:
    stored = await alice.store("c", '{"a":1}', key="k", ttl=Duration(seconds=10))
    assert stored.expire_time.ToMicroseconds() == clock.now_us() + 10_000_000
    clock.advance(9.999999)
    assert (await alice.retrieve("c", "k")).document.expire_time == stored.expire_time
    clock.advance(0.000001)
    assert await reason_of(alice.retrieve("c", "k")) == "DOCUMENT_NOT_FOUND"
    assert await alice.keys("c") == []
    assert (await alice.delete("c", filter_json='{"a":1}')).deleted_count == 0
    listed = await alice.list_collections()
    assert (list(listed.collections), listed.used_bytes) == ([], 0)
    assert await reason_of(alice.delete("c", key="k", if_version=1)) == "VERSION_MISMATCH"
    again = await alice.store("c", "{}", key="k", if_version=0)
    assert (again.version, again.HasField("expire_time")) == (1, False)


FINE = {
    (0, 1): 1,
    (0, 1_001): 2,
    (1, -1): 1_000_000,
    (1, -999_999_999): 1,
    (-1, 2_000_000_000): 1_000_000,
    (315_576_000, -1): 315_576_000_000_000,
}
"""Seconds and nanoseconds, of signs that differ too, as other languages' clients may send them, in microseconds."""


@pytest.mark.parametrize(("seconds", "nanos"), FINE)
async def test_a_ttl_finer_than_a_microsecond_is_rounded_up(
    alice: VaultClient, clock: ManualClock, seconds: int, nanos: int
) -> None:
    stored = await alice.store("c", "{}", key="k", ttl=Duration(seconds=seconds, nanos=nanos))
    assert stored.expire_time.ToMicroseconds() == clock.now_us() + FINE[seconds, nanos]
    assert (await alice.retrieve("c", "k")).document.expire_time == stored.expire_time
    clock.advance(FINE[seconds, nanos] / 1_000_000)
    assert await reason_of(alice.retrieve("c", "k")) == "DOCUMENT_NOT_FOUND"


async def test_a_store_replaces_the_ttl(alice: VaultClient, clock: ManualClock) -> None:
    await alice.store("c", "{}", key="k", ttl=Duration(seconds=10))
    assert not (await alice.store("c", "{}", key="k")).HasField("expire_time")
    clock.advance(11)
    assert (await alice.retrieve("c", "k")).document.version == 2


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(),
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=-1, nanos=999_999_999),
        Duration(seconds=1, nanos=-1_000_000_000),
        Duration(seconds=315_576_000, nanos=1),
        Duration(seconds=2**62),
    ],
    ids=["0", "negative", "a little negative", "nearly 0", "a sum of 0", "over 10 years", "huge"],
)
async def test_a_ttl_that_cannot_be_is_refused(alice: VaultClient, ttl: Duration) -> None:
    code, error = await failure_of(alice.store("c", "{}", key="k", ttl=ttl))
    assert (code.name, [one.field for one in error.violations]) == ("INVALID_ARGUMENT", ["ttl"])
    assert await reason_of(alice.retrieve("c", "k")) == "DOCUMENT_NOT_FOUND"


async def test_what_expires_between_pages_is_not_on_the_next(alice: VaultClient, clock: ManualClock) -> None:
    for number in range(6):
        await alice.store("c", f'{{"n":{number}}}', key=f"k{number}", ttl=Duration(seconds=10 + number % 2))
    first = await alice.query("c", sort=["-n"], limit=2)
    clock.advance(10)
    rest = await alice.query("c", sort=["-n"], limit=2, page_token=first.next_page_token)
    assert [one.key for one in first.documents] == ["k5", "k4"]
    assert [one.key for one in rest.documents] == ["k3", "k1"]
    assert not rest.next_page_token


async def test_writers_that_compare_and_set_lose_nothing(alice: VaultClient) -> None:
    await alice.store("c", '{"n":0}', key="k")

    async def add_one() -> None:
        while True:
            document = (await alice.retrieve("c", "k")).document
            text = json.dumps({"n": json.loads(document.document_json)["n"] + 1})
            try:
                await alice.store("c", text, key="k", if_version=document.version)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED
            else:
                return

    await asyncio.gather(*(add_one() for _ in range(12)))
    document = (await alice.retrieve("c", "k")).document
    assert (json.loads(document.document_json), document.version) == ({"n": 12}, 13)


async def test_names_and_texts_are_not_normalised(alice: VaultClient) -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    for key in (composed, decomposed):
        await alice.store("c", json.dumps({key: key}, ensure_ascii=False), key=key)
    for key in (composed, decomposed):
        assert await alice.keys("c", json.dumps({key: {"$exists": True}})) == [key]
        assert await alice.keys("c", json.dumps({key: key})) == [key]
    assert await alice.keys("c", sort=["-_key"]) == [composed, decomposed]
