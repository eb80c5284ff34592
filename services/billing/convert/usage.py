"""Usage."""

from __future__ import annotations

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from services.billing.convert.alerts import standing_to_proto
from services.billing.convert.money import money_to_proto
from services.billing.domain.usage import Usage
from services.shared.times import time_to_proto


def usage_to_proto(usage: Usage) -> pb.Usage:
    """Domain to Usage."""
    quota = usage.quota
    return pb.Usage(
        account_id=usage.account_id,
        plan_id=quota.plan_id,
        period_start_time=time_to_proto(quota.period_start_us),
        period_end_time=time_to_proto(quota.period_end_us),
        sessions_used=quota.sessions_committed,
        sessions_used_today=usage.sessions_used_today,
        sessions_reserved=quota.sessions_reserved,
        sessions_limit=quota.session_limit,
        sessions_remaining=quota.sessions_remaining,
        usage_percentage=usage.usage_percentage,
        is_near_limit=usage.is_near_limit,
        can_make_requests=quota.sessions_available,
        refusal_reason=quota.refusal_reason,
        can_use_managed=usage.can_use_managed,
        managed_sessions=quota.managed_sessions,
        byok_sessions=quota.byok_sessions,
        current_charges=money_to_proto(usage.current_charges_micro),
        estimated_monthly_cost=money_to_proto(usage.estimated_monthly_cost_micro),
        costs_as_of_time=time_to_proto(usage.costs_as_of_us),
        # `budget` is filled where budgets are kept.
        days_left=usage.days_left,
        unpriced_sessions=usage.unpriced_sessions,
        budget=None if usage.budget is None else standing_to_proto(usage.budget),
    )
