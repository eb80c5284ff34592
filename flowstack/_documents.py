"""What the vault's methods do, as steps that the blocking and the async vault drive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from flowstack_protos.vault.v1 import vault_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from flowstack._client import Call, Steps
from flowstack._errors import FlowStackError, InvalidRequestError, NotFoundError
from flowstack._json import NotJsonError, encode
from flowstack._methods import VaultService
from flowstack._requests import build
from flowstack._values import time_of

NOTES: Final = "provider_switches"
"""The collection of notes which provider served each counted chat."""

DOCUMENT_BYTES_MAX: Final = 1024 * 1024
PAGE_MAX: Final = 1000

Sort = str | Sequence[tuple[str, int | str]]
"""`"field"`, `"-field"` for descending, or pairs of a field and 1, -1, "asc" or "desc"."""


class Document(dict[str, Any]):
    """A document, with what the vault knows about it.

    Attributes:
        collection: where it is.
        key: its key there.
        version: 1 when new, one more each time that it is stored; for `if_version`.
        create_time: when it was first stored.
        update_time: when it was last stored.
        expire_time: when it expires; None when it does not.
    """

    collection: str
    key: str
    version: int
    create_time: datetime
    update_time: datetime
    expire_time: datetime | None


class StoredKey(str):
    """The key that a document was stored under, with its `version` on it."""

    version: int


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection: its name, how many documents it holds, and their bytes."""

    name: str
    documents: int
    size_bytes: int
    update_time: datetime


def store(
    collection: str,
    document: Mapping[str, Any],
    key: str | None,
    ttl: timedelta | float | None,
    if_version: int | None,
) -> Steps[StoredKey]:
    """Stores a document."""
    request = build(
        pb.StoreRequest,
        collection=collection,
        document_json=document_json(document),
        key=key,
        if_version=if_version,
        ttl=None if ttl is None else _duration(ttl),
    )
    # Without a key a repeat would make another document; with if_version it would be refused for the first one's sake.
    safe = key is not None and if_version is None
    response: pb.StoreResponse = yield Call(VaultService.Store, request, safe)
    stored = StoredKey(response.key)
    stored.version = response.version
    return stored


def _duration(ttl: timedelta | float) -> Duration:
    duration = Duration()
    try:
        time = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        if not time and not isinstance(ttl, timedelta) and ttl > 0:
            time = timedelta.resolution  # it is not to become none
        duration.FromTimedelta(time)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequestError("ttl has to be a timedelta or a number of seconds, at most 10 years.") from None
    return duration


def document_json(document: Mapping[str, Any]) -> str:
    """A document's JSON text.

    Raises:
        InvalidRequestError: no mapping, what JSON cannot express, or over 1 MiB.
    """
    if not isinstance(document, Mapping):
        raise InvalidRequestError(
            f"A document has to be a dict, not {type(document).__name__}: {{'value': …}} would do."
        )
    try:
        text = encode(document)
    except NotJsonError as error:
        raise InvalidRequestError(f"The document cannot be stored: {error}.") from None
    size = len(text.encode())
    if size > DOCUMENT_BYTES_MAX:
        raise InvalidRequestError(
            f"The document has {size:,} bytes; {DOCUMENT_BYTES_MAX:,} are allowed. Split it, or leave something out."
        )
    return text


def retrieve(collection: str, key: str) -> Steps[Document | None]:
    """Reads a document; None where there is none."""
    try:
        response: pb.RetrieveResponse = yield Call(
            VaultService.Retrieve, build(pb.RetrieveRequest, collection=collection, key=key)
        )
    except NotFoundError as error:
        if error.reason == "DOCUMENT_NOT_FOUND":
            return None
        raise
    return _document(response.document)


