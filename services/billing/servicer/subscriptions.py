"""SubscriptionService."""

from __future__ import annotations

from typing import Any

import grpc
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from flowstack_protos.billing.v1.subscription_service_pb2_grpc import SubscriptionServiceServicer

from services.billing.convert import subscriptions as convert
from services.billing.service.paging import PageRequest
from services.billing.service.subscriptions import SubscriptionService
from services.billing.servicer.caller import account_of_call
from services.shared.clock import Clock

Context = grpc.aio.ServicerContext


class SubscriptionServicer(SubscriptionServiceServicer):
    """The catalogue and the account's subscription."""

    def __init__(self, subscriptions: SubscriptionService, clock: Clock) -> None:
        self._subscriptions = subscriptions
        self._clock = clock

    async def ListPlans(self, request: pb.ListPlansRequest, context: Context[Any, Any]) -> pb.ListPlansResponse:
        """See the contract."""
        page = await self._subscriptions.list_plans(
            PageRequest(request.page_size, request.page_token), include_retired=request.include_retired
        )
        return convert.plans_to_proto(page)

    async def GetSubscription(
        self, request: pb.GetSubscriptionRequest, context: Context[Any, Any]
    ) -> pb.GetSubscriptionResponse:
        """See the contract."""
        view = await self._subscriptions.get(
            account_of_call(request.account_id), PageRequest(request.page_size, request.page_token)
        )
        return convert.subscription_view_to_proto(view, self._clock.now_us())
