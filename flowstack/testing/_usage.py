"""UsageService of the fake: live usage, forecast and cost analysis. What was is in `_history`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2 as types

from flowstack.testing import _watching as watching
from flowstack.testing._advice import projected_micro, recommendations
from flowstack.testing._calls import Call
from flowstack.testing._plans import micro_of, money
from flowstack.testing._quota import Session
from flowstack.testing._records import Account
from flowstack.testing._sums import add, nothing
from flowstack.testing._time import DAY_US, Period, timestamp
from flowstack.testing._world import World

NEAR_LIMIT_PERCENT: Final = 80


class UsageReader:
    """The methods of UsageService about the present and the future."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get_usage(self, call: Call, _: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """Where the account stands in its period."""
        with self._world.lock:
            return pb.GetUsageResponse(usage=self._usage(self._world.account(call.account_id)))

    def watch_usage(self, call: Call, _: pb.WatchUsageRequest) -> Iterator[pb.WatchUsageResponse]:
        """The usage at once, and after each change."""
        world = self._world
        watching.begin(world, call)
        told = None
        while True:
            with world.lock:
                while _counted(usage := self._usage(world.account(call.account_id))) == told:
                    if not watching.goes_on(world, call):
                        return
                told = _counted(usage)
            yield pb.WatchUsageResponse(usage=usage)

    def get_forecast(self, call: Call, _: pb.GetForecastRequest) -> pb.GetForecastResponse:
        """The mean of the period's days so far, carried on to its end."""
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            usage = self._usage(account)
            period = account.subscription.period(now_us)
            cost_micro = account.book.counts(period).cost_micro
        days, projected = _projected(period, now_us, usage.sessions_used)
        left_us, used = max(0, period.end_us - now_us), usage.sessions_used
        most_likely, low = (
            money(micro_of(usage.current_charges) + projected_micro(cost_micro, used, sessions))
            for sessions in (projected, used)
        )
        forecast = pb.Forecast(
            account_id=account.account_id,
            period_start_time=usage.period_start_time,
            period_end_time=usage.period_end_time,
            as_of_time=timestamp(now_us),
            method=pb.FORECAST_METHOD_SO_FAR if days < 2 else pb.FORECAST_METHOD_DAILY_MEAN,
            history_days=days,
            sessions_used=used,
            sessions_limit=usage.sessions_limit,
            projected_sessions=projected,
            projected_sessions_low=used,
            projected_sessions_high=projected,
            projected_usage_percentage=_percentage(projected, usage.sessions_limit),
            projected_cost=most_likely,
            projected_cost_low=low,
            projected_cost_high=most_likely,
            unpriced_sessions=usage.unpriced_sessions,
            days_left=usage.days_left,
        )
        if used >= usage.sessions_limit:
            forecast.limit_reach_time.CopyFrom(timestamp(now_us))
        elif projected > usage.sessions_limit:
            to_go = (usage.sessions_limit - used) / (projected - used)
            forecast.limit_reach_time.CopyFrom(timestamp(now_us + round(left_us * to_go)))
        return pb.GetForecastResponse(forecast=forecast)

    def analyze_costs(self, call: Call, _: pb.AnalyzeCostsRequest) -> pb.AnalyzeCostsResponse:
        """The period's costs by provider, model and credentials, and what to do about them."""
        forecast = self.get_forecast(call, pb.GetForecastRequest()).forecast
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            usage = self._usage(account)
            period = account.subscription.period(now_us)
            cost_micro = account.book.counts(period).cost_micro
            items = _items(one for one in account.book.sessions.values() if one.period_start_us == period.start_us)
        analysis = pb.CostAnalysis(
            account_id=account.account_id,
            plan_id=usage.plan_id,
            period_start_time=usage.period_start_time,
            period_end_time=usage.period_end_time,
            as_of_time=timestamp(now_us),
            usage_percentage=usage.usage_percentage,
            managed_sessions=usage.managed_sessions,
            byok_sessions=usage.byok_sessions,
            current_charges=usage.current_charges,
            provider_cost=money(cost_micro),
            unpriced_sessions=usage.unpriced_sessions,
            estimated_monthly_cost=usage.estimated_monthly_cost,
            items=items,
            recommendations=recommendations(account.subscription, usage, forecast, cost_micro),
        )
        return pb.AnalyzeCostsResponse(cost_analysis=analysis)

    def _usage(self, account: Account) -> pb.Usage:
        now_us = self._world.clock.now_us()
        grant = account.grant(now_us)
        quota = account.book.quota(grant)
        used, limit = quota.sessions_committed, quota.session_limit
        charges_micro, counts = account.charges_micro(now_us), account.book.counts(grant.period)
        _, projected = _projected(grant.period, now_us, used)
        day_us = now_us - now_us % DAY_US
        today = sum(
            one.state == types.SESSION_STATE_COMMITTED and one.reserve_us >= day_us
            for one in account.book.sessions.values()
        )
        return pb.Usage(
            account_id=account.account_id,
            plan_id=quota.plan_id,
            period_start_time=quota.period_start_time,
            period_end_time=quota.period_end_time,
            sessions_used=used,
            sessions_used_today=today,
            sessions_reserved=quota.sessions_reserved,
            sessions_limit=limit,
            sessions_remaining=quota.sessions_remaining,
            usage_percentage=_percentage(used, limit),
            is_near_limit=limit > 0 and used * 100 >= limit * NEAR_LIMIT_PERCENT,
            can_make_requests=quota.sessions_available,
            refusal_reason=quota.refusal_reason,
            can_use_managed=bool(quota.managed_providers),
            managed_sessions=quota.managed_sessions,
            byok_sessions=quota.byok_sessions,
            current_charges=money(charges_micro),
            estimated_monthly_cost=money(charges_micro + projected_micro(counts.cost_micro, used, projected)),
            costs_as_of_time=timestamp(now_us),
            budget=account.budget_status(now_us),
            days_left=max(0, -((now_us - grant.period.end_us) // DAY_US)),
            unpriced_sessions=counts.unpriced,
        )


def _counted(usage: pb.Usage) -> bytes:
    """What of a usage is news: not the time at which it was read."""
    news = pb.Usage()
    news.CopyFrom(usage)
    news.ClearField("costs_as_of_time")
    return news.SerializeToString(deterministic=True)


def _percentage(used: int, limit: int) -> float:
    return 100 * used / limit if limit else 0.0


def _projected(period: Period, now_us: int, used: int) -> tuple[int, int]:
    """Of how many days the period has been, and how many sessions will be used at its end."""
    days, passed_us = max(1, -(-(now_us - period.start_us) // DAY_US)), max(DAY_US, now_us - period.start_us)
    left_us = max(0, period.end_us - now_us)
    return days, used if days < 2 else used + round(used * left_us / passed_us)


def _items(sessions: Iterable[Session]) -> list[pb.CostItem]:
    """By provider, model and credentials, what costs most first."""
    items: dict[tuple[str, str, int], pb.CostItem] = {}
    for session in sessions:
        outcome = session.outcome
        if outcome is None:
            continue
        place = (outcome.served_provider, outcome.served_model, outcome.served_credential_mode)
        if place not in items:
            provider, model, mode = outcome.served_provider, outcome.served_model, outcome.served_credential_mode
            items[place] = pb.CostItem(provider=provider, model=model, credential_mode=mode, totals=nothing())
        add(items[place].totals, session)
    return sorted(items.values(), key=_order)


def _order(item: pb.CostItem) -> tuple[int, int, str, str, int]:
    return (
        -micro_of(item.totals.provider_cost),
        -item.totals.sessions_committed,
        item.provider,
        item.model,
        item.credential_mode,
    )