def query(
    collection: str, where: Mapping[str, Any] | None, sort: Sort | None, limit: int | None
) -> Steps[list[Document]]:
    """Reads documents, page by page until `limit`."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidRequestError("limit has to be 1 or more, or None for all documents.")
    request = build(pb.QueryRequest, collection=collection, filter_json=_filter_json(where), sort=_sort(sort))
    found: list[Document] = []
    while True:
        request.limit = PAGE_MAX if limit is None else min(PAGE_MAX, limit - len(found))
        page: pb.QueryResponse = yield Call(VaultService.Query, request)
        found.extend(_document(document) for document in page.documents)
        request.page_token = page.next_page_token
        if not page.next_page_token or (limit is not None and len(found) >= limit):
            return found


def delete(
    collection: str,
    key: str | None,
    where: Mapping[str, Any] | None,
    all_documents: bool,
    if_version: int | None,
) -> Steps[int]:
    """Deletes documents."""
    if [key is not None, where is not None, all_documents].count(True) != 1:
        raise InvalidRequestError("Say what to delete: key=, filter=, or all=True for the whole collection.")
    request = build(pb.DeleteRequest, collection=collection, if_version=if_version, key=key)
    if where is not None:
        request.filter_json = _filter_json(where)
    elif all_documents:
        request.all_documents = True
    response: pb.DeleteResponse = yield Call(VaultService.Delete, request, if_version is None)
    return response.deleted_count


def collections() -> Steps[list[CollectionInfo]]:
    """Lists the collections, by name."""
    found: list[CollectionInfo] = []
    request = pb.ListCollectionsRequest(page_size=PAGE_MAX)
    while True:
        page: pb.ListCollectionsResponse = yield Call(VaultService.ListCollections, request)
        found.extend(
            CollectionInfo(one.collection, one.document_count, one.size_bytes, time_of(one.update_time))
            for one in page.collections
        )
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def _document(document: pb.Document) -> Document:
    found = Document(_value_of(document))
    found.collection, found.key, found.version = document.collection, document.key, document.version
    found.create_time, found.update_time = time_of(document.create_time), time_of(document.update_time)
    found.expire_time = time_of(document.expire_time) if document.HasField("expire_time") else None
    return found


def _value_of(document: pb.Document) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(document.document_json)
    except ValueError:  # the vault keeps nothing but JSON, whose integers may have any number of digits
        raise FlowStackError(
            f"The document {document.key!r} in {document.collection} holds an integer of more digits than Python "
            "reads. Allow it more with sys.set_int_max_str_digits(), or print the document with `flowstack vault "
            "retrieve`."
        ) from None
    return value


def _filter_json(where: Mapping[str, Any] | None) -> str:
    if where is None:
        return ""
    if not isinstance(where, Mapping):
        raise InvalidRequestError("filter has to be a dict, such as {'status': 'open'} or {'age': {'$gte': 18}}.")
    try:
        return encode(where)
    except NotJsonError as error:
        raise InvalidRequestError(f"The filter cannot be sent: {error}.") from None


_DIRECTIONS: Final[Mapping[Any, Any]] = {
    1: pb.SORT_DIRECTION_ASCENDING,
    -1: pb.SORT_DIRECTION_DESCENDING,
    "asc": pb.SORT_DIRECTION_ASCENDING,
    "desc": pb.SORT_DIRECTION_DESCENDING,
}


def _sort(sort: Sort | None) -> list[pb.Sort]:
    if not sort:
        return []
    if isinstance(sort, str):
        sort = [(sort.removeprefix("-"), -1 if sort.startswith("-") else 1)]
    try:
        sorts = [pb.Sort(field=field, direction=_DIRECTIONS[direction]) for field, direction in sort]
        if not all(one.field for one in sorts):
            raise ValueError("a field without a name")
        return sorts
    except (TypeError, ValueError, KeyError):
        raise InvalidRequestError(
            "sort has to be a list of (field, direction) with direction 1 or -1, such as [('timestamp', -1)], "
            "or a field's name, with - before it for descending."
        ) from None
