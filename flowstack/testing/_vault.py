"""The fake's vault: documents in memory, with the filters and sorts of the contract."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from flowstack.testing._quota import Account
from flowstack.testing._refusal import Refusal, invalid

COLLECTION: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
CAPACITY_BYTES: Final = 1024**3
MISSING: Final = object()


@dataclass
class Stored:
    """A document and what is known about it."""

    text: str
    value: dict[str, Any]
    version: int
    created: datetime
    updated: datetime
    expires: datetime | None


class FakeVault:
    """VaultService."""

    async def Store(self, account: Account, request: pb.StoreRequest) -> pb.StoreResponse:
        """Stores a document."""
        documents = account.documents.setdefault(_collection(request.collection), {})
        key = request.key if request.HasField("key") else uuid.uuid4().hex
        value = _object(request.document_json, "document_json")
        now = datetime.now(UTC)
        old = _alive(documents, now).get(key)
        _check_version(request, old)
        expires = now + request.ttl.ToTimedelta() if request.HasField("ttl") else None
        version = old.version + 1 if old else 1
        documents[key] = Stored(request.document_json, value, version, old.created if old else now, now, expires)
        response = pb.StoreResponse(key=key, version=version)
        if expires:
            response.expire_time.FromDatetime(expires)
        return response

    async def Retrieve(self, account: Account, request: pb.RetrieveRequest) -> pb.RetrieveResponse:
        """Reads a document."""
        found = _alive(account.documents.get(_collection(request.collection), {})).get(request.key)
        if found is None:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "DOCUMENT_NOT_FOUND", "There is no document with that key.")
        return pb.RetrieveResponse(document=_document(request.collection, request.key, found))

    async def Query(self, account: Account, request: pb.QueryRequest) -> pb.QueryResponse:
        """Reads a page of documents."""
        accepts = _filter(_object(request.filter_json or "{}", "filter_json"))
        documents = _alive(account.documents.get(_collection(request.collection), {}))
        found = sorted((key, one) for key, one in documents.items() if accepts(one.value))
        for sort in reversed(request.sort):
            found.sort(
                key=lambda item, path=sort.field: _rank(_sorted_by(item[0], item[1], path)),  # type: ignore[misc]
                reverse=sort.direction == pb.SORT_DIRECTION_DESCENDING,
            )
        start = int(request.page_token or 0)
        end = start + (request.limit or 50)
        page = [_document(request.collection, key, one) for key, one in found[start:end]]
        return pb.QueryResponse(documents=page, next_page_token=str(end) if len(found) > end else "")

    async def Delete(self, account: Account, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Deletes documents."""
        documents = _alive(account.documents.get(_collection(request.collection), {}))
        target = request.WhichOneof("target")
        if target == "key":
            _check_version(request, documents.get(request.key))
            keys = [request.key] if request.key in documents else []
        elif target == "filter_json":
            where = _object(request.filter_json, "filter_json")
            if not where:
                raise invalid("filter_json", "an empty filter deletes nothing; say all_documents")
            accepts = _filter(where)
            keys = [key for key, one in documents.items() if accepts(one.value)]
        else:
            keys = list(documents)
        for key in keys:
            del account.documents[request.collection][key]
        return pb.DeleteResponse(deleted_count=len(keys))

    async def ListCollections(
        self, account: Account, _request: pb.ListCollectionsRequest
    ) -> pb.ListCollectionsResponse:
        """Lists collections."""
        response = pb.ListCollectionsResponse(capacity_bytes=CAPACITY_BYTES)
        for name in sorted(account.documents):
            documents = list(_alive(account.documents[name]).values())
            if documents:
                size = sum(len(one.text.encode()) for one in documents)
                info = response.collections.add(collection=name, document_count=len(documents), size_bytes=size)
                info.update_time.FromDatetime(max(one.updated for one in documents))
                response.used_bytes += size
        return response


def _alive(documents: Mapping[str, Stored], now: datetime | None = None) -> dict[str, Stored]:
    moment = now or datetime.now(UTC)
    return {key: one for key, one in documents.items() if one.expires is None or one.expires > moment}


