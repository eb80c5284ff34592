"""SubscriptionService of the fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._alerts import fire_alerts
from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError
from flowstack.testing._plans import OFFER, PLANS, plan_for_sale, plan_to_proto
from flowstack.testing._subscriptions import Change, Subscription
from flowstack.testing._world import World

ResponseT = TypeVar("ResponseT", pb.ChangePlanResponse, pb.CancelSubscriptionResponse, pb.RevertPendingChangeResponse)


class Subscriptions:
    """The methods of SubscriptionService; no contracts, and no invoices in the answers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def list_plans(self, _: Call, request: pb.ListPlansRequest) -> pb.ListPlansResponse:
        """The catalogue, cheapest first."""
        plans = [plan_to_proto(plan) for plan in PLANS.values()]
        page, token = page_of(plans, request.page_size, request.page_token)
        return pb.ListPlansResponse(plans=page, offers=[] if request.page_token else [OFFER], next_page_token=token)

    def get_subscription(self, call: Call, request: pb.GetSubscriptionRequest) -> pb.GetSubscriptionResponse:
        """The subscription and its changes, newest first."""
        with self._world.lock:
            subscription = self._world.account(call.account_id).subscription
            changes = [change.to_proto() for change in subscription.changes]
            page, token = page_of(changes, request.page_size, request.page_token)
            return pb.GetSubscriptionResponse(
                subscription=subscription.to_proto(self._world.clock.now_us()),
                plan=plan_to_proto(subscription.plan),
                changes=page,
                next_page_token=token,
            )

    def change_plan(self, call: Call, request: pb.ChangePlanRequest) -> pb.ChangePlanResponse:
        """Changes the plan, in the direction that the prices decide."""

        def decide(subscription: Subscription, now_us: int) -> Change:
            plan = plan_for_sale(request.plan_id)
            if request.plan_version > 1:
                raise FakeError(
                    "PLAN_NOT_FOUND", "The catalogue has no such plan on sale. ListPlans shows those that there are."
                )
            return subscription.change_plan(plan, now_us, request.request_id)

        return self._change(call, request, decide, pb.ChangePlanResponse)

    def cancel_subscription(self, call: Call, request: pb.CancelSubscriptionRequest) -> pb.CancelSubscriptionResponse:
        """Ends the subscription with its period."""
        return self._change(
            call,
            request,
            lambda subscription, now_us: subscription.cancel(now_us, request.request_id),
            pb.CancelSubscriptionResponse,
        )

    def revert_pending_change(
        self, call: Call, request: pb.RevertPendingChangeRequest
    ) -> pb.RevertPendingChangeResponse:
        """Drops the pending downgrade or cancellation."""
        return self._change(
            call,
            request,
            lambda subscription, now_us: subscription.revert(now_us, request.request_id),
            pb.RevertPendingChangeResponse,
        )

    def _change(
        self,
        call: Call,
        request: Any,
        decide: Callable[[Subscription, int], Change],
        response: type[ResponseT],
    ) -> ResponseT:
        def work() -> ResponseT:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            subscription = account.subscription
            if request.etag and request.etag != subscription.etag:
                raise FakeError(
                    "STALE_ETAG",
                    "The subscription has changed since it was read. Read it again, and decide again.",
                    metadata={"etag": subscription.etag},
                )
            if request.validate_only:
                return self._preview(subscription.copy(), decide, response, now_us)
            change = decide(subscription, now_us)
            fire_alerts(account, now_us)
            self._world.changed.notify_all()
            return response(
                subscription=subscription.to_proto(now_us), entitlement_applied=True, change=change.to_proto()
            )

        if request.validate_only:
            with self._world.lock:
                return work()
        return self._world.once(call.account_id, request, work)

    def _preview(
        self,
        subscription: Subscription,
        decide: Callable[[Subscription, int], Change],
        response: type[ResponseT],
        now_us: int,
    ) -> ResponseT:
        change = decide(subscription, now_us).to_proto()
        change.change_id, change.state = "", pb.CHANGE_STATE_PREVIEW
        after = subscription.to_proto(now_us)
        if after.HasField("pending_change"):
            after.pending_change.CopyFrom(change)
        if change.kind == pb.CHANGE_KIND_START:
            after.subscription_id = change.subscription_id = ""
        return response(subscription=after, change=change)
