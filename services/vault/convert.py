"""The vault's messages to its own types and back."""

from __future__ import annotations

from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from services.shared.times import optional_time_to_proto, time_to_proto, us_from_duration
from services.vault.domain.documents import Document
from services.vault.domain.sorting import SortField, sort_field
from services.vault.service.documents import NewDocument
from services.vault.service.queries import CollectionPage, DocumentPage, Query


def new_document_from_proto(request: pb.StoreRequest) -> NewDocument:
    """A StoreRequest."""
    return NewDocument(
        request.collection,
        request.key if request.HasField("key") else None,
        request.document_json,
        us_from_duration(request, "ttl"),
        request.if_version if request.HasField("if_version") else None,
    )


def query_from_proto(request: pb.QueryRequest, account_id: str) -> Query:
    """A QueryRequest about `account_id`."""
    return Query(
        account_id,
        request.collection,
        request.filter_json,
        tuple(sort_from_proto(sort) for sort in request.sort),
        request.limit,
        request.page_token,
    )


def sort_from_proto(sort: pb.Sort) -> SortField:
    """One field of an order."""
    return sort_field(sort.field, descending=sort.direction == pb.SORT_DIRECTION_DESCENDING)


def document_to_proto(document: Document) -> pb.Document:
    """A document."""
    return pb.Document(
        collection=document.collection,
        key=document.key,
        document_json=document.text,
        version=document.version,
        create_time=time_to_proto(document.create_us),
        update_time=time_to_proto(document.update_us),
        expire_time=optional_time_to_proto(document.expire_us),
    )


def documents_to_proto(page: DocumentPage) -> pb.QueryResponse:
    """A page of documents."""
    return pb.QueryResponse(
        documents=[document_to_proto(document) for document in page.documents], next_page_token=page.next_token
    )


def collections_to_proto(page: CollectionPage) -> pb.ListCollectionsResponse:
    """A page of collections."""
    return pb.ListCollectionsResponse(
        collections=[
            pb.Collection(
                collection=one.name,
                document_count=one.document_count,
                size_bytes=one.size_bytes,
                update_time=time_to_proto(one.update_us),
            )
            for one in page.collections
        ],
        next_page_token=page.next_token,
        used_bytes=page.used_bytes,
        capacity_bytes=page.capacity_bytes,
    )
