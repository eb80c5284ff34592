"""What time, budgets and thresholds do in the fake."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import budget_pb2, invoice_pb2
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.billing.v1 import usage_service_pb2 as usages
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceStub
from flowstack_protos.billing.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from flowstack_protos.type.v1 import type_pb2 as types
from flowstack_protos.vault.v1 import vault_service_pb2 as vault
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from flowstack import UnavailableError
from flowstack.testing import FakeFlowStack
from tests.contract.target import Customer, Target, refusal
from tests.support.suite import CALL_SECONDS


class World:
    """A fake, and a customer of it."""

    def __init__(self, fake: FakeFlowStack, channel: grpc.Channel) -> None:
        self.fake = fake
        self.channel = channel
        self.target = Target(router=channel, billing=channel, vault=channel, admin_token=fake.admin_token)

    def customer(self, plan: str = "free") -> Customer:
        """A new account."""
        secret = self.fake.new_account(plan)
        return Customer(self.target, self.fake.account_id(secret), secret)

    def set_alerts(self, customer: Customer, settings: alerts.AlertSettings, *fields: str) -> None:
        """Sets thresholds or budget."""
        request = alerts.UpdateAlertSettingsRequest(alert_settings=settings, update_mask=FieldMask(paths=fields))
        customer.call(AlertServiceStub(self.channel).UpdateAlertSettings, request)

    def alerts_of(self, customer: Customer) -> list[alerts.Alert]:
        """The customer's alerts, newest first."""
        return list(customer.call(AlertServiceStub(self.channel).ListAlerts, alerts.ListAlertsRequest()).alerts)


@pytest.fixture
def world() -> Iterator[World]:
    """A fake with a channel to it."""
    with FakeFlowStack() as fake, grpc.insecure_channel(fake.endpoint) as channel:
        yield World(fake, channel)


def budget(dollars: int, action: budget_pb2.BudgetAction.ValueType) -> alerts.AlertSettings:
    """Settings with a budget."""
    money = Money(currency_code="USD", units=dollars)
    return alerts.AlertSettings(budget=budget_pb2.Budget(max_monthly_cost=money, action=action))


def test_a_new_period_begins_at_zero(world: World) -> None:
    free = world.customer()
    for _ in range(25):
        list(free.complete())
    refused = refusal(free.complete)[1].reason
    world.fake.advance(days=31)
    list(free.complete())

    assert refused == "SESSION_QUOTA_EXCEEDED"
    usage = free.usage()
    assert (usage.sessions_used, usage.sessions_remaining) == (1, 24)


def test_a_downgrade_comes_with_the_next_period(world: World) -> None:
    paid = world.customer("starter")
    paid.call(world.target.subscriptions.ChangePlan, subscriptions.ChangePlanRequest(plan_id="hobbyist"))
    before = paid.usage()
    world.fake.advance(days=31)
    after = paid.usage()

    assert (before.plan_id, before.current_charges.units) == ("starter", 50)
    assert (after.plan_id, after.sessions_limit, after.current_charges.units) == ("hobbyist", 200, 15)


def test_a_cancelled_subscription_ends_and_can_start_anew(world: World) -> None:
    paid = world.customer("starter")
    paid.call(world.target.subscriptions.CancelSubscription, subscriptions.CancelSubscriptionRequest())
    world.fake.advance(days=31)
    code, info = refusal(paid.complete)
    usage = paid.usage()
    change = subscriptions.ChangePlanRequest(plan_id="hobbyist")
    anew = paid.call(world.target.subscriptions.ChangePlan, change)
    list(paid.complete())

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SUBSCRIPTION_ENDED")
    assert (usage.can_make_requests, usage.refusal_reason) == (False, "SUBSCRIPTION_ENDED")
    assert anew.change.kind == subscriptions.CHANGE_KIND_START
    assert paid.usage().sessions_used == 1


