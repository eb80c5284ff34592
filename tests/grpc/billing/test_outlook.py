"""GetForecast, AnalyzeCosts and EstimateCost as a customer sees them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.type.money_pb2 import Money

from tests.support.billing import ADMIN, BillingUnderTest, Customer, billing, reason_of, settings_for
from tests.support.clock import DAY_US, HOUR_US, ManualClock
from tests.support.fake_quota_events import BYOK, MANAGED, FakeQuotaEvents

OPERATORS = """
[providers.vllm.models."llama-3"]
aliases = ["default"]
input_price_usd_per_million_tokens = "2.00"

[providers.openai.models."gpt-4o"]
aliases = ["omni"]
input_price_usd_per_million_tokens = "999.00"
"""


def served(model: str, mode: int) -> type_pb2.SessionOutcome:
    provider = "openai" if mode == BYOK else "bedrock"
    return type_pb2.SessionOutcome(
        served_provider=provider,
        served_model=model,
        served_credential_mode=mode,  # type: ignore[arg-type]
        input_tokens=1_000_000,
        output_tokens=0,
    )


async def ten_days(quota: FakeQuotaEvents, account_id: str, clock: ManualClock) -> None:
    """Ten days of three BYOK sessions and a managed one; each BYOK one costs $2.50, one is of an unknown model."""
    start_us = clock.now_us()
    clock.advance_us(10 * DAY_US)
    for number in range(40):
        mode, model = (MANAGED, "m") if number % 4 == 3 else (BYOK, "gpt-4o" if number else "own")
        reserve_us = start_us + number // 4 * DAY_US + HOUR_US
        await quota.resolve(account_id, f"ses_{number}", reserve_us=reserve_us, mode=mode, outcome=served(model, mode))
    await quota.drained()


async def test_a_forecast(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    await ten_days(quota, customer.account_id, clock)
    response = await service.usage.GetForecast(pb.GetForecastRequest(), metadata=customer.metadata)
    found = response.forecast
    assert found.method == pb.FORECAST_METHOD_DAILY_MEAN
    assert (found.sessions_used, found.sessions_limit, found.days_left) == (40, 1_000, 21)
    assert found.projected_sessions_low <= found.projected_sessions <= found.projected_sessions_high
    assert found.projected_sessions == pytest.approx(124, abs=4)
    assert found.range_coverage == 0.8
    assert found.unpriced_sessions == 1
    # $50 of the fee, and 29 sessions of $2.50 so far.
    assert found.projected_cost.units == pytest.approx(50 + 72.5 * found.projected_sessions / 40, abs=1)
    assert found.projected_cost_low.units <= found.projected_cost.units <= found.projected_cost_high.units
    assert found.points[-1].end_time == found.period_end_time
    assert not found.HasField("limit_reach_time")
    usage = (await service.usage.GetUsage(pb.GetUsageRequest(), metadata=customer.metadata)).usage
    assert usage.estimated_monthly_cost == found.projected_cost
    assert usage.unpriced_sessions == 1


async def test_an_analysis(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    await ten_days(quota, customer.account_id, clock)
    response = await service.usage.AnalyzeCosts(pb.AnalyzeCostsRequest(), metadata=customer.metadata)
    found = response.cost_analysis
    assert (found.managed_sessions, found.byok_sessions, found.unpriced_sessions) == (10, 30, 1)
    assert (found.current_charges.units, found.provider_cost.units, found.provider_cost.nanos) == (50, 72, 500_000_000)
    assert [(item.provider, item.model, item.totals.sessions_committed) for item in found.items] == [
        ("openai", "gpt-4o", 29),
        ("bedrock", "m", 10),
        ("openai", "own", 1),
    ]
    kinds = {one.kind: one for one in found.recommendations}
    assert set(kinds) == {pb.RECOMMENDATION_KIND_COST_REDUCTION, pb.RECOMMENDATION_KIND_PLAN_OPTIMIZATION}
    assert not kinds[pb.RECOMMENDATION_KIND_COST_REDUCTION].HasField("potential_savings"), "a cost is unknown"
    cheaper = kinds[pb.RECOMMENDATION_KIND_PLAN_OPTIMIZATION]
    assert (cheaper.suggested_plan_id, cheaper.potential_savings.units) == ("hobbyist", 35)
    assert cheaper.projected_sessions <= cheaper.projected_sessions_high <= cheaper.suggested_sessions_limit
    managed = kinds[pb.RECOMMENDATION_KIND_COST_REDUCTION]
    assert (managed.sessions_used, managed.sessions_limit) == (40, 1_000)
    assert managed.projected_sessions == cheaper.projected_sessions


async def test_models_beyond_the_dearest_are_told_in_one_sum(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    for number in range(103):
        outcome = served("gpt-4o" if number < 2 else f"own-{number:03}", BYOK)
        await quota.resolve(customer.account_id, f"ses_{number}", mode=BYOK, outcome=outcome)
    await quota.drained()
    response = await service.usage.AnalyzeCosts(pb.AnalyzeCostsRequest(), metadata=customer.metadata)
    found = response.cost_analysis
    assert len(found.items) == 100
    assert [found.items[place].model for place in (0, 1, 99)] == ["gpt-4o", "own-002", "own-100"]
    others = found.other_items_totals
    assert (found.other_items, others.sessions_committed, others.unpriced_sessions) == (2, 2, 2)
    assert others.input_tokens == 2_000_000


async def kinds_of_advice(service: BillingUnderTest, account_id: str) -> set[int]:
    request = pb.AnalyzeCostsRequest(account_id=account_id)
    found = await service.usage.AnalyzeCosts(request, metadata=ADMIN)
    return {one.kind for one in found.cost_analysis.recommendations}


async def test_advice_knows_what_is_to_come(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    await ten_days(quota, customer.account_id, clock)
    own, account = {"metadata": customer.metadata}, customer.account_id
    both = {pb.RECOMMENDATION_KIND_COST_REDUCTION, pb.RECOMMENDATION_KIND_PLAN_OPTIMIZATION}
    assert await kinds_of_advice(service, account) == both
    await service.subscriptions.ChangePlan(subscription_pb.ChangePlanRequest(plan_id="hobbyist"), **own)
    assert await kinds_of_advice(service, account) == {pb.RECOMMENDATION_KIND_COST_REDUCTION}
    await service.subscriptions.RevertPendingChange(subscription_pb.RevertPendingChangeRequest(), **own)
    assert await kinds_of_advice(service, account) == both
    await service.subscriptions.CancelSubscription(subscription_pb.CancelSubscriptionRequest(), **own)
    assert await kinds_of_advice(service, account) == set()


async def test_no_advice_after_the_end(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    gone = await service.new_customer("starter")
    for one in (customer, gone):
        await ten_days(quota, one.account_id, clock)
        assert await kinds_of_advice(service, one.account_id)
    await service.accounts.DeleteAccount(account_pb.DeleteAccountRequest(account_id=gone.account_id), metadata=ADMIN)
    assert await kinds_of_advice(service, gone.account_id) == set()
    request = subscription_pb.CancelSubscriptionRequest()
    await service.subscriptions.CancelSubscription(request, metadata=customer.metadata)
    clock.advance_us(40 * DAY_US)
    assert await kinds_of_advice(service, customer.account_id) == set()


async def test_a_fresh_account(service: BillingUnderTest, customer: Customer) -> None:
    forecast = (await service.usage.GetForecast(pb.GetForecastRequest(), metadata=customer.metadata)).forecast
    assert forecast.method == pb.FORECAST_METHOD_SO_FAR
    assert forecast.projected_sessions == 0
    analysis = await service.usage.AnalyzeCosts(pb.AnalyzeCostsRequest(), metadata=customer.metadata)
    assert list(analysis.cost_analysis.items) == []
    assert not analysis.cost_analysis.HasField("other_items_totals")
    assert list(analysis.cost_analysis.recommendations) == [], "nothing is known yet of what would have fitted"


def usd(whole: int) -> Money:
    return Money(currency_code="USD", units=whole)


async def published(
    service: BillingUnderTest, customer: Customer, sessions: int, model: str
) -> dict[tuple[str, int], pb.CostEstimate]:
    """Estimates by the price table of the published comparison, by plan or offer and credential mode."""
    request = pb.EstimateCostRequest(
        sessions_per_month=sessions, provider="openai", model=model, price_table="seed-example"
    )
    found = await service.usage.EstimateCost(request, metadata=customer.metadata)
    assert (found.tokens_per_session, found.output_tokens_per_session) == (7_500, 1_875)
    return {(one.offer_id or one.plan_id, one.credential_mode): one for one in found.estimates}


async def test_every_number_of_the_published_comparison(service: BillingUnderTest, customer: Customer) -> None:
    # "Simple Chatbot (1,000 sessions/month)". Managed: "FlowStack: $50/month, AI Costs: Included, Total: $50/month".
    chatbot = await published(service, customer, 1_000, "gpt-4")
    managed = chatbot["starter", MANAGED]
    assert (managed.platform_fee, managed.provider_cost, managed.total, managed.total_high) == (
        usd(50), usd(0), usd(50), usd(50))  # fmt: skip
    # "FlowStack: $0/month (if under 25 sessions) or $50/month, OpenAI GPT-4: ~$75/month, Total: $75-125/month".
    byok = chatbot["starter", BYOK]
    assert (byok.platform_fee, byok.provider_cost, byok.provider_cost_high) == (usd(50), usd(75), usd(75))
    assert (byok.total, byok.total_high) == (usd(125), usd(125))
    # The page's $75 are the provider's part without a fee: nobody gets 1,000 sessions for $0, because the free plan
    # ends at 25, where the provider's part is a fortieth of that.
    assert not any(name == "free" for name, _ in chatbot)
    free = (await published(service, customer, 25, "gpt-4"))["free", BYOK]
    assert (free.platform_fee, free.session_limit) == (usd(0), 25)
    assert free.total == Money(currency_code="USD", units=1, nanos=875_000_000)
    # "FlowStack: $50/month, OpenAI GPT-3.5: ~$15/month, Total: $65/month"; the page's code calls it gpt-3.5-turbo, at
    # "~$0.002 per 1K tokens", which is the same price.
    for model in ("gpt-3.5", "gpt-3.5-turbo"):
        cheap = (await published(service, customer, 1_000, model))["starter", BYOK]
        assert (cheap.platform_fee, cheap.provider_cost, cheap.total, cheap.total_high) == (
            usd(50), usd(15), usd(65), usd(65))  # fmt: skip
    # "High-Volume Application (10,000 sessions/month)". The $99 are no plan's price: they are the public offer.
    volume = await published(service, customer, 10_000, "gpt-4o")
    assert set(volume) == {("volume-10k", MANAGED), ("volume-10k", BYOK)}
    managed, byok = volume["volume-10k", MANAGED], volume["volume-10k", BYOK]
    assert (managed.platform_fee, managed.total, managed.total_high) == (usd(99), usd(99), usd(99))
    # "FlowStack: $99/month, AI Provider: $300-800/month, Total: $399-899/month", for "any model".
    assert (byok.platform_fee, byok.provider_cost, byok.provider_cost_high) == (usd(99), usd(300), usd(800))
    assert (byok.total, byok.total_high) == (usd(399), usd(899))


async def test_current_prices_and_unknown_ones(service: BillingUnderTest, customer: Customer) -> None:
    request = pb.EstimateCostRequest(
        sessions_per_month=1_000, provider="openai", model="gpt-4o-mini", output_tokens_per_session=0
    )
    found = await service.usage.EstimateCost(request, metadata=customer.metadata)
    byok = [one for one in found.estimates if one.credential_mode == BYOK and one.plan_id == "starter"]
    # 7,500,000 tokens at $0.15 a million.
    assert (byok[0].provider_cost.units, byok[0].provider_cost.nanos) == (1, 125_000_000)
    assert found.price_table_version.startswith("genai-prices-")
    request.model = "no-such-model"
    unknown = await service.usage.EstimateCost(request, metadata=customer.metadata)
    assert not any(one.HasField("total") for one in unknown.estimates if one.credential_mode == BYOK)


@pytest.mark.parametrize(
    ("provider", "name", "served", "dollars"),
    [
        # 7,500,000 tokens, all of them prompts.
        ("anthropic", "claude-3-opus", "claude-opus-4-5-20251101", "37.5"),
        ("anthropic", "default", "claude-sonnet-4-5-20250929", "22.5"),
        ("bedrock", "claude-3-sonnet", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "22.5"),
        ("bedrock", "nova-pro", "us.amazon.nova-pro-v1:0", "6"),
        ("openai", "default", "gpt-4o", "18.75"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "18.75"),
        ("openai", "no-such-model", "no-such-model", None),
    ],
)
async def test_an_estimate_is_of_the_model_that_would_run(
    service: BillingUnderTest, customer: Customer, *, provider: str, name: str, served: str, dollars: str | None
) -> None:
    request = pb.EstimateCostRequest(
        sessions_per_month=1_000, provider=provider, model=name, output_tokens_per_session=0
    )
    found = await service.usage.EstimateCost(request, metadata=customer.metadata)
    assert found.served_model == served
    byok = next(one for one in found.estimates if one.credential_mode == BYOK)
    cost = byok.provider_cost
    known = Decimal(cost.units) + Decimal(cost.nanos) / 10**9 if byok.HasField("provider_cost") else None
    assert known == (None if dollars is None else Decimal(dollars))


async def test_prices_of_the_operators_list_are_taken_where_no_others_are_known(
    tmp_path: Path, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(OPERATORS)
    async with billing(settings_for(tmp_path, quota.address, providers_file=file), clock) as service:
        customer = await service.new_customer("starter")
        found = {}
        for provider, model in (("vllm", "default"), ("openai", "omni")):
            request = pb.EstimateCostRequest(
                sessions_per_month=1_000, provider=provider, model=model, output_tokens_per_session=0
            )
            answer = await service.usage.EstimateCost(request, metadata=customer.metadata)
            byok = next(one for one in answer.estimates if one.credential_mode == BYOK)
            found[model] = (answer.served_model, byok.provider_cost.units, answer.price_table_version)
            assert answer.HasField("price_time") is (model == "omni")
    assert found["default"] == ("llama-3", 15, "providers-file")
    # Sessions are priced by the price table, not by what the list shows.
    assert found["omni"][:2] == ("gpt-4o", 18)
    assert found["omni"][2].startswith("genai-prices-")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"price_table": "nobodys"}, "PRICE_TABLE_NOT_FOUND"),
        ({"sessions_per_month": 0}, "INVALID_REQUEST"),
        ({"sessions_per_month": -1}, "INVALID_REQUEST"),
        ({"model": ""}, "INVALID_REQUEST"),
        ({"output_tokens_per_session": 7_501}, "INVALID_REQUEST"),
        ({"tokens_per_session": 10, "output_tokens_per_session": 11}, "INVALID_REQUEST"),
    ],
)
async def test_bad_estimates(service: BillingUnderTest, customer: Customer, fields: Any, reason: str) -> None:
    values = {"sessions_per_month": 1, "provider": "openai", "model": "gpt-4o"} | fields
    call = service.usage.EstimateCost(pb.EstimateCostRequest(**values), metadata=customer.metadata)
    assert await reason_of(call) == reason
