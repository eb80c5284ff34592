"""Plans: an upgrade holds at once, a downgrade and a cancellation wait for the period's end."""

from __future__ import annotations

import grpc
import pytest
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from tests.contract.target import Customer, refusal


def change(customer: Customer, plan_id: str, **fields: object) -> pb.ChangePlanResponse:
    """Asks for a plan."""
    return customer.call(customer.target.subscriptions.ChangePlan, pb.ChangePlanRequest(plan_id=plan_id, **fields))


def cancel(customer: Customer, **fields: object) -> pb.CancelSubscriptionResponse:
    """Cancels."""
    request = pb.CancelSubscriptionRequest(**fields)
    return customer.call(customer.target.subscriptions.CancelSubscription, request)


def revert(customer: Customer) -> pb.RevertPendingChangeResponse:
    """Reverts what is pending."""
    return customer.call(customer.target.subscriptions.RevertPendingChange, pb.RevertPendingChangeRequest())


def standing(customer: Customer) -> pb.GetSubscriptionResponse:
    """The subscription and its changes."""
    return customer.call(customer.target.subscriptions.GetSubscription, pb.GetSubscriptionRequest())


PLANS = [
    ("free", 0, 25, [], 25, 4_096, []),
    ("hobbyist", 15, 200, ["bedrock"], 50, 8_192, []),
    ("starter", 50, 1_000, ["bedrock"], 100, 16_384, []),
    ("professional", 200, 5_000, ["bedrock"], 500, 32_768, ["optimized_ai_pricing", "advanced_analytics"]),
]


def test_the_catalogue(free: Customer) -> None:
    answered = free.call(free.target.subscriptions.ListPlans, pb.ListPlansRequest())

    sold = [
        (
            plan.plan_id,
            plan.price.units,
            plan.session_limit,
            list(plan.managed_providers),
            plan.max_concurrent_sessions,
            plan.max_output_tokens,
            list(plan.features),
        )
        for plan in answered.plans
        if not plan.contact_sales
    ]
    assert sold == PLANS
    assert [plan.plan_id for plan in answered.plans if plan.contact_sales] == ["enterprise"]
    assert [(offer.offer_id, offer.price.units) for offer in answered.offers] == [("volume-10k", 99)]
    assert {(plan.version, plan.max_tool_rounds) for plan in answered.plans} == {(1, 25)}


def test_an_upgrade_lets_the_next_call_through(free: Customer) -> None:
    for _ in range(25):
        list(free.complete())
    _, info = refusal(free.complete)
    answered = change(free, str(info.metadata["upgrade_plan"]))
    list(free.complete())

    assert answered.entitlement_applied
    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_START, pb.CHANGE_STATE_APPLIED)
    assert (answered.change.amount.units, answered.subscription.plan_id) == (15, "hobbyist")
    usage = free.usage()
    assert (usage.plan_id, usage.sessions_limit, usage.sessions_used) == ("hobbyist", 200, 1)
    assert (usage.current_charges.units, usage.can_use_managed) == (15, True)


def test_an_upgrade_of_a_paid_plan_keeps_period_and_use(hobbyist: Customer) -> None:
    list(hobbyist.complete())
    before = standing(hobbyist).subscription
    answered = change(hobbyist, "starter")

    assert (answered.change.kind, answered.change.amount.units) == (pb.CHANGE_KIND_UPGRADE, 35)
    after = answered.subscription
    assert (after.subscription_id, after.anchor_time) == (before.subscription_id, before.anchor_time)
    assert (after.period_end_time, after.terms.session_limit) == (before.period_end_time, 1_000)
    usage = hobbyist.usage()
    assert (usage.sessions_used, usage.sessions_limit, usage.current_charges.units) == (1, 1_000, 50)