def test_documents_and_keys_come_to_their_end(world: World) -> None:
    free = world.customer()
    request = vault.StoreRequest(collection="notes", key="k", document_json="{}")
    request.ttl.FromSeconds(60)
    free.call(world.target.vault.Store, request)
    wanted = accounts.CreateApiKeyRequest()
    wanted.expire_time.FromDatetime(world.fake.advance(seconds=30))
    wanted.expire_time.seconds += 3600
    second = Customer(world.target, free.account_id, free.call(world.target.accounts.CreateApiKey, wanted).secret)
    second.usage()
    world.fake.advance(minutes=90)

    read = vault.RetrieveRequest(collection="notes", key="k")
    assert refusal(lambda: free.call(world.target.vault.Retrieve, read))[1].reason == "DOCUMENT_NOT_FOUND"
    assert refusal(second.usage)[1].reason == "API_KEY_EXPIRED"


def test_thresholds_fire_once_for_each_period(world: World) -> None:
    free = world.customer()
    world.set_alerts(free, alerts.AlertSettings(thresholds=[8, 4]), "thresholds")
    for _ in range(5):
        list(free.complete())
    first = [alert.threshold for alert in world.alerts_of(free)]
    world.fake.advance(days=31)
    list(free.complete())

    assert first == [8, 4]
    assert [alert.threshold for alert in world.alerts_of(free)] == [4, 8, 4]


def test_alerts_are_watched(world: World) -> None:
    free = world.customer()
    world.set_alerts(free, alerts.AlertSettings(thresholds=[4]), "thresholds")
    stub = AlertServiceStub(world.channel)
    watch = stub.WatchAlerts(alerts.WatchAlertsRequest(), metadata=free.metadata, timeout=CALL_SECONDS)
    assert not next(watch).HasField("alert")
    list(free.complete())
    seen = next(watch)
    free.call(stub.SendAlert, alerts.SendAlertRequest(message="mine"))
    own = next(watch)
    watch.cancel()

    assert (seen.alert.threshold, seen.alert.sessions_used) == (4, 1)
    assert (own.alert.kind, own.alert.message) == (alerts.ALERT_KIND_CUSTOM, "mine")


def test_a_watch_ends_with_the_fake_as_with_a_service() -> None:
    with FakeFlowStack() as fake, fake.agent() as agent, agent.watch_usage() as watch:
        next(watch)
        fake.close()
        with pytest.raises(UnavailableError, match="shutting down"):
            next(watch)


@pytest.mark.parametrize(
    ("dollars", "action", "reason"),
    [
        (10, budget_pb2.BUDGET_ACTION_BLOCK, "BUDGET_EXCEEDED"),
        (10, budget_pb2.BUDGET_ACTION_WARN, ""),
        (15, budget_pb2.BUDGET_ACTION_BLOCK, ""),
    ],
)
def test_a_budget(world: World, dollars: int, action: budget_pb2.BudgetAction.ValueType, reason: str) -> None:
    paid = world.customer("hobbyist")
    world.set_alerts(paid, budget(dollars, action), "budget")

    usage = paid.usage()
    assert (usage.refusal_reason, usage.budget.blocking, usage.budget.exceeded) == (reason, bool(reason), dollars < 15)
    assert (usage.budget.spent.units, usage.budget.remaining.units) == (15, 0)
    assert len(world.alerts_of(paid)) == (dollars < 15)
    if reason:
        assert refusal(paid.complete)[1].reason == reason
    else:
        list(paid.complete())


def test_sessions_are_listed_newest_first(world: World) -> None:
    free = world.customer()
    list(free.complete(request_id="a", labels={"team": "x"}))
    refusal(lambda: free.complete(request_id="b", labels={"echo.fail_after": "0"}))
    stub = world.target.usage.ListSessions
    all_of_them = free.call(stub, usages.ListSessionsRequest()).sessions
    labelled = free.call(stub, usages.ListSessionsRequest(labels={"team": "x"})).sessions
    released = free.call(stub, usages.ListSessionsRequest(states=[types.SESSION_STATE_RELEASED])).sessions

    assert [record.session.request_id for record in all_of_them] == ["b", "a"]
    assert [record.session.request_id for record in labelled] == ["a"]
    assert [record.session.request_id for record in released] == ["b"]


def test_usage_is_watched(world: World) -> None:
    free = world.customer()
    watch = world.target.usage.WatchUsage(usages.WatchUsageRequest(), metadata=free.metadata, timeout=CALL_SECONDS)
    at_once = next(watch).usage
    list(free.complete())
    for seen in watch:
        if seen.usage.sessions_used:
            break
    watch.cancel()

    assert (at_once.sessions_used, seen.usage.sessions_used, seen.usage.sessions_reserved) == (0, 1, 0)


