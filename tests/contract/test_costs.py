"""What providers charge on credentials of one's own, and where that is told. The simulator has a price here."""

from __future__ import annotations

import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import budget_pb2
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from tests.contract.target import ECHO_USD, Customer, refusal

BYOK = types.CREDENTIAL_MODE_BYOK


def micro(money: Money) -> int:
    return money.units * 1_000_000 + money.nanos // 1_000


def sessions_of(customer: Customer, count: int) -> list[pb.SessionRecord]:
    """So many sessions, once the books have them."""
    while True:
        found = customer.call(customer.target.usage.ListSessions, pb.ListSessionsRequest()).sessions
        if len(found) == count:
            return list(found)


def cost_of(record: pb.SessionRecord) -> int:
    """What a session costs by its tokens."""
    outcome = record.session.outcome
    return outcome.input_tokens * ECHO_USD[0] + outcome.output_tokens * ECHO_USD[1]


def test_a_session_is_charged_by_its_tokens(professional: Customer) -> None:
    list(professional.complete("one two three"))
    list(professional.complete("one"))
    records = sessions_of(professional, 2)
    costs = [cost_of(record) for record in records]
    assert all(costs)
    assert [micro(record.provider_cost) for record in records] == costs
    assert all(record.price_table_version for record in records)

    usage = professional.usage_once(lambda usage: micro(usage.estimated_monthly_cost) > 200_000_000)
    assert (usage.current_charges.units, usage.unpriced_sessions) == (200, 0)
    assert micro(usage.estimated_monthly_cost) >= 200_000_000 + sum(costs)
    forecast = professional.call(professional.target.usage.GetForecast, pb.GetForecastRequest()).forecast
    assert micro(forecast.projected_cost_low) == 200_000_000 + sum(costs)
    rows = professional.call(
        professional.target.usage.QueryUsage,
        pb.QueryUsageRequest(granularity=pb.USAGE_GRANULARITY_DAY, group_by=[pb.USAGE_DIMENSION_MODEL]),
    )
    assert [(row.model, micro(row.totals.provider_cost)) for row in rows.rows] == [("echo-1", sum(costs))]
    assert micro(rows.totals.provider_cost) == sum(costs)


def test_costs_are_analyzed(professional: Customer) -> None:
    list(professional.complete("one two three"))
    refusal(lambda: professional.complete(labels={"echo.fail_after": "0"}))
    [cost] = [cost_of(record) for record in sessions_of(professional, 2) if record.session.outcome.served_provider]
    found = professional.call(professional.target.usage.AnalyzeCosts, pb.AnalyzeCostsRequest()).cost_analysis

    assert (micro(found.provider_cost), found.unpriced_sessions, found.byok_sessions) == (cost, 0, 1)
    first = found.items[0]
    assert (first.provider, first.model, first.credential_mode) == ("echo", "echo-1", BYOK)
    assert (micro(first.totals.provider_cost), first.totals.sessions_committed) == (cost, 1)
    advice = found.recommendations[0]
    assert (advice.kind, advice.byok_sessions) == (pb.RECOMMENDATION_KIND_COST_REDUCTION, 1)
    assert micro(advice.byok_provider_cost) == cost


def test_a_session_that_failed_before_its_answer_cost_nothing(free: Customer) -> None:
    refusal(lambda: free.complete(labels={"echo.fail_after": "0"}))
    [record] = sessions_of(free, 1)
    assert record.HasField("provider_cost")
    assert (micro(record.provider_cost), record.price_table_version) == (0, "")
    assert free.usage().unpriced_sessions == 0


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"model": "echo-1", "tokens_per_session": 1_000}, 100 * (750 * 2 + 250 * 10)),
        ({"model": "default", "tokens_per_session": 1_000}, 100 * (750 * 2 + 250 * 10)),
        ({"model": "echo-1", "tokens_per_session": 1_000, "output_tokens_per_session": 0}, 100 * 1_000 * 2),
    ],
)
def test_an_estimate_is_by_the_price_of_what_would_run(free: Customer, fields: dict[str, object], cost: int) -> None:
    request = pb.EstimateCostRequest(sessions_per_month=100, provider="echo", **fields)
    found = free.call(free.target.usage.EstimateCost, request)

    assert (found.served_model, found.price_table) == ("echo-1", "current")
    assert found.price_table_version
    byok = [one for one in found.estimates if one.credential_mode == BYOK]
    assert {(micro(one.provider_cost), micro(one.provider_cost_high)) for one in byok} == {(cost, cost)}
    assert all(micro(one.total) == micro(one.platform_fee) + cost for one in byok)


def test_what_providers_charge_counts_against_the_budget(free: Customer) -> None:
    most = Money(currency_code="USD", nanos=1_000)
    budget = budget_pb2.Budget(max_monthly_cost=most, action=budget_pb2.BUDGET_ACTION_BLOCK)
    request = alerts.UpdateAlertSettingsRequest(
        alert_settings=alerts.AlertSettings(budget=budget), update_mask=FieldMask(paths=["budget"])
    )
    free.call(free.target.alerts.UpdateAlertSettings, request)
    list(free.complete())
    [record] = sessions_of(free, 1)
    usage = free.usage_once(lambda usage: usage.refusal_reason != "")

    assert usage.refusal_reason == "BUDGET_EXCEEDED"
    assert micro(usage.budget.spent) == cost_of(record)
    assert refusal(free.complete)[1].reason == "BUDGET_EXCEEDED"
