"""The catalogue and subscriptions."""

from __future__ import annotations

from typing import TypeVar

from flowstack_protos.billing.v1 import plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from services.billing.convert.invoices import invoice_to_proto
from services.billing.convert.money import micro_from_money, money_to_proto
from services.billing.domain.catalogue import Offer, Plan
from services.billing.domain.contracts import ContractWish
from services.billing.domain.entitlements import EntitlementStatus
from services.billing.domain.model import Contract, SubscriptionChange, SupportLevel, Terms
from services.billing.service.subscriptions import ChangeAnswer, PlansPage, Standing, SubscriptionView
from services.shared.periods import period_at
from services.shared.times import optional_time_to_proto, time_to_proto, us_from_proto


def plan_to_proto(plan: Plan) -> plan_pb2.Plan:
    """Domain to Plan."""
    byok = plan_pb2.BYOK_REQUIREMENT_REQUIRED if plan.byok_required else plan_pb2.BYOK_REQUIREMENT_OPTIONAL
    return plan_pb2.Plan(
        plan_id=plan.plan_id,
        version=plan.version,
        display_name=plan.display_name,
        description=plan.description,
        price=None if plan.price_micro is None else money_to_proto(plan.price_micro),
        session_limit=plan.session_limit,
        managed_providers=plan.managed_providers,
        byok_requirement=byok,
        max_concurrent_sessions=plan.max_concurrent_sessions,
        max_output_tokens=plan.max_output_tokens,
        max_tool_rounds=plan.max_tool_rounds,
        support_level=plan.support_level.value,  # type: ignore[arg-type]  # the numbers are the contract's
        features=plan.features,
        contact_sales=plan.contact_sales,
        effective_time=time_to_proto(plan.effective_us),
        retire_time=optional_time_to_proto(plan.retire_us),
    )


def offer_to_proto(offer: Offer) -> plan_pb2.Offer:
    """Domain to Offer."""
    return plan_pb2.Offer(
        offer_id=offer.offer_id,
        display_name=offer.display_name,
        description=offer.description,
        plan_id=offer.plan_id,
        plan_version=offer.plan_version,
        price=money_to_proto(offer.price_micro),
        session_limit=offer.session_limit,
        managed_providers=offer.managed_providers,
        max_concurrent_sessions=offer.max_concurrent_sessions,
        max_output_tokens=offer.max_output_tokens,
        max_tool_rounds=offer.max_tool_rounds,
        support_level=offer.support_level.value,  # type: ignore[arg-type]  # as above
        features=offer.features,
    )


def plans_to_proto(page: PlansPage) -> pb.ListPlansResponse:
    """Domain to ListPlansResponse."""
    return pb.ListPlansResponse(
        plans=[plan_to_proto(plan) for plan in page.plans.items],
        offers=[offer_to_proto(offer) for offer in page.offers],
        next_page_token=page.plans.next_token,
    )


def terms_to_proto(terms: Terms) -> pb.SubscriptionTerms:
    """Domain to SubscriptionTerms."""
    return pb.SubscriptionTerms(
        plan_id=terms.plan_id,
        plan_version=terms.plan_version,
        contract_id=terms.contract_id,
        price=money_to_proto(terms.price_micro),
        session_limit=terms.session_limit,
        managed_providers=terms.managed_providers,
        max_concurrent_sessions=terms.max_concurrent_sessions,
        max_output_tokens=terms.max_output_tokens,
        max_tool_rounds=terms.max_tool_rounds,
        support_level=terms.support_level.value,  # type: ignore[arg-type]  # as above
        features=terms.features,
    )


def change_to_proto(change: SubscriptionChange) -> pb.SubscriptionChange:
    """Domain to SubscriptionChange."""
    return pb.SubscriptionChange(
        change_id=change.change_id,
        subscription_id=change.subscription_id,
        kind=change.kind.value,  # type: ignore[arg-type]  # as above
        state=change.state.value,  # type: ignore[arg-type]  # as above
        from_terms=None if change.from_terms is None else terms_to_proto(change.from_terms),
        to_terms=None if change.to_terms is None else terms_to_proto(change.to_terms),
        request_time=time_to_proto(change.request_us),
        effective_time=time_to_proto(change.effective_us),
        drop_time=optional_time_to_proto(change.drop_us),
        amount=money_to_proto(change.amount_micro),
        invoice_id=change.invoice_id,
        request_id=change.request_id,
    )