def test_the_forecast_carries_the_mean_on(world: World) -> None:
    free = world.customer()
    for _ in range(10):
        list(free.complete())
    world.fake.advance(days=10)
    forecast = free.call(world.target.usage.GetForecast, usages.GetForecastRequest()).forecast

    assert forecast.method == usages.FORECAST_METHOD_DAILY_MEAN
    assert forecast.projected_sessions in range(28, 32)
    assert forecast.sessions_used == 10
    assert world.fake.now < forecast.limit_reach_time.ToDatetime(world.fake.now.tzinfo)


def test_advice_follows_the_figures(world: World) -> None:
    paid = world.customer("starter")
    list(paid.complete())
    stub = SubscriptionServiceStub(world.channel)

    def analyzed() -> usages.CostAnalysis:
        return paid.call(world.target.usage.AnalyzeCosts, usages.AnalyzeCostsRequest()).cost_analysis

    managed = (usages.RECOMMENDATION_KIND_COST_REDUCTION, "")
    first_day = analyzed().recommendations
    assert [(one.kind, one.suggested_plan_id) for one in first_day] == [managed]
    assert (first_day[0].sessions_used, first_day[0].sessions_limit, first_day[0].projected_sessions) == (1, 1_000, 1)
    world.fake.advance(days=3)
    analysis = analyzed()
    assert [(one.kind, one.suggested_plan_id) for one in analysis.recommendations] == [
        managed,
        (usages.RECOMMENDATION_KIND_PLAN_OPTIMIZATION, "free"),
    ]
    paid.call(stub.CancelSubscription, subscriptions.CancelSubscriptionRequest())
    assert not analyzed().recommendations
    world.fake.advance(days=40)
    assert not analyzed().recommendations
    assert [(item.provider, item.totals.sessions_committed) for item in analysis.items] == [("echo", 1)]
    assert (analysis.provider_cost.units, analysis.unpriced_sessions) == (0, 0), "the simulator is free"


def test_an_estimate_names_what_fits(world: World) -> None:
    free = world.customer()
    request = usages.EstimateCostRequest(sessions_per_month=900, provider="bedrock", model="claude-3-sonnet")
    estimates = free.call(world.target.usage.EstimateCost, request).estimates
    managed = [one for one in estimates if one.credential_mode == types.CREDENTIAL_MODE_MANAGED]

    assert [(one.plan_id, one.offer_id, one.total.units) for one in managed] == [
        ("starter", "", 50),
        ("professional", "volume-10k", 99),
        ("professional", "", 200),
    ]
    assert not any(one.HasField("total") for one in estimates if one not in managed)


def test_invoices_are_paid_when_they_are_due(world: World) -> None:
    paid = world.customer("hobbyist")
    world.fake.advance(days=13)
    before = invoices_of(paid)
    world.fake.advance(days=27)
    after = invoices_of(paid)

    assert [invoice.state for invoice in before] == [invoice_pb2.INVOICE_STATE_OPEN]
    assert [(invoice.sequence_number, invoice.state) for invoice in after] == [
        (2, invoice_pb2.INVOICE_STATE_OPEN),
        (1, invoice_pb2.INVOICE_STATE_PAID),
    ]
    assert after[1].pay_time == after[1].due_time
    list(paid.complete())


