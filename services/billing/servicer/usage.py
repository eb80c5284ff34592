"""UsageService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceServicer

from services.billing.convert import usage as convert
from services.billing.convert.outlook import analysis_to_proto, estimates_to_proto, forecast_to_proto
from services.billing.convert.reconciliation import reconciliation_to_proto
from services.billing.convert.usage_history import (
    query_from_proto,
    session_filter_from_proto,
    sessions_to_proto,
    usage_rows_to_proto,
)
from services.billing.service.outlook import OutlookService, workload_of
from services.billing.service.paging import PageRequest
from services.billing.service.reconciliation import ReconciliationService
from services.billing.service.usage import UsageService
from services.billing.service.usage_history import UsageHistoryService
from services.billing.service.watching import UsageWatchService
from services.billing.servicer.caller import actor_of_call
from services.billing.servicer.streams import StreamLimit
from services.shared.auth import CallerKind, account_of_call, current_caller
from services.shared.clock import Clock
from services.shared.times import us_from_proto

Context = grpc.aio.ServicerContext

QUOTA_TIMEOUT_S_MAX: Final = 5.0
"""How long quota may take where the caller would wait longer."""


class UsageServicer(UsageServiceServicer):
    """Where an account stands, and whether the ledger agrees with quota."""

    def __init__(
        self,
        usage: UsageService,
        watching: UsageWatchService,
        history: UsageHistoryService,
        outlook: OutlookService,
        *,
        reconciliation: ReconciliationService,
        streams: StreamLimit,
        clock: Clock,
    ) -> None:
        self._usage = usage
        self._watching = watching
        self._history = history
        self._outlook = outlook
        self._reconciliation = reconciliation
        self._streams = streams
        self._clock = clock

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context[Any, Any]) -> pb.GetUsageResponse:
        """See the contract."""
        usage = await self._usage.get(account_of_call(request.account_id), _quota_timeout_s(context))
        return pb.GetUsageResponse(usage=convert.usage_to_proto(usage))

    async def WatchUsage(
        self, request: pb.WatchUsageRequest, context: Context[Any, Any]
    ) -> AsyncIterator[pb.WatchUsageResponse]:
        """See the contract."""
        account_id = account_of_call(request.account_id)
        with self._streams.one_more(account_id):
            async with aclosing(self._watching.watch(account_id)) as usages:
                async for usage in usages:
                    yield pb.WatchUsageResponse(usage=convert.usage_to_proto(usage))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context[Any, Any]
    ) -> pb.ListSessionsResponse:
        """See the contract."""
        wanted = session_filter_from_proto(request, account_of_call(request.account_id))
        period_us = us_from_proto(request.period_time) if request.HasField("period_time") else None
        page = PageRequest(request.page_size, request.page_token)
        return sessions_to_proto(await self._history.sessions(wanted, period_us, page))

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Context[Any, Any]) -> pb.QueryUsageResponse:
        """See the contract."""
        query = query_from_proto(request, account_of_call(request.account_id))
        page = PageRequest(request.page_size, request.page_token)
        is_admin = current_caller().kind is CallerKind.ADMIN
        return usage_rows_to_proto(await self._history.query(query, page, unrestricted=is_admin))

    async def GetForecast(self, request: pb.GetForecastRequest, context: Context[Any, Any]) -> pb.GetForecastResponse:
        """See the contract."""
        outlook = await self._outlook.forecast(account_of_call(request.account_id), _quota_timeout_s(context))
        return pb.GetForecastResponse(forecast=forecast_to_proto(outlook, self._clock.now_us()))

    async def AnalyzeCosts(
        self, request: pb.AnalyzeCostsRequest, context: Context[Any, Any]
    ) -> pb.AnalyzeCostsResponse:
        """See the contract."""
        analysis = await self._outlook.analyze(account_of_call(request.account_id), _quota_timeout_s(context))
        return pb.AnalyzeCostsResponse(cost_analysis=analysis_to_proto(analysis))

    async def EstimateCost(
        self, request: pb.EstimateCostRequest, context: Context[Any, Any]
    ) -> pb.EstimateCostResponse:
        """See the contract."""
        outputs = request.output_tokens_per_session if request.HasField("output_tokens_per_session") else None
        workload = workload_of(
            request.sessions_per_month, request.provider, request.model, request.tokens_per_session, outputs
        )
        return estimates_to_proto(self._outlook.estimate(workload, request.price_table))

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