def test_a_downgrade_waits_and_can_be_reverted(hobbyist: Customer) -> None:
    answered = change(hobbyist, "free")
    pending = standing(hobbyist).subscription.pending_change
    usage = hobbyist.usage()
    reverted = revert(hobbyist)

    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_DOWNGRADE, pb.CHANGE_STATE_PENDING)
    assert answered.change.effective_time == answered.subscription.period_end_time
    assert (pending.change_id, pending.to_terms.plan_id) == (answered.change.change_id, "free")
    assert (usage.plan_id, usage.sessions_limit) == ("hobbyist", 200)
    assert reverted.change.kind == pb.CHANGE_KIND_REVERT
    assert not reverted.subscription.HasField("pending_change")
    kinds = [(one.kind, one.state) for one in standing(hobbyist).changes][:2]
    assert (pb.CHANGE_KIND_DOWNGRADE, pb.CHANGE_STATE_DROPPED) in kinds


def test_an_upgrade_drops_a_pending_downgrade(hobbyist: Customer) -> None:
    change(hobbyist, "free")
    answered = change(hobbyist, "starter")

    assert not answered.subscription.HasField("pending_change")
    assert answered.subscription.plan_id == "starter"


def test_a_cancellation_waits_and_can_be_reverted(hobbyist: Customer) -> None:
    answered = cancel(hobbyist)
    again = cancel(hobbyist)
    list(hobbyist.complete())
    reverted = revert(hobbyist)

    assert answered.subscription.state == pb.SUBSCRIPTION_STATE_CANCELLING
    assert answered.subscription.end_time == answered.subscription.period_end_time
    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_CANCELLATION, pb.CHANGE_STATE_PENDING)
    assert again.change.change_id == answered.change.change_id
    assert reverted.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert not reverted.subscription.HasField("end_time")


def test_nothing_pending_cannot_be_reverted(free: Customer) -> None:
    code, info = refusal(lambda: revert(free))

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PENDING_CHANGE")


def test_the_same_plan_changes_nothing(hobbyist: Customer) -> None:
    answered = change(hobbyist, "hobbyist")

    assert (answered.change.kind, answered.change.change_id) == (pb.CHANGE_KIND_NONE, "")
    assert hobbyist.usage().current_charges.units == 15


def test_a_preview_changes_nothing(hobbyist: Customer) -> None:
    before = standing(hobbyist).subscription
    answered = change(hobbyist, "starter", validate_only=True)

    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_UPGRADE, pb.CHANGE_STATE_PREVIEW)
    assert (answered.change.amount.units, answered.subscription.plan_id) == (35, "starter")
    assert standing(hobbyist).subscription.etag == before.etag
    assert hobbyist.usage().sessions_limit == 200


def test_a_repeated_change_is_answered_as_before(hobbyist: Customer) -> None:
    first = change(hobbyist, "starter", request_id="c1")
    second = change(hobbyist, "starter", request_id="c1")
    code, info = refusal(lambda: change(hobbyist, "professional", request_id="c1"))

    assert first.change == second.change
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_REQUEST")
    assert hobbyist.usage().current_charges.units == 50


def test_a_stale_etag_is_refused(hobbyist: Customer) -> None:
    etag = standing(hobbyist).subscription.etag
    after = change(hobbyist, "starter", etag=etag).subscription
    code, info = refusal(lambda: change(hobbyist, "professional", etag=etag))

    assert (code, info.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert dict(info.metadata) == {"etag": after.etag}


def test_an_etag_is_stale_once_another_subscription_has_begun(free: Customer) -> None:
    etag = standing(free).subscription.etag
    change(free, "starter", etag=etag)
    _, info = refusal(lambda: change(free, "professional", etag=etag))

    assert info.reason == "STALE_ETAG"
    assert free.usage().current_charges.units == 50


@pytest.mark.parametrize(
    ("plan_id", "code", "reason", "metadata"),
    [
        ("none", grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND", {}),
        ("enterprise", grpc.StatusCode.FAILED_PRECONDITION, "CONTRACT_REQUIRED", {"plan": "enterprise"}),
        ("No Plan", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", {}),
    ],
)
def test_what_is_not_sold_is_refused(
    free: Customer, plan_id: str, code: grpc.StatusCode, reason: str, metadata: dict[str, str]
) -> None:
    found, info = refusal(lambda: change(free, plan_id))

    assert (found, info.reason, dict(info.metadata)) == (code, reason, metadata)
