"""The reference server: bare grpc.aio, the messages of ReserveSession, nothing done."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvloop
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1 import quota_service_pb2_grpc
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.timestamp_pb2 import Timestamp

NOW = Timestamp(seconds=1_790_000_000, nanos=1_000)
RESPONSE = pb.ReserveSessionResponse(
    session=type_pb2.Session(
        session_id="ses_0199c0a4f0007abc8def0123456789ab",
        account_id="acct_1",
        state=type_pb2.SESSION_STATE_RESERVED,
        candidates=[type_pb2.Candidate(provider="echo", model="echo-1", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)],
        period_start_time=NOW,
        reserve_time=NOW,
        expire_time=NOW,
        entitlement_revision=1,
    ),
    quota=type_pb2.Quota(
        account_id="acct_1",
        plan_id="bench",
        period_start_time=NOW,
        period_end_time=NOW,
        session_limit=1_000_000_000,
        sessions_reserved=1,
        sessions_remaining=999_999_999,
        max_concurrent_sessions=1_000_000_000,
        sessions_available=True,
        entitlement_revision=1,
    ),
)


class Echo(quota_service_pb2_grpc.QuotaServiceServicer):
    """Answers the same response to every reserve."""

    async def ReserveSession(self, request: pb.ReserveSessionRequest, context: Any) -> pb.ReserveSessionResponse:
        """Answers."""
        return RESPONSE


async def main() -> None:
    """Serves until killed."""
    server = grpc.aio.server()
    quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]  # one method is called
    server.add_insecure_port(sys.argv[1])
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
