"""The vault, which is declared and not served yet."""

from __future__ import annotations

from pathlib import Path

from flowstack_protos.vault.v1 import vault_service_pb2 as pb
from flowstack_protos.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from tests.grpc.shared.test_drain import running
from tests.support.billing import bearer, failure_of
from tests.support.suite import suite_environment

CALLS = {
    "Store": pb.StoreRequest(collection="c", document_json="{}"),
    "Retrieve": pb.RetrieveRequest(collection="c", key="k"),
    "Query": pb.QueryRequest(collection="c"),
    "Delete": pb.DeleteRequest(collection="c", key="k"),
    "ListCollections": pb.ListCollectionsRequest(),
}


async def test_every_method_says_that_it_is_not_served(tmp_path: Path) -> None:
    environment = suite_environment(tmp_path, {"FLOWSTACK_ADMIN_TOKEN": "admin", "FLOWSTACK_ADMIN_PORT_BASE": "0"})
    async with running("vault", environment) as (_, channel):
        stub = VaultServiceStub(channel)
        for name, request in CALLS.items():
            for credential in ("fs_key", "admin"):
                code, error = await failure_of(getattr(stub, name)(request, metadata=bearer(credential), timeout=30))
                assert (code.name, error.reason.value) == ("UNIMPLEMENTED", "METHOD_NOT_AVAILABLE"), (name, credential)
            code, error = await failure_of(getattr(stub, name)(request, timeout=30))
            assert (code.name, error.reason.value) == ("UNAUTHENTICATED", "API_KEY_MISSING")


def test_every_method_is_tried() -> None:
    assert set(CALLS) == {method.name for method in pb.DESCRIPTOR.services_by_name["VaultService"].methods}
