"""Contracts: an account's own terms, which the operator puts and the prices place."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1 import plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb
from google.type.money_pb2 import Money

from tests.contract.target import Customer, details_of, info_of, refusal

DAY_S = 24 * 3600


def usd(units: int, nanos: int = 0) -> Money:
    """Dollars."""
    return Money(currency_code="USD", units=units, nanos=nanos)


def put(customer: Customer, contract: pb.Contract, **fields: Any) -> pb.PutContractResponse:
    """The operator puts a contract."""
    request = pb.PutContractRequest(account_id=customer.account_id, contract=contract, **fields)
    return customer.target.operate(customer.target.subscriptions.PutContract, request)


def change(customer: Customer, plan_id: str) -> pb.ChangePlanResponse:
    """The customer asks for a plan."""
    return customer.call(customer.target.subscriptions.ChangePlan, pb.ChangePlanRequest(plan_id=plan_id))


def standing(customer: Customer) -> pb.Subscription:
    """The subscription."""
    found = customer.call(customer.target.subscriptions.GetSubscription, pb.GetSubscriptionRequest())
    return found.subscription


def later(customer: Customer, days: int, **fields: Any) -> pb.Contract:
    """A contract that begins so many days after the present period did."""
    contract = pb.Contract(**fields)
    contract.effective_time.seconds = standing(customer).period_start_time.seconds + days * DAY_S
    return contract


def test_an_offer_starts_a_subscription_after_free(free: Customer) -> None:
    answered = put(free, pb.Contract(offer_id="volume-10k", reference="paper 7"))
    list(free.complete())

    assert answered.entitlement_applied
    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_START, pb.CHANGE_STATE_APPLIED)
    assert answered.change.amount == answered.invoice.total == usd(99)
    terms, contract = answered.subscription.terms, answered.subscription.contract
    assert (terms.plan_id, terms.price, terms.session_limit) == ("professional", usd(99), 10_000)
    assert (terms.max_concurrent_sessions, terms.support_level) == (500, plan_pb2.SUPPORT_LEVEL_PRIORITY)
    assert list(terms.features) == ["optimized_ai_pricing", "advanced_analytics", "volume_pricing"]
    assert terms.contract_id == contract.contract_id != ""
    assert (contract.offer_id, contract.reference, contract.session_limit) == ("volume-10k", "paper 7", 10_000)
    assert answered.invoice.lines[0].contract_id == contract.contract_id
    assert answered.invoice.lines[0].description.startswith("Professional (contract), ")
    usage = free.usage()
    assert (usage.sessions_limit, usage.sessions_used, usage.current_charges) == (10_000, 1, usd(99))


def test_terms_are_put_on_top_of_a_plan(hobbyist: Customer) -> None:
    contract = pb.Contract(
        plan_id="enterprise",
        price=usd(800),
        max_concurrent_sessions=7,
        max_output_tokens=0,
        managed_providers=["openai", "bedrock"],
        features=["own_feature", "advanced_analytics"],
    )
    answered = put(hobbyist, contract)
    terms = answered.subscription.terms

    assert (answered.change.kind, answered.invoice.total) == (pb.CHANGE_KIND_UPGRADE, usd(785))
    assert (terms.plan_id, terms.session_limit, terms.max_concurrent_sessions) == ("enterprise", 25_000, 7)
    assert (terms.max_output_tokens, terms.max_tool_rounds) == (0, 25)
    assert list(terms.managed_providers) == ["bedrock", "openai"]
    assert list(terms.features) == [
        "optimized_ai_pricing",
        "advanced_analytics",
        "volume_pricing",
        "custom_infrastructure",
        "own_feature",
    ]


def test_a_contract_keeps_plans_out(hobbyist: Customer) -> None:
    put(hobbyist, pb.Contract(plan_id="hobbyist", session_limit=300))
    code, info = refusal(lambda: change(hobbyist, "starter"))

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTRACT_IN_FORCE")
    assert info.metadata["contract"] == standing(hobbyist).contract.contract_id
    assert hobbyist.usage().sessions_limit == 300


def test_a_lower_price_waits_and_is_not_the_customers_to_revert(hobbyist: Customer) -> None:
    answered = put(hobbyist, pb.Contract(plan_id="hobbyist", price=usd(10), session_limit=300))
    request = pb.RevertPendingChangeRequest()
    _, info = refusal(lambda: hobbyist.call(hobbyist.target.subscriptions.RevertPendingChange, request))

    subscription = answered.subscription
    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_DOWNGRADE, pb.CHANGE_STATE_PENDING)
    assert answered.change.effective_time == subscription.period_end_time
    assert not answered.HasField("invoice")
    assert (subscription.terms.session_limit, subscription.contract.session_limit) == (200, 300)
    assert info.reason == "NO_PENDING_CHANGE"


def test_a_contract_to_come_overtakes_a_downgrade(hobbyist: Customer) -> None:
    answered = put(hobbyist, later(hobbyist, 2, plan_id="hobbyist", price=usd(20)))
    _, info = refusal(lambda: change(hobbyist, "free"))
    upgraded = change(hobbyist, "starter")

    assert (answered.change.kind, answered.change.state) == (pb.CHANGE_KIND_UPGRADE, pb.CHANGE_STATE_PENDING)
    assert info.reason == "CONTRACT_IN_FORCE"
    assert (upgraded.change.kind, upgraded.subscription.plan_id) == (pb.CHANGE_KIND_UPGRADE, "starter")


def test_a_contract_to_come_is_told_as_it_turns_out(hobbyist: Customer) -> None:
    put(hobbyist, later(hobbyist, 2, plan_id="hobbyist", price=usd(20)))
    change(hobbyist, "starter")
    found = hobbyist.call(hobbyist.target.subscriptions.GetSubscription, pb.GetSubscriptionRequest())
    (contract,) = [one for one in found.changes if one.state == pb.CHANGE_STATE_PENDING]

    assert (contract.kind, contract.from_terms.plan_id) == (pb.CHANGE_KIND_DOWNGRADE, "starter")
    assert contract.effective_time == found.subscription.period_end_time


def test_a_contract_to_come_goes_over_to_the_subscription_that_begins(free: Customer) -> None:
    agreed = put(free, later(free, 2, plan_id="professional", price=usd(300)))
    begun = change(free, "starter")
    listed = free.call(free.target.subscriptions.GetSubscription, pb.GetSubscriptionRequest()).changes

    assert begun.subscription.subscription_id != agreed.subscription.subscription_id
    (pending,) = [one for one in listed if one.change_id == agreed.change.change_id]
    assert pending.state == pb.CHANGE_STATE_PENDING
    assert pending.subscription_id == begun.subscription.subscription_id


def test_the_first_invoice_of_a_contract_to_come_is_previewed(free: Customer) -> None:
    contract = later(free, 2, plan_id="professional", price=usd(300))
    agreed = put(free, contract)
    preview = free.call(free.target.invoices.PreviewInvoice, invoices.PreviewInvoiceRequest())

    assert (preview.invoice.total, preview.issue_time) == (usd(300), contract.effective_time)
    assert (preview.invoice.period_start_time, preview.invoice.subscription_id) == (contract.effective_time, "")
    assert preview.invoice.lines[0].change_id == agreed.change.change_id


def test_a_contract_long_after_the_free_period_is_not_previewed_yet(free: Customer) -> None:
    put(free, later(free, 90, plan_id="professional", price=usd(300)))
    preview = free.call(free.target.invoices.PreviewInvoice, invoices.PreviewInvoiceRequest())

    assert (preview.invoice.total, preview.issue_time) == (usd(0), standing(free).period_end_time)
    assert preview.invoice.subscription_id == standing(free).subscription_id


def test_a_contract_drops_what_is_pending(hobbyist: Customer) -> None:
    hobbyist.call(hobbyist.target.subscriptions.CancelSubscription, pb.CancelSubscriptionRequest())
    answered = put(hobbyist, pb.Contract(plan_id="hobbyist", session_limit=300))

    assert answered.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert (answered.change.kind, answered.subscription.terms.session_limit) == (pb.CHANGE_KIND_LATERAL, 300)


def test_a_previewed_contract_changes_nothing(hobbyist: Customer) -> None:
    before = standing(hobbyist)
    answered = put(hobbyist, pb.Contract(offer_id="volume-10k"), validate_only=True)

    assert (answered.change.state, answered.change.change_id) == (pb.CHANGE_STATE_PREVIEW, "")
    assert (answered.invoice.total, answered.entitlement_applied) == (usd(84), False)
    assert standing(hobbyist).etag == before.etag


def test_a_preview_has_no_ids_of_what_is_not_there(free: Customer) -> None:
    request = pb.ChangePlanRequest(plan_id="starter", validate_only=True)
    answers = (
        free.call(free.target.subscriptions.ChangePlan, request),
        put(free, pb.Contract(offer_id="volume-10k"), validate_only=True),
    )

    for answer in answers:
        invoice = answer.invoice
        assert (answer.subscription.subscription_id, invoice.subscription_id, invoice.invoice_id) == ("", "", "")
        assert [(line.change_id, line.contract_id) for line in invoice.lines] == [("", "")]
        terms = (answer.subscription.terms, answer.change.to_terms, answer.subscription.contract)
        assert [one.contract_id for one in terms] == ["", "", ""]
    assert answers[1].invoice.lines[0].description.startswith("Professional (contract), ")


def test_what_was_previewed_can_be_done_with_its_etag(free: Customer) -> None:
    request = pb.ChangePlanRequest(plan_id="starter", validate_only=True)
    previewed = free.call(free.target.subscriptions.ChangePlan, request).subscription
    assert previewed.etag == standing(free).etag

    done = pb.ChangePlanRequest(plan_id="starter", etag=previewed.etag)
    assert free.call(free.target.subscriptions.ChangePlan, done).subscription.plan_id == "starter"
    code, info = refusal(lambda: free.call(free.target.subscriptions.ChangePlan, done))
    assert (code, info.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")


def test_a_repeated_contract_is_answered_as_before(free: Customer) -> None:
    first = put(free, pb.Contract(offer_id="volume-10k"), request_id="k")
    second = put(free, pb.Contract(offer_id="volume-10k"), request_id="k")
    other, info = refusal(lambda: put(free, pb.Contract(plan_id="starter"), request_id="k"))
    stale, _ = refusal(lambda: put(free, pb.Contract(plan_id="starter"), etag="s0"))

    assert first.change == second.change
    assert (other, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_REQUEST")
    assert stale is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    ("contract", "field"),
    [
        (pb.Contract(plan_id="starter", session_limit=-1), "contract.session_limit"),
        (pb.Contract(plan_id="starter", price=usd(-1)), "contract.price"),
        (pb.Contract(plan_id="starter", price=usd(1, 1)), "contract.price"),
        (pb.Contract(plan_id="starter", price=Money(currency_code="EUR")), "contract.price"),
        (pb.Contract(plan_id="starter", max_concurrent_sessions=0), "contract.max_concurrent_sessions"),
        (pb.Contract(plan_id="starter", max_output_tokens=-1), "contract.max_output_tokens"),
        (pb.Contract(plan_id="starter", max_tool_rounds=-1), "contract.max_tool_rounds"),
        (pb.Contract(plan_id="starter", features=["Not a name"]), "contract.features[0]"),
        (pb.Contract(session_limit=1), "contract"),
        (pb.Contract(plan_id="starter", effective_time={"seconds": 1}), "contract.effective_time"),
        (pb.Contract(plan_id="starter", end_time={"seconds": 1}), "contract.end_time"),
        (pb.Contract(plan_id="starter", end_time={"seconds": 4_102_444_800}), "contract.end_time"),
        (
            pb.Contract(plan_id="starter", effective_time={"seconds": 9_000_000}, end_time={"seconds": 8_000_000}),
            "contract",
        ),
        (pb.Contract(plan_id="starter", offer_id="volume-10k"), "contract.plan_id"),
        (pb.Contract(plan_id="enterprise", max_concurrent_sessions=1), "contract.price"),
        (pb.Contract(plan_id="enterprise", price=usd(1)), "contract.max_concurrent_sessions"),
    ],
)
def test_bad_terms_are_refused(free: Customer, contract: pb.Contract, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        put(free, contract)

    info, bad = details_of(caught.value)
    assert info.reason == "INVALID_REQUEST"
    assert [violation.field for violation in bad.field_violations] == [field]
    assert standing(free).plan_id == "free"


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        (pb.Contract(plan_id="none"), "PLAN_NOT_FOUND"),
        (pb.Contract(plan_id="starter", plan_version=9), "PLAN_NOT_FOUND"),
        (pb.Contract(offer_id="none"), "OFFER_NOT_FOUND"),
    ],
)
def test_unknown_plans_and_offers_are_refused(free: Customer, contract: pb.Contract, reason: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        put(free, contract)

    assert info_of(caught.value).reason == reason


def test_contracts_are_the_operators(free: Customer) -> None:
    request = pb.PutContractRequest(account_id=free.account_id, contract=pb.Contract(offer_id="volume-10k"))
    code, info = refusal(lambda: free.call(free.target.subscriptions.PutContract, request))

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ADMIN_REQUIRED")
