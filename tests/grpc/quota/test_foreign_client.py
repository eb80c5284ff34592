"""A blocking client of another team, on pytest-grpc's fixtures, against the real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2

from tests.grpc.quota.wire import commit_request, entitlement_request, failure_of, reserve_request
from tests.support.quota import CREDENTIALS, QuotaServer, new_session_id

ACCOUNT = "acct_foreign"


@pytest.fixture
def stub(grpc_stub: Any) -> Any:
    grpc_stub.PutEntitlement(entitlement_request(ACCOUNT), metadata=CREDENTIALS, timeout=30)
    return grpc_stub


def test_a_session(stub: Any, grpc_server: QuotaServer) -> None:
    session_id = new_session_id(grpc_server.clock)
    answer = stub.ReserveSession(reserve_request(session_id, ACCOUNT), metadata=CREDENTIALS, timeout=30)
    assert answer.session.state == type_pb2.SESSION_STATE_RESERVED
    over, call = stub.CommitSession.with_call(commit_request(session_id, ACCOUNT), metadata=CREDENTIALS, timeout=30)
    assert call.code() is grpc.StatusCode.OK
    assert over.session.state == type_pb2.SESSION_STATE_COMMITTED


def test_an_error(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetQuota(pb.GetQuotaRequest(account_id="acct_nobody"), metadata=CREDENTIALS, timeout=30)
    assert failure_of(caught.value).reason == "ENTITLEMENT_MISSING"


def test_a_call_without_a_token(grpc_channel: grpc.Channel, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetQuota(pb.GetQuotaRequest(account_id=ACCOUNT), timeout=30)
    assert failure_of(caught.value).reason == "API_KEY_MISSING"


def test_streams(stub: Any, grpc_server: QuotaServer) -> None:
    ids = [new_session_id(grpc_server.clock) for _ in range(3)]
    batch = pb.ExecuteCommandsRequest(
        commands=[pb.SessionCommand(sequence=n, reserve=reserve_request(i, ACCOUNT)) for n, i in enumerate(ids)]
    )
    responses = list(stub.ExecuteCommands(iter([batch]), metadata=CREDENTIALS, timeout=30))
    assert sum(len(response.results) for response in responses) == 3
    watched = stub.WatchQuota(pb.WatchQuotaRequest(account_id=ACCOUNT), metadata=CREDENTIALS, timeout=30)
    assert next(watched).quota.sessions_reserved >= 3
    watched.cancel()


def test_threads_of_one_client_get_what_is_left(stub: Any, grpc_server: QuotaServer) -> None:
    account_id = "acct_threads"
    stub.PutEntitlement(entitlement_request(account_id, limit=13), metadata=CREDENTIALS, timeout=30)

    def take(_: int) -> bool:
        request = reserve_request(new_session_id(grpc_server.clock), account_id)
        try:
            stub.ReserveSession(request, metadata=CREDENTIALS, timeout=30)
        except grpc.RpcError as error:
            assert failure_of(error).reason == "SESSION_QUOTA_EXCEEDED"
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        granted = sum(threads.map(take, range(100)))
    assert granted == 13