def test_who_does_not_pay_is_refused_until_the_operator_says_so() -> None:
    with FakeFlowStack(invoices_are_paid=False) as fake, grpc.insecure_channel(fake.endpoint) as channel:
        world = World(fake, channel)
        paid = world.customer("hobbyist")
        fake.advance(days=27)
        list(paid.complete())
        fake.advance(days=2)
        refused = refusal(paid.complete)
        (invoice,) = invoices_of(paid)
        request = invoices.MarkInvoicePaidRequest(
            account_id=paid.account_id, invoice_id=invoice.invoice_id, payment_reference="wire 7"
        )
        world.target.operate(world.target.invoices.MarkInvoicePaid, request)
        list(paid.complete())

    assert (refused[0], refused[1].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYMENT_OVERDUE")


def test_each_period_is_charged_and_stated_once_however_far_time_jumps(world: World) -> None:
    paid = world.customer("hobbyist")
    list(paid.complete())
    world.fake.advance(days=95)
    found = invoices_of(paid)
    statement = next(one for one in found if one.kind == invoice_pb2.INVOICE_KIND_USAGE_STATEMENT)

    fees = [one for one in found if one.kind == invoice_pb2.INVOICE_KIND_PERIOD_FEE]
    assert len(fees) == 4
    assert len({one.period_start_time.ToMicroseconds() for one in fees}) == 4
    assert [one.sequence_number for one in found] == [5, 4, 3, 2, 1]
    assert statement.period_start_time == fees[-1].period_start_time
    assert statement.issue_time == statement.period_end_time
    assert [(line.kind, line.quantity) for line in statement.lines] == [
        (invoice_pb2.INVOICE_LINE_KIND_BYOK_SESSIONS, 1)
    ]


def test_a_contract_gives_way_to_the_plan_when_it_ends(world: World) -> None:
    free = world.customer()
    contract = subscriptions.Contract(offer_id="volume-10k")
    contract.end_time.FromDatetime(world.fake.now + timedelta(days=40))
    request = subscriptions.PutContractRequest(account_id=free.account_id, contract=contract)
    world.target.operate(world.target.subscriptions.PutContract, request)
    during = free.usage()
    world.fake.advance(days=41)
    after = free.usage()

    assert (during.plan_id, during.sessions_limit, during.current_charges.units) == ("professional", 10_000, 99)
    # Professional costs more than the contract did: the difference is due for what is left of the period.
    assert (after.plan_id, after.sessions_limit, after.current_charges.units) == ("professional", 5_000, 200)


def test_a_contract_begins_at_its_time(world: World) -> None:
    paid = world.customer("hobbyist")
    contract = subscriptions.Contract(plan_id="hobbyist", session_limit=700)
    contract.effective_time.FromDatetime(world.fake.now + timedelta(days=3))
    request = subscriptions.PutContractRequest(account_id=paid.account_id, contract=contract)
    world.target.operate(world.target.subscriptions.PutContract, request)
    before = paid.usage().sessions_limit
    world.fake.advance(days=4)

    assert (before, paid.usage().sessions_limit) == (200, 700)


def test_a_suspension_ends_at_its_time(world: World) -> None:
    free = world.customer()
    request = accounts.SuspendAccountRequest(account_id=free.account_id, reason="a test")
    request.until_time.FromDatetime(world.fake.now + timedelta(hours=1))
    world.target.operate(world.target.accounts.SuspendAccount, request)
    refused = refusal(free.complete)[1].reason
    world.fake.advance(hours=2)
    list(free.complete())

    assert refused == "ACCOUNT_SUSPENDED"


def test_a_deleted_account_is_purged_after_30_days(world: World) -> None:
    paid = world.customer("hobbyist")
    paid.call(world.target.vault.Store, vault.StoreRequest(collection="notes", key="k", document_json="{}"))
    request = accounts.DeleteAccountRequest(account_id=paid.account_id)
    deleted = world.target.operate(world.target.accounts.DeleteAccount, request).account
    world.fake.advance(days=31)
    wanted = accounts.GetAccountRequest(account_id=paid.account_id)
    after = world.target.operate(world.target.accounts.GetAccount, wanted).account
    listed = invoices.ListInvoicesRequest(account_id=paid.account_id)
    (invoice,) = world.target.operate(world.target.invoices.ListInvoices, listed).invoices
    kept = vault.ListCollectionsRequest(account_id=paid.account_id)

    assert (deleted.display_name, after.display_name, after.email) == ("A test's account", "", "")
    assert (invoice.customer_name, invoice.customer_email) == ("", "")
    assert not world.target.operate(world.target.vault.ListCollections, kept).collections


def invoices_of(customer: Customer) -> list[invoice_pb2.Invoice]:
    """The customer's invoices, newest first."""
    return list(customer.call(customer.target.invoices.ListInvoices, invoices.ListInvoicesRequest()).invoices)
