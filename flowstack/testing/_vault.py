"""VaultService of the fake."""

from __future__ import annotations

import secrets
from typing import Final

from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from flowstack.testing._calls import Call, page_of
from flowstack.testing._documents import CAPACITY_BYTES, Document, Documents, is_empty_filter
from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._time import optional_timestamp, timestamp
from flowstack.testing._world import World

PAGE_BYTES_MAX: Final = 3 * 1024 * 1024


class Vault:
    """The methods of VaultService."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _of(self, call: Call) -> Documents:
        return self._world.account(call.account_id).documents

    def store(self, call: Call, request: pb.StoreRequest) -> pb.StoreResponse:
        """Stores a document under a key, or under a new one."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            key = request.key if request.HasField("key") else f"{now_us:014x}{secrets.token_hex(9)}"
            stored = self._of(call).store(
                request.collection,
                key,
                request.document_json,
                ttl_us=-(-request.ttl.ToNanoseconds() // 1000) if request.HasField("ttl") else None,
                if_version=request.if_version if request.HasField("if_version") else None,
                now_us=now_us,
            )
        return pb.StoreResponse(
            key=stored.key, version=stored.version, expire_time=optional_timestamp(stored.expire_us)
        )

    def retrieve(self, call: Call, request: pb.RetrieveRequest) -> pb.RetrieveResponse:
        """Reads a document."""
        with self._world.lock:
            found = self._of(call).find(request.collection, request.key, self._world.clock.now_us())
        if found is None:
            raise FakeError(
                "DOCUMENT_NOT_FOUND",
                "There is no such document, or it has expired. Check the collection and the key.",
            )
        return pb.RetrieveResponse(document=_to_proto(found))

    def query(self, call: Call, request: pb.QueryRequest) -> pb.QueryResponse:
        """Reads a page of the documents that a filter lets through."""
        sort = [(one.field, one.direction == pb.SORT_DIRECTION_DESCENDING) for one in request.sort]
        with self._world.lock:
            found = self._of(call).query(request.collection, request.filter_json, sort, self._world.clock.now_us())
        page, token = page_of(
            found,
            call,
            request,
            newest_first=False,
            bytes_of=lambda one: one.size_bytes,
            bytes_max=PAGE_BYTES_MAX,
        )
        return pb.QueryResponse(documents=[_to_proto(one) for one in page], next_page_token=token)

    def delete(self, call: Call, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Deletes one document, those of a filter, or a collection."""
        with self._world.lock:
            documents, now_us = self._of(call), self._world.clock.now_us()
            if request.HasField("key"):
                if_version = request.if_version if request.HasField("if_version") else None
                count = documents.delete(request.collection, request.key, if_version, now_us)
            elif request.HasField("filter_json"):
                if is_empty_filter(request.filter_json):
                    raise invalid_field(
                        "filter_json", "must not be empty: to delete a whole collection set all_documents"
                    )
                count = documents.delete_matching(request.collection, request.filter_json, now_us)
            else:
                count = documents.delete_matching(request.collection, "", now_us)
        return pb.DeleteResponse(deleted_count=count)

    def list_collections(self, call: Call, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Lists the collections that hold documents."""
        with self._world.lock:
            kept = self._of(call).collections(self._world.clock.now_us())
        collections = [
            pb.Collection(
                collection=name,
                document_count=len(documents),
                size_bytes=sum(one.size_bytes for one in documents),
                update_time=timestamp(max(one.update_us for one in documents)),
            )
            for name, documents in kept.items()
        ]
        page, token = page_of(collections, call, request, newest_first=False)
        return pb.ListCollectionsResponse(
            collections=page,
            next_page_token=token,
            used_bytes=sum(one.size_bytes for one in collections),
            capacity_bytes=CAPACITY_BYTES,
        )


def _to_proto(document: Document) -> pb.Document:
    return pb.Document(
        collection=document.collection,
        key=document.key,
        document_json=document.text,
        version=document.version,
        create_time=timestamp(document.create_us),
        update_time=timestamp(document.update_us),
        expire_time=optional_timestamp(document.expire_us),
    )