def subscription_to_proto(standing: Standing, status: EntitlementStatus) -> pb.Subscription:
    """Domain to Subscription, as it stands; in the last period where it has ended."""
    subscription, now_us = standing.subscription, standing.as_of_us
    moment_us = min(now_us, subscription.end_us - 1) if subscription.end_us else now_us
    period = period_at(subscription.anchor_us, moment_us)
    contract = subscription.contract
    pending = standing.pending_change
    return pb.Subscription(
        subscription_id=subscription.subscription_id,
        account_id=subscription.account_id,
        state=subscription.state_at(now_us).value,  # type: ignore[arg-type]  # as above
        plan_id=subscription.terms.plan_id,
        plan_version=subscription.terms.plan_version,
        terms=terms_to_proto(subscription.terms),
        anchor_time=time_to_proto(subscription.anchor_us),
        period_start_time=time_to_proto(period.start_us),
        period_end_time=time_to_proto(period.end_us),
        start_time=time_to_proto(subscription.anchor_us),
        end_time=optional_time_to_proto(subscription.end_us),
        pending_change=None if pending is None else change_to_proto(pending),
        contract=None if contract is None else contract_to_proto(contract),
        payment_overdue=standing.payment.overdue,
        payment_grace_end_time=optional_time_to_proto(standing.payment.grace_end_us),
        entitlement_revision=status.revision,
        entitlement_applied=status.applied,
        etag=subscription.etag,
    )


def contract_to_proto(contract: Contract) -> pb.Contract:
    """Domain to Contract, with what the offer and the plan filled in."""
    terms = contract.terms
    return pb.Contract(
        contract_id=contract.contract_id,
        plan_id=terms.plan_id,
        plan_version=terms.plan_version,
        offer_id=contract.offer_id,
        effective_time=time_to_proto(contract.effective_us),
        end_time=optional_time_to_proto(contract.end_us),
        price=money_to_proto(terms.price_micro),
        session_limit=terms.session_limit,
        managed_providers=terms.managed_providers,
        max_concurrent_sessions=terms.max_concurrent_sessions,
        max_output_tokens=terms.max_output_tokens,
        max_tool_rounds=terms.max_tool_rounds,
        support_level=terms.support_level.value,  # type: ignore[arg-type]  # as above
        features=terms.features,
        reference=contract.reference,
    )


def contract_from_proto(contract: pb.Contract) -> ContractWish:
    """Contract to domain; its contract_id is ignored."""
    return ContractWish(
        contract.plan_id,
        contract.plan_version,
        contract.offer_id,
        us_from_proto(contract.effective_time),
        us_from_proto(contract.end_time),
        micro_from_money(contract.price) if contract.HasField("price") else None,
        contract.session_limit if contract.HasField("session_limit") else None,
        tuple(contract.managed_providers),
        contract.max_concurrent_sessions if contract.HasField("max_concurrent_sessions") else None,
        contract.max_output_tokens if contract.HasField("max_output_tokens") else None,
        contract.max_tool_rounds if contract.HasField("max_tool_rounds") else None,
        SupportLevel(contract.support_level) if contract.support_level else None,
        tuple(contract.features),
        contract.reference,
    )


def subscription_view_to_proto(view: SubscriptionView) -> pb.GetSubscriptionResponse:
    """Domain to GetSubscriptionResponse."""
    return pb.GetSubscriptionResponse(
        subscription=subscription_to_proto(view.standing, view.entitlement),
        plan=plan_to_proto(view.plan),
        changes=[change_to_proto(change) for change in view.changes.items],
        next_page_token=view.changes.next_token,
    )


AnswerT = TypeVar("AnswerT", pb.ChangePlanResponse, pb.PutContractResponse)


def priced_change_to_proto(answer: ChangeAnswer, response: type[AnswerT]) -> AnswerT:
    """Domain to the response of a change that may cost something."""
    record = answer.record
    return response(
        subscription=subscription_to_proto(record.standing, answer.entitlement),
        entitlement_applied=answer.entitlement.applied,
        change=change_to_proto(record.change),
        invoice=None if record.invoice is None else invoice_to_proto(record.invoice),
    )


def cancellation_to_proto(answer: ChangeAnswer) -> pb.CancelSubscriptionResponse:
    """Domain to CancelSubscriptionResponse."""
    return pb.CancelSubscriptionResponse(
        subscription=subscription_to_proto(answer.record.standing, answer.entitlement),
        entitlement_applied=answer.entitlement.applied,
        change=change_to_proto(answer.record.change),
    )


def reversal_to_proto(answer: ChangeAnswer) -> pb.RevertPendingChangeResponse:
    """Domain to RevertPendingChangeResponse."""
    return pb.RevertPendingChangeResponse(
        subscription=subscription_to_proto(answer.record.standing, answer.entitlement),
        entitlement_applied=answer.entitlement.applied,
        change=change_to_proto(answer.record.change),
    )
