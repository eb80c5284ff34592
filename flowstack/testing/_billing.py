"""SubscriptionService of the fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._alerts import fire_alerts
from flowstack.testing._audit import action_of
from flowstack.testing._calls import Call, page_of
from flowstack.testing._changes import Changed, cancel, change_plan, put_contract, revert
from flowstack.testing._contracts import contract_of
from flowstack.testing._errors import FakeError
from flowstack.testing._invoices import draft_of_charge
from flowstack.testing._plans import OFFER, PLANS, plan_for_sale, plan_to_proto
from flowstack.testing._records import Account
from flowstack.testing._settling import addressed, apply
from flowstack.testing._subscriptions import Change, Subscription
from flowstack.testing._terms import terms_of
from flowstack.testing._time import optional_timestamp, timestamp
from flowstack.testing._world import World

ResponseT = TypeVar(
    "ResponseT",
    pb.ChangePlanResponse,
    pb.CancelSubscriptionResponse,
    pb.RevertPendingChangeResponse,
    pb.PutContractResponse,
)


class Subscriptions:
    """The methods of SubscriptionService."""

    def __init__(self, world: World) -> None:
        self._world = world

    def list_plans(self, call: Call, request: pb.ListPlansRequest) -> pb.ListPlansResponse:
        """The catalogue, cheapest first."""
        plans = [plan_to_proto(plan) for plan in PLANS.values()]
        page, token = page_of(plans, call, request, newest_first=False)
        return pb.ListPlansResponse(plans=page, offers=[] if request.page_token else [OFFER], next_page_token=token)

    def get_subscription(self, call: Call, request: pb.GetSubscriptionRequest) -> pb.GetSubscriptionResponse:
        """The subscription and the account's changes, newest first."""
        with self._world.lock:
            account = self._world.account(call.account_id)
            changes = [change.to_proto() for change in reversed(account.changes)]
            page, token = page_of(changes, call, request)
            return pb.GetSubscriptionResponse(
                subscription=subscription_to_proto(account, account.subscription, self._world.clock.now_us()),
                plan=plan_to_proto(PLANS[account.subscription.terms.plan_id]),
                changes=page,
                next_page_token=token,
            )

    def change_plan(self, call: Call, request: pb.ChangePlanRequest) -> pb.ChangePlanResponse:
        """Changes the plan, in the direction that the prices decide."""

        def decide(subscription: Subscription, now_us: int) -> Changed:
            plan = plan_for_sale(request.plan_id, request.plan_version)
            return change_plan(subscription, terms_of(plan), now_us)

        return self._change(call, request, decide, pb.ChangePlanResponse)

    def cancel_subscription(self, call: Call, request: pb.CancelSubscriptionRequest) -> pb.CancelSubscriptionResponse:
        """Ends the subscription with its period."""
        return self._change(call, request, cancel, pb.CancelSubscriptionResponse)

    def revert_pending_change(
        self, call: Call, request: pb.RevertPendingChangeRequest
    ) -> pb.RevertPendingChangeResponse:
        """Drops the pending downgrade or cancellation."""
        return self._change(call, request, revert, pb.RevertPendingChangeResponse)

    def put_contract(self, call: Call, request: pb.PutContractRequest) -> pb.PutContractResponse:
        """Sets the account's own terms, from a time on."""
        return self._change(
            call,
            request,
            lambda subscription, now_us: put_contract(subscription, contract_of(request.contract, now_us), now_us),
            pb.PutContractResponse,
        )

    def _change(
        self,
        call: Call,
        request: Any,
        decide: Callable[[Subscription, int], Changed],
        response: type[ResponseT],
    ) -> ResponseT:
        def work() -> ResponseT:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            if request.etag and request.etag != account.subscription.etag:
                raise FakeError(
                    "STALE_ETAG",
                    "The subscription has changed since it was read. Read it again, and decide again.",
                    metadata={"etag": account.subscription.etag},
                )
            if isinstance(request, pb.CancelSubscriptionRequest) and account.subscription.cancel_change_id:
                change = _change_of(account, account.subscription.cancel_change_id)
                return _answer(response, account, change, None, now_us)
            changed = decide(account.subscription, now_us)
            if request.validate_only:
                return _preview(response, account, changed, now_us)
            change, invoice = changed.change, None
            change.request_id = request.request_id
            if changed.is_new:
                invoice = apply(account, changed.outcome, action_of(call), now_us, change)
            else:
                change.change_id = ""
            fire_alerts(account, now_us)
            self._world.changed.notify_all()
            return _answer(response, account, change, invoice, now_us)

        if request.validate_only:
            with self._world.lock:
                return work()
        return self._world.once(call.account_id, request, work)