def _collection(name: str) -> str:
    if not COLLECTION.fullmatch(name):
        raise invalid("collection", "must be 1 to 128 letters, digits, _ . : or -")
    return name


def _object(text: str, field: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise invalid(field, "must be a JSON object")
    return value


def _check_version(request: Any, old: Stored | None) -> None:
    if request.HasField("if_version") and request.if_version != (old.version if old else 0):
        raise Refusal(
            grpc.StatusCode.ABORTED, "VERSION_MISMATCH", "Another version is there. Read it and decide again."
        )


def _document(collection: str, key: str, one: Stored) -> pb.Document:
    document = pb.Document(collection=collection, key=key, document_json=one.text, version=one.version)
    document.create_time.FromDatetime(one.created)
    document.update_time.FromDatetime(one.updated)
    if one.expires:
        document.expire_time.FromDatetime(one.expires)
    return document


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def _kind(value: Any) -> int:
    """Where a kind of value sorts: missing, null, numbers, texts, booleans, the rest."""
    if value is MISSING:
        return 0
    if value is None:
        return 1
    if isinstance(value, bool):
        return 4
    return 2 if isinstance(value, int | float) else 3 if isinstance(value, str) else 5


def _sorted_by(key: str, one: Stored, path: str) -> Any:
    own = {"_key": key, "_create_time": one.created.timestamp(), "_update_time": one.updated.timestamp()}
    return own.get(path, MISSING) if path in own else _at(one.value, path)


def _rank(value: Any) -> tuple[int, Any]:
    kind = _kind(value)
    return (kind, value if kind in (2, 3, 4) else 0)


def _equal(one: Any, other: Any) -> bool:
    if _kind(one) != _kind(other) or (type(one) is not type(other) and _kind(one) == 5):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda found, given: _kind(found) == _kind(given) in (2, 3, 4) and test(found, given)


_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": _equal,
    "$ne": lambda found, given: not _equal(found, given),
    "$gt": _ordered(lambda found, given: found > given),
    "$gte": _ordered(lambda found, given: found >= given),
    "$lt": _ordered(lambda found, given: found < given),
    "$lte": _ordered(lambda found, given: found <= given),
    "$in": lambda found, given: any(_equal(found, one) for one in given),
    "$nin": lambda found, given: not any(_equal(found, one) for one in given),
    "$exists": lambda found, given: (found is not MISSING) is given,
}

Filter = Callable[[Any], bool]


def _filter(where: Any) -> Filter:
    """Compiles a filter.

    Raises:
        Refusal: INVALID_REQUEST for what is none.
    """
    if not isinstance(where, dict):
        raise invalid("filter_json", "a filter has to be an object")
    parts = [_condition(path, given) for path, given in where.items()]
    return lambda value: all(part(value) for part in parts)


def _condition(path: str, given: Any) -> Filter:
    if path in ("$and", "$or"):
        if not isinstance(given, list) or not given:
            raise invalid("filter_json", f"{path} takes an array of filters, not empty")
        parts = [_filter(one) for one in given]
        combine = all if path == "$and" else any
        return lambda value: combine(part(value) for part in parts)
    if path == "$not":
        inner = _filter(given)
        return lambda value: not inner(value)
    if path.startswith("$"):
        raise invalid("filter_json", "has an operator that there is not")
    if not (isinstance(given, dict) and any(name.startswith("$") for name in given)):
        return lambda value: _equal(_at(value, path), given)
    for name, operand in given.items():
        if name not in _OPERATORS:
            raise invalid("filter_json", "has an operator that there is not")
        if name in ("$in", "$nin") and not isinstance(operand, list):
            raise invalid("filter_json", f"{name} takes an array")
        if name == "$exists" and not isinstance(operand, bool):
            raise invalid("filter_json", "$exists takes true or false")
    return lambda value: all(_OPERATORS[name](_at(value, path), operand) for name, operand in given.items())
