"""UsageService."""

from __future__ import annotations

from typing import Any, Final

import grpc
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceServicer

from services.billing.convert import usage as convert
from services.billing.convert.reconciliation import reconciliation_to_proto
from services.billing.service.paging import PageRequest
from services.billing.service.reconciliation import ReconciliationService
from services.billing.service.usage import UsageService
from services.billing.servicer.caller import account_of_call, actor_of_call

Context = grpc.aio.ServicerContext

QUOTA_TIMEOUT_S_MAX: Final = 5.0
"""How long quota may take where the caller would wait longer."""


class UsageServicer(UsageServiceServicer):
    """Where an account stands, and whether the ledger agrees with quota."""

    def __init__(self, usage: UsageService, reconciliation: ReconciliationService) -> None:
        self._usage = usage
        self._reconciliation = reconciliation

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context[Any, Any]) -> pb.GetUsageResponse:
        """See the contract."""
        usage = await self._usage.get(account_of_call(request.account_id), _quota_timeout_s(context))
        return pb.GetUsageResponse(usage=convert.usage_to_proto(usage))

    async def ReconcileUsage(
        self, request: pb.ReconcileUsageRequest, context: Context[Any, Any]
    ) -> pb.ReconcileUsageResponse:
        """See the contract."""
        page = PageRequest(request.page_size, request.page_token)
        found = await self._reconciliation.reconcile(
            request.account_id, page, _quota_timeout_s(context), actor_of_call(context)
        )
        return reconciliation_to_proto(found)


def _quota_timeout_s(context: Context[Any, Any]) -> float:
    remaining_s = context.time_remaining()
    return QUOTA_TIMEOUT_S_MAX if remaining_s is None else min(remaining_s, QUOTA_TIMEOUT_S_MAX)