def _answer(
    response: type[ResponseT], account: Account, change: Change, invoice: invoice_pb2.Invoice | None, now_us: int
) -> ResponseT:
    subscription = subscription_to_proto(account, account.subscription, now_us)
    answer = response(subscription=subscription, entitlement_applied=True, change=change.to_proto())
    return _with_invoice(answer, invoice)


def _preview(response: type[ResponseT], account: Account, changed: Changed, now_us: int) -> ResponseT:
    """What would happen, without ids for what is not there yet, and with the etag by which it can be done."""
    before, after, change, invoice = account.subscription, changed.outcome.subscription, changed.change, None
    agreed = after.contract
    contract_id = "" if agreed is None or agreed == before.contract else agreed.terms.contract_id
    after = replace(after, version=before.version)
    if after.subscription_id != before.subscription_id:
        after = replace(after, subscription_id="")
    for charge in changed.outcome.charges:
        if charge.change_id == change.change_id and charge.amount_micro:
            charged = charge._replace(subscription_id=after.subscription_id, change_id="")
            invoice = addressed(draft_of_charge(charged), account)
    is_pending = change.state == pb.CHANGE_STATE_PENDING
    change.change_id, change.subscription_id = "", after.subscription_id
    change.state = pb.CHANGE_STATE_PREVIEW
    subscription = subscription_to_proto(account, after, now_us, change if is_pending else None)
    answer = response(subscription=subscription, change=change.to_proto())
    held = answer.subscription
    named: list[Any] = [held.terms, held.contract, held.pending_change.to_terms, answer.change.to_terms]
    for one in named + ([] if invoice is None else list(invoice.lines)):
        if contract_id and one.contract_id == contract_id:
            one.ClearField("contract_id")
    return _with_invoice(answer, invoice)


def _with_invoice(answer: ResponseT, invoice: invoice_pb2.Invoice | None) -> ResponseT:
    if invoice is not None and isinstance(answer, pb.ChangePlanResponse | pb.PutContractResponse):
        answer.invoice.CopyFrom(invoice)
    return answer


def _change_of(account: Account, change_id: str) -> Change:
    return next(change for change in account.changes if change.change_id == change_id)


def subscription_to_proto(
    account: Account, subscription: Subscription, now_us: int, pending: Change | None = None
) -> pb.Subscription:
    """An account's subscription on the wire; `pending` is that of a preview."""
    state = pb.SUBSCRIPTION_STATE_CANCELLING if subscription.end_us else pb.SUBSCRIPTION_STATE_ACTIVE
    period, pending_id = subscription.period(now_us), subscription.pending_change_id
    if pending is None and any(change.change_id == pending_id for change in account.changes):
        pending = _change_of(account, pending_id)
    contract = subscription.contract
    return pb.Subscription(
        subscription_id=subscription.subscription_id,
        account_id=subscription.account_id,
        state=pb.SUBSCRIPTION_STATE_ENDED if subscription.has_ended(now_us) else state,
        plan_id=subscription.terms.plan_id,
        plan_version=1,
        terms=subscription.terms.to_proto(),
        anchor_time=timestamp(subscription.anchor_us),
        period_start_time=timestamp(period.start_us),
        period_end_time=timestamp(period.end_us),
        start_time=timestamp(subscription.anchor_us),
        end_time=optional_timestamp(subscription.end_us),
        pending_change=None if pending is None else pending.to_proto(),
        contract=None if contract is None else contract.to_proto(),
        payment_overdue=account.is_overdue(now_us),
        payment_grace_end_time=optional_timestamp(account.grace_end_us()),
        entitlement_revision=subscription.version,
        entitlement_applied=True,
        etag=subscription.etag,
    )
