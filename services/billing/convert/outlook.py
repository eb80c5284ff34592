"""Forecasts, analyses and estimates."""

from __future__ import annotations

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from google.type import money_pb2

from services.billing.convert.money import money_to_proto
from services.billing.convert.usage_history import totals_to_proto
from services.billing.domain.advice import Recommendation
from services.billing.domain.estimates import Estimate
from services.billing.domain.forecast import ForecastPoint
from services.billing.domain.forecast_model import COVERAGE
from services.billing.domain.usage import days_left, percentage
from services.billing.domain.usage_query import CostItem
from services.billing.service.outlook import CostAnalysis, CostEstimates, Outlook
from services.shared.times import optional_time_to_proto, time_to_proto

INT32_MAX = 2**31 - 1


def forecast_to_proto(outlook: Outlook, now_us: int) -> pb.Forecast:
    """Domain to Forecast."""
    quota, projection = outlook.quota, outlook.projection
    cost, cost_low, cost_high = map(money_to_proto, outlook.costs_micro)
    return pb.Forecast(
        account_id=outlook.account_id,
        period_start_time=time_to_proto(quota.period_start_us),
        period_end_time=time_to_proto(quota.period_end_us),
        as_of_time=time_to_proto(outlook.as_of_us),
        method=int(projection.method),  # type: ignore[arg-type]  # the numbers are the contract's
        history_days=projection.history_days,
        range_coverage=COVERAGE,
        sessions_used=quota.sessions_committed,
        sessions_limit=quota.session_limit,
        projected_sessions=_count(projection.sessions),
        projected_sessions_low=_count(projection.low),
        projected_sessions_high=_count(projection.high),
        projected_usage_percentage=percentage(projection.sessions, quota.session_limit),
        projected_cost=cost,
        projected_cost_low=cost_low,
        projected_cost_high=cost_high,
        unpriced_sessions=outlook.provider_cost.unpriced_sessions,
        days_left=days_left(quota.period_end_us, now_us),
        limit_reach_time=optional_time_to_proto(projection.limit_reach_us),
        points=map(_point_to_proto, projection.points),
    )


def _point_to_proto(point: ForecastPoint) -> pb.ForecastPoint:
    return pb.ForecastPoint(
        end_time=time_to_proto(point.end_us),
        sessions=_count(point.sessions),
        sessions_low=_count(point.low),
        sessions_high=_count(point.high),
        actual=point.actual,
    )


def _count(value: int) -> int:
    """A projection from a few minutes may be more than the field takes."""
    return min(value, INT32_MAX)


def analysis_to_proto(analysis: CostAnalysis) -> pb.CostAnalysis:
    """Domain to CostAnalysis."""
    outlook = analysis.outlook
    quota = outlook.quota
    return pb.CostAnalysis(
        account_id=outlook.account_id,
        plan_id=quota.plan_id,
        period_start_time=time_to_proto(quota.period_start_us),
        period_end_time=time_to_proto(quota.period_end_us),
        as_of_time=time_to_proto(outlook.as_of_us),
        usage_percentage=analysis.usage_percentage,
        managed_sessions=quota.managed_sessions,
        byok_sessions=quota.byok_sessions,
        current_charges=money_to_proto(outlook.charges_micro),
        provider_cost=money_to_proto(outlook.provider_cost.known_micro),
        unpriced_sessions=outlook.provider_cost.unpriced_sessions,
        estimated_monthly_cost=money_to_proto(outlook.costs_micro[0]),
        items=map(_item_to_proto, analysis.items.items),
        recommendations=map(_recommendation_to_proto, analysis.recommendations),
        other_items=analysis.items.others,
        other_items_totals=totals_to_proto(analysis.items.others_totals) if analysis.items.others else None,
    )


def _item_to_proto(item: CostItem) -> pb.CostItem:
    return pb.CostItem(
        provider=item.provider,
        model=item.model,
        credential_mode=item.credential_mode,  # type: ignore[arg-type]
        totals=totals_to_proto(item.totals),
    )


def _recommendation_to_proto(one: Recommendation) -> pb.Recommendation:
    return pb.Recommendation(
        kind=int(one.kind),  # type: ignore[arg-type]
        message=one.message,
        current_plan_id=one.current_plan_id,
        suggested_plan_id=one.suggested_plan_id,
        potential_savings=_optional_money(one.savings_micro),
        current_price=_optional_money(one.current_price_micro),
        suggested_price=_optional_money(one.suggested_price_micro),
        sessions_used=one.sessions_used,
        sessions_limit=one.sessions_limit,
        suggested_sessions_limit=one.suggested_sessions_limit,
        usage_percentage=one.usage_percentage,
        projected_sessions=_count(one.projected_sessions),
        projected_sessions_high=_count(one.projected_sessions_high),
        projected_usage_percentage=one.projected_usage_percentage,
        managed_sessions=one.managed_sessions,
        byok_sessions=one.byok_sessions,
        byok_provider_cost=_optional_money(one.byok_provider_cost_micro),
    )


def estimates_to_proto(found: CostEstimates) -> pb.EstimateCostResponse:
    """Domain to EstimateCostResponse."""
    return pb.EstimateCostResponse(
        estimates=map(_estimate_to_proto, found.estimates),
        tokens_per_session=found.workload.tokens,
        output_tokens_per_session=found.workload.output_tokens,
        price_table=found.price_table,
        price_table_version=found.price_table_version,
        price_time=optional_time_to_proto(found.price_us),
        served_model=found.served_model,
    )


def _estimate_to_proto(estimate: Estimate) -> pb.CostEstimate:
    return pb.CostEstimate(
        plan_id=estimate.plan_id,
        offer_id=estimate.offer_id,
        session_limit=estimate.session_limit,
        credential_mode=int(estimate.credential_mode),  # type: ignore[arg-type]
        platform_fee=money_to_proto(estimate.fee_micro),
        provider_cost=_optional_money(estimate.provider_cost.low_micro),
        provider_cost_high=_optional_money(estimate.provider_cost.high_micro),
        total=_optional_money(estimate.total.low_micro),
        total_high=_optional_money(estimate.total.high_micro),
    )


def _optional_money(micro: int | None) -> money_pb2.Money | None:
    return None if micro is None else money_to_proto(micro)
