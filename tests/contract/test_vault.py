"""Documents: stored, found, sorted and deleted, each account's for itself."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from flowstack_protos.vault.v1 import vault_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from tests.contract.target import Customer, Target, refusal


def store(customer: Customer, document: Any, key: str | None = None, **fields: Any) -> pb.StoreResponse:
    """Stores a document."""
    text = document if isinstance(document, str) else json.dumps(document)
    request = pb.StoreRequest(collection="notes", document_json=text, key=key, **fields)
    return customer.call(customer.target.vault.Store, request)


def retrieve(customer: Customer, key: str) -> pb.Document:
    """Reads a document."""
    request = pb.RetrieveRequest(collection="notes", key=key)
    return customer.call(customer.target.vault.Retrieve, request).document


def query(customer: Customer, wanted: Any = None, **fields: Any) -> pb.QueryResponse:
    """Finds documents."""
    text = wanted if isinstance(wanted, str) else json.dumps(wanted or {})
    return customer.call(customer.target.vault.Query, pb.QueryRequest(collection="notes", filter_json=text, **fields))


def delete(customer: Customer, **fields: Any) -> int:
    """Deletes documents; answers how many."""
    request = pb.DeleteRequest(collection="notes", **fields)
    return int(customer.call(customer.target.vault.Delete, request).deleted_count)


def keys(answered: pb.QueryResponse) -> list[str]:
    """The keys of what was found."""
    return [document.key for document in answered.documents]


DOCUMENTS = {
    "a": {"n": 1, "s": "x", "deep": {"list": [{"v": 1}, {"v": 2}]}, "flag": True},
    "b": {"n": 2.0, "s": "y", "deep": {}, "flag": False},
    "c": {"n": 10, "s": None, "tags": ["x", "y"]},
    "d": {"n": "1", "o": {"p": 1, "q": [1.0]}},
    "e": {},
}


@pytest.fixture
def stocked(free: Customer) -> Customer:
    """An account with documents."""
    for key, document in DOCUMENTS.items():
        store(free, document, key)
    return free


def test_a_document_comes_back_as_it_went_in(free: Customer) -> None:
    text = '{"big": 123456789012345678901234567890, "exact": 1.10, "é": "ü"}'
    stored = store(free, text, "k")
    found = retrieve(free, "k")

    assert (stored.key, stored.version) == ("k", 1)
    assert (found.document_json, found.version, found.collection) == (text, 1, "notes")
    assert found.create_time == found.update_time
    assert not found.HasField("expire_time")


def test_versions_count_and_guard(free: Customer) -> None:
    assert store(free, {}, "k", if_version=0).version == 1
    assert store(free, {}, "k", if_version=1).version == 2
    code, info = refusal(lambda: store(free, {}, "k", if_version=1))
    _, absent = refusal(lambda: store(free, {}, "other", if_version=3))

    assert (code, info.reason) == (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")
    assert dict(info.metadata) == {"current_version": "2"}
    assert dict(absent.metadata) == {"current_version": "0"}


def test_a_document_without_a_key_is_given_one(free: Customer) -> None:
    keys = [store(free, {}).key for _ in range(20)]

    assert keys == sorted(set(keys))
    assert retrieve(free, keys[0]).version == 1


def test_what_is_not_there_is_not_found(free: Customer) -> None:
    code, info = refusal(lambda: retrieve(free, "nothing"))

    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "DOCUMENT_NOT_FOUND")


def test_a_ttl_says_when_it_ends(free: Customer) -> None:
    request = pb.StoreRequest(collection="notes", key="k", document_json="{}")
    request.ttl.FromSeconds(3600)
    stored = free.call(free.target.vault.Store, request)
    found = retrieve(free, "k")

    assert found.expire_time == stored.expire_time
    assert stored.expire_time.ToMicroseconds() - found.update_time.ToMicroseconds() == 3600 * 1_000_000


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 1), (0, 999), (1, -999_999_999), (-1, 2_000_000_000)])
def test_the_shortest_ttl_is_not_for_good(free: Customer, seconds: int, nanos: int) -> None:
    assert store(free, {}, "k", ttl=Duration(seconds=seconds, nanos=nanos)).HasField("expire_time")


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(0, 0), (0, -1), (1, -1_000_000_000), (-1, 1), (315_576_000, 1), (2**63 - 1, 0), (-(2**63), 0)],
)
def test_a_ttl_is_above_0_and_up_to_10_years(free: Customer, seconds: int, nanos: int) -> None:
    code, info = refusal(lambda: store(free, {}, "k", ttl=Duration(seconds=seconds, nanos=nanos)))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcde"),
        ({"n": 1}, "a"),
        ({"n": 2}, "b"),
        ({"n": {"$ne": 1}}, "bcde"),
        ({"n": {"$gt": 1}}, "bc"),
        ({"n": {"$gte": 2, "$lt": 10}}, "b"),
        ({"n": {"$lte": "2"}}, "d"),
        ({"s": None}, "c"),
        ({"s": {"$exists": True}}, "abc"),
        ({"s": {"$exists": False}}, "de"),
        ({"s": {"$in": ["x", None]}}, "ac"),
        ({"s": {"$nin": ["x", None]}}, "bde"),
        ({"flag": {"$gt": False}}, "a"),
        ({"deep.list.1.v": 2}, "a"),
        ({"deep": {}}, "b"),
        ({"tags": ["x", "y"]}, "c"),
        ({"tags.0": "x"}, "c"),
        ({"o": {"q": [1], "p": 1}}, "d"),
        ({"$or": [{"n": 1}, {"n": 10}]}, "ac"),
        ({"$and": [{"n": {"$gt": 1}}, {"s": "y"}]}, "b"),
        ({"$not": {"n": {"$gt": 1}}}, "ade"),
        ({"n": {"$gte": 1}, "s": {"$ne": "x"}}, "bc"),
    ],
)
def test_filters(stocked: Customer, wanted: dict[str, Any], found: str) -> None:
    assert keys(query(stocked, wanted)) == list(found)


@pytest.mark.parametrize(
    ("field", "descending", "found"),
    [
        ("n", False, "eabcd"),
        ("n", True, "dcbae"),
        ("s", False, "decab"),
        ("_key", True, "edcba"),
        ("_create_time", True, "edcba"),
        ("flag", True, "abcde"),
    ],
)
def test_orders(stocked: Customer, field: str, descending: bool, found: str) -> None:
    direction = pb.SORT_DIRECTION_DESCENDING if descending else pb.SORT_DIRECTION_ASCENDING

    assert keys(query(stocked, sort=[pb.Sort(field=field, direction=direction)])) == list(found)


def test_pages_go_on_where_the_last_one_ended(stocked: Customer) -> None:
    first = query(stocked, limit=3)
    second = query(stocked, limit=3, page_token=first.next_page_token)

    assert (keys(first), keys(second), second.next_page_token) == (list("abc"), list("de"), "")


@pytest.mark.parametrize(
    "bad",
    [
        "[]",
        "{",
        '{"n": {"$regex": "x"}}',
        '{"$nor": []}',
        '{"$and": []}',
        '{"n": {"$in": 1}}',
        '{"n": {"$gt": {}}}',
        '{"n": {"$exists": 1}}',
        '{"": 1}',
        '{"n": 1, "n": 2}',
    ],
)
def test_a_bad_filter_is_refused(stocked: Customer, bad: str) -> None:
    code, info = refusal(lambda: query(stocked, bad))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize("bad", ["[1]", "nonsense", '{"a": NaN}', '{"a": 1, "a": 2}', "{}" + " " * 1_048_576])
def test_a_bad_document_is_refused(free: Customer, bad: str) -> None:
    code, info = refusal(lambda: store(free, bad, "k"))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "fields",
    [
        {"collection": "no spaces", "key": "k"},
        {"collection": "notes", "key": ""},
        {"collection": "notes", "if_version": 1},
        {"collection": "notes", "key": "line\nbreak"},
    ],
)
def test_bad_names_are_refused(free: Customer, fields: dict[str, Any]) -> None:
    request = pb.StoreRequest(document_json="{}", **fields)
    code, info = refusal(lambda: free.call(free.target.vault.Store, request))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_deletions(stocked: Customer) -> None:
    assert delete(stocked, key="nothing") == 0
    assert delete(stocked, key="a") == 1
    assert delete(stocked, filter_json='{"n": {"$gt": 1}}') == 2
    assert keys(query(stocked)) == ["d", "e"]
    assert delete(stocked, all_documents=True) == 2


@pytest.mark.parametrize("fields", [{}, {"filter_json": "{}"}, {"filter_json": "{ }"}, {"filter_json": "x"}])
def test_a_deletion_says_what_it_means(stocked: Customer, fields: dict[str, Any]) -> None:
    code, info = refusal(lambda: delete(stocked, **fields))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert len(query(stocked).documents) == 5


def test_collections_are_listed(stocked: Customer) -> None:
    answered = stocked.call(stocked.target.vault.ListCollections, pb.ListCollectionsRequest())

    size = sum(len(key) + len(json.dumps(document)) for key, document in DOCUMENTS.items())
    assert [(one.collection, one.document_count, one.size_bytes) for one in answered.collections] == [
        ("notes", 5, size)
    ]
    assert answered.used_bytes == size
    assert answered.capacity_bytes > size


def test_accounts_never_meet(target: Target, stocked: Customer) -> None:
    other = target.open_account("free")

    assert keys(query(other, {"n": {"$gt": 0}})) == []
    assert keys(query(other)) == []
    assert delete(other, all_documents=True) == 0
    assert refusal(lambda: retrieve(other, "a"))[1].reason == "DOCUMENT_NOT_FOUND"
    assert len(query(stocked).documents) == 5


def test_the_vault_answers_at_the_session_limit(free: Customer) -> None:
    for _ in range(25):
        list(free.complete())
    assert refusal(free.complete)[1].reason == "SESSION_QUOTA_EXCEEDED"

    store(free, {"a": 1}, "k")
    assert retrieve(free, "k").version == 1
    assert free.usage().sessions_used == 25
