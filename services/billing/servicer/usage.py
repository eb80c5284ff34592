"""UsageService."""

from __future__ import annotations

from typing import Any, Final

import grpc
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceServicer

from services.billing.convert import usage as convert
from services.billing.service.usage import UsageService
from services.billing.servicer.caller import account_of_call

Context = grpc.aio.ServicerContext

QUOTA_TIMEOUT_S_MAX: Final = 5.0
"""How long quota may take where the caller would wait longer."""


class UsageServicer(UsageServiceServicer):
    """Where an account stands."""

    def __init__(self, usage: UsageService) -> None:
        self._usage = usage

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context[Any, Any]) -> pb.GetUsageResponse:
        """See the contract."""
        remaining_s = context.time_remaining()
        timeout_s = QUOTA_TIMEOUT_S_MAX if remaining_s is None else min(remaining_s, QUOTA_TIMEOUT_S_MAX)
        usage = await self._usage.get(account_of_call(request.account_id), timeout_s)
        return pb.GetUsageResponse(usage=convert.usage_to_proto(usage))
