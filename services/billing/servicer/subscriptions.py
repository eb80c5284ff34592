"""SubscriptionService."""

from __future__ import annotations

from typing import Any

import grpc
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from flowstack_protos.billing.v1.subscription_service_pb2_grpc import SubscriptionServiceServicer

from services.billing.convert import subscriptions as convert
from services.billing.service.paging import PageRequest
from services.billing.service.subscriptions import SubscriptionService, Wish
from services.billing.servicer.caller import actor_of_call
from services.shared.auth import account_of_call

Context = grpc.aio.ServicerContext


class SubscriptionServicer(SubscriptionServiceServicer):
    """The catalogue and the account's subscription."""

    def __init__(self, subscriptions: SubscriptionService) -> None:
        self._subscriptions = subscriptions

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
        return convert.subscription_view_to_proto(view)

    async def ChangePlan(self, request: pb.ChangePlanRequest, context: Context[Any, Any]) -> pb.ChangePlanResponse:
        """See the contract."""
        wish = _wish(request, context)
        answer = await self._subscriptions.change_plan(wish, request.plan_id, request.plan_version)
        return convert.priced_change_to_proto(answer, pb.ChangePlanResponse)

    async def CancelSubscription(
        self, request: pb.CancelSubscriptionRequest, context: Context[Any, Any]
    ) -> pb.CancelSubscriptionResponse:
        """See the contract."""
        wish = _wish(request, context, request.reason)
        return convert.cancellation_to_proto(await self._subscriptions.cancel(wish))

    async def RevertPendingChange(
        self, request: pb.RevertPendingChangeRequest, context: Context[Any, Any]
    ) -> pb.RevertPendingChangeResponse:
        """See the contract."""
        return convert.reversal_to_proto(await self._subscriptions.revert(_wish(request, context)))

    async def PutContract(self, request: pb.PutContractRequest, context: Context[Any, Any]) -> pb.PutContractResponse:
        """See the contract."""
        contract = convert.contract_from_proto(request.contract)
        answer = await self._subscriptions.put_contract(_wish(request, context), contract)
        return convert.priced_change_to_proto(answer, pb.PutContractResponse)


_ChangeRequest = (
    pb.ChangePlanRequest | pb.CancelSubscriptionRequest | pb.RevertPendingChangeRequest | pb.PutContractRequest
)


def _wish(request: _ChangeRequest, context: Context[Any, Any], reason: str = "") -> Wish:
    return Wish(
        account_of_call(request.account_id),
        actor_of_call(context),
        request.etag,
        request.request_id,
        request.validate_only,
        reason,
    )
