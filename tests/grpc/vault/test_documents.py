"""Storing, retrieving and deleting documents over gRPC."""

from __future__ import annotations

import json

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


async def test_a_store_replaces_the_ttl(alice: VaultClient, clock: ManualClock) -> None:
    await alice.store("c", "{}", key="k", ttl=Duration(seconds=10))
    assert not (await alice.store("c", "{}", key="k")).HasField("expire_time")
    clock.advance(11)
    assert (await alice.retrieve("c", "k")).document.version == 2
