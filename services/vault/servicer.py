"""VaultService: one short method for each RPC."""

from __future__ import annotations

from typing import Any, Final

import grpc
from flowstack_protos.vault.v1 import vault_service_pb2 as pb
from flowstack_protos.vault.v1.vault_service_pb2_grpc import VaultServiceServicer

from services.shared.auth import Policy, account_of_call
from services.shared.times import optional_time_to_proto
from services.vault import convert
from services.vault.domain.documents import Place
from services.vault.service.documents import DocumentService
from services.vault.service.queries import QueryService

Context = grpc.aio.ServicerContext

POLICIES: Final = dict.fromkeys(("Store", "Retrieve", "Query", "Delete", "ListCollections"), Policy.CUSTOMER_OR_ADMIN)


class VaultServicer(VaultServiceServicer):
    """What customers and the operator call."""

    def __init__(self, documents: DocumentService, queries: QueryService) -> None:
        self._documents = documents
        self._queries = queries

    async def Store(self, request: pb.StoreRequest, context: Context[Any, Any]) -> pb.StoreResponse:
        """See the contract."""
        stored = await self._documents.store(
            account_of_call(request.account_id), convert.new_document_from_proto(request)
        )
        return pb.StoreResponse(
            key=stored.key, version=stored.version, expire_time=optional_time_to_proto(stored.expire_us)
        )

    async def Retrieve(self, request: pb.RetrieveRequest, context: Context[Any, Any]) -> pb.RetrieveResponse:
        """See the contract."""
        place = Place(account_of_call(request.account_id), request.collection, request.key)
        return pb.RetrieveResponse(document=convert.document_to_proto(await self._documents.retrieve(place)))

    async def Query(self, request: pb.QueryRequest, context: Context[Any, Any]) -> pb.QueryResponse:
        """See the contract."""
        query = convert.query_from_proto(request, account_of_call(request.account_id))
        return convert.documents_to_proto(await self._queries.query(query))

    async def Delete(self, request: pb.DeleteRequest, context: Context[Any, Any]) -> pb.DeleteResponse:
        """See the contract."""
        return pb.DeleteResponse(deleted_count=await self._delete(request, account_of_call(request.account_id)))

    async def _delete(self, request: pb.DeleteRequest, account_id: str) -> int:
        target = request.WhichOneof("target")
        if target == "key":
            if_version = request.if_version if request.HasField("if_version") else None
            return await self._documents.delete_key(Place(account_id, request.collection, request.key), if_version)
        if target == "filter_json":
            return await self._documents.delete_matching(account_id, request.collection, request.filter_json)
        return await self._documents.delete_collection(account_id, request.collection)

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: Context[Any, Any]
    ) -> pb.ListCollectionsResponse:
        """See the contract."""
        page = await self._queries.list_collections(
            account_of_call(request.account_id), request.page_size, request.page_token
        )
        return convert.collections_to_proto(page)
