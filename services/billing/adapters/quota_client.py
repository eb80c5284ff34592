"""The quota service over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final, NoReturn

import grpc
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.quota.v1.quota_service_pb2_grpc import QuotaServiceStub

from services.billing.convert.quota import batch_from_proto, entitlement_to_proto, quota_from_proto
from services.billing.domain.entitlements import Entitlement
from services.billing.domain.ledger import EventBatch
from services.billing.domain.usage import QuotaReading
from services.shared.channel import ServiceChannel
from services.shared.errors import FlowStackError, Reason
from services.shared.status import error_from_rpc

ACKNOWLEDGE_TIMEOUT_S: Final = 10.0


class QuotaClient:
    """Calls quota. What is not an error of its own is QUOTA_UNAVAILABLE."""

    def __init__(self, connection: ServiceChannel) -> None:
        self._stub = QuotaServiceStub(connection.channel)
        self._metadata = connection.metadata

    async def put_entitlement(self, entitlement: Entitlement, timeout_s: float) -> None:
        """Sets an account's entitlement; waits for a quota that is starting, up to `timeout_s`."""
        request = pb.PutEntitlementRequest(entitlement=entitlement_to_proto(entitlement))
        try:
            await self._stub.PutEntitlement(request, timeout=timeout_s, metadata=self._metadata, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            _raise(error)

    async def get_quota(self, account_id: str, timeout_s: float) -> QuotaReading:
        """Reads an account's counts and refusal at once."""
        request = pb.GetQuotaRequest(account_id=account_id)
        try:
            response = await self._stub.GetQuota(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            _raise(error)
        return quota_from_proto(response.quota)

    async def watch_quota(self, account_id: str) -> AsyncGenerator[QuotaReading, None]:
        """An account's counts and refusal at once and after each change."""
        call = self._stub.WatchQuota(pb.WatchQuotaRequest(account_id=account_id), metadata=self._metadata)
        try:
            async for response in call:
                yield quota_from_proto(response.quota)
        except grpc.aio.AioRpcError as error:
            _raise(error)
        finally:
            # A stream that is only dropped goes on at quota.
            call.cancel()

    async def read_session_events(self, after: Mapping[int, str], *, follow: bool = True) -> AsyncIterator[EventBatch]:
        """Reads the session events of partitions, each from after its cursor."""
        request = pb.ReadSessionEventsRequest(positions=_positions(after), follow=follow)
        call = self._stub.ReadSessionEvents(request, metadata=self._metadata)
        try:
            async for response in call:
                yield batch_from_proto(response)
        except grpc.aio.AioRpcError as error:
            _raise(error)
        finally:
            # A stream that is only dropped goes on at quota.
            call.cancel()

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        """Says that everything up to these cursors is stored for good."""
        request = pb.AcknowledgeSessionEventsRequest(positions=_positions(cursors))
        try:
            await self._stub.AcknowledgeSessionEvents(request, timeout=ACKNOWLEDGE_TIMEOUT_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            _raise(error)


def _positions(cursors: Mapping[int, str]) -> list[pb.PartitionPosition]:
    return [pb.PartitionPosition(partition=part, after_cursor=cursor) for part, cursor in sorted(cursors.items())]


def _raise(error: grpc.aio.AioRpcError) -> NoReturn:
    ours: FlowStackError | None = error_from_rpc(error)
    if ours is not None:
        raise ours from error
    raise FlowStackError(
        Reason.QUOTA_UNAVAILABLE, "The quota service does not answer. Nothing was decided; try again shortly."
    ) from error
