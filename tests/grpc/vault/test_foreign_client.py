"""A blocking client of another team, on pytest-grpc's fixtures, against the real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from flowstack_protos.vault.v1 import vault_service_pb2 as pb

from tests.grpc.quota.wire import failure_of
from tests.support.billing import bearer
from tests.support.vault import ALICE, key_of

METADATA = bearer(key_of(ALICE))


def test_a_document(grpc_stub: Any) -> None:
    request = pb.StoreRequest(collection="c", key="k", document_json='{"n":12345678901234567890}')
    stored, call = grpc_stub.Store.with_call(request, metadata=METADATA, timeout=30)
    assert (call.code(), stored.version) == (grpc.StatusCode.OK, 1)
    found = grpc_stub.Retrieve(pb.RetrieveRequest(collection="c", key="k"), metadata=METADATA, timeout=30)
    assert found.document.document_json == request.document_json


def test_errors(grpc_stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.Retrieve(pb.RetrieveRequest(collection="c", key="none"), metadata=METADATA, timeout=30)
    assert failure_of(caught.value).reason == "DOCUMENT_NOT_FOUND"
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.Query(pb.QueryRequest(collection="c"), timeout=30)
    assert failure_of(caught.value).reason == "API_KEY_MISSING"


def test_threads_that_compare_and_set_count_right(grpc_stub: Any) -> None:
    grpc_stub.Store(pb.StoreRequest(collection="n", key="n", document_json='{"n":0}'), metadata=METADATA, timeout=30)

    def add(_: int) -> int:
        tries = 0
        while True:
            tries += 1
            found = grpc_stub.Retrieve(pb.RetrieveRequest(collection="n", key="n"), metadata=METADATA, timeout=30)
            number = int(found.document.document_json.removeprefix('{"n":').removesuffix("}"))
            request = pb.StoreRequest(
                collection="n", key="n", document_json=f'{{"n":{number + 1}}}', if_version=found.document.version
            )
            try:
                grpc_stub.Store(request, metadata=METADATA, timeout=30)
            except grpc.RpcError as error:
                assert failure_of(error).reason == "VERSION_MISMATCH"
            else:
                return tries

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(add, range(40))) >= 40
    found = grpc_stub.Retrieve(pb.RetrieveRequest(collection="n", key="n"), metadata=METADATA, timeout=30)
    assert (found.document.document_json, found.document.version) == ('{"n":40}', 41)
