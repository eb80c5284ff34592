"""Which accounts are deleted, asked of billing."""

from __future__ import annotations

from typing import Final

import grpc
from flowstack_protos.billing.v1 import account_service_pb2 as pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub

from services.shared.channel import ServiceChannel
from services.shared.errors import FlowStackError, Reason
from services.shared.status import error_from_rpc
from services.shared.times import us_from_proto

CALL_SECONDS: Final = 5.0


class AccountsAtBilling:
    """Billing's public address, with the operator's token: there is no internal method that tells of deletions."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._stub = AccountServiceStub(channel.channel)
        self._metadata = channel.metadata

    async def purge_us(self, account_id: str) -> int | None:
        """When a deleted account's documents are to be purged; None where it is not deleted, or not known.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE where no answer comes; what else billing answers.
        """
        request = pb.GetAccountRequest(account_id=account_id)
        try:
            response = await self._stub.GetAccount(request, metadata=self._metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            answer = error_from_rpc(error)
            if answer is None:
                raise FlowStackError(Reason.BILLING_UNAVAILABLE, "Billing does not answer.") from None
            if answer.reason is Reason.ACCOUNT_NOT_FOUND:
                return None
            raise answer from None
        account = response.account
        if account.state != pb.ACCOUNT_STATE_DELETED or not account.HasField("purge_time"):
            return None
        return us_from_proto(account.purge_time)
