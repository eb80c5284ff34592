"""Helpers for usage and costs: import them instead of writing them.

    from flowstack.billing import estimate_monthly_cost, is_expired, send_slack_alert

Those that need an account speak of the agent whose tool is running, else of the one made last, unless `agent=` names
one. They block, also for an AsyncAgent: a few milliseconds each. Each can raise FlowStackError; none costs a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from flowstack import _account, _advice, _current, _notices
from flowstack._advice import Complexity
from flowstack._client import Client
from flowstack._errors import NotFoundError
from flowstack._methods import UsageService
from flowstack._notices import AlertInfo
from flowstack._values import Usage, dollars, usage_from

if TYPE_CHECKING:
    from flowstack._agent import Agent
    from flowstack._async_agent import AsyncAgent

    AnyAgent = Agent | AsyncAgent

__all__ = [
    "analyze_task_complexity",
    "calculate_days_remaining",
    "calculate_downgrade_savings",
    "calculate_managed_savings",
    "estimate_monthly_cost",
    "get_next_billing_cycle_date",
    "is_expired",
    "parse_batch_response",
    "project_monthly_usage",
    "send_slack_alert",
    "send_usage_alert",
]


def is_expired(document: Mapping[str, Any]) -> bool:
    """True when a document's `expires_at` has passed; see `_advice.expired`.

    Raises:
        ValueError: `expires_at` is no time.
    """
    return _advice.expired(document, datetime.now(UTC))


def analyze_task_complexity(task: str) -> Complexity:
    """How demanding a task looks, `simple`, `medium` or `complex`: a rule of thumb; see `_advice.task_complexity`."""
    return _advice.task_complexity(task)


def parse_batch_response(response: str, count: int) -> list[str]:
    """The answers to `count` numbered requests, empty where there is none; see `_advice.split_batch`."""
    return _advice.split_batch(str(response), count)


def estimate_monthly_cost(usage: Usage) -> float:
    """Dollars that the period will have cost: what was invoiced and the projected provider cost of BYOK sessions."""
    return usage.estimated_monthly_cost


def calculate_days_remaining(agent: AnyAgent | None = None) -> int:
    """Days until the period ends, rounded up."""
    return _usage(agent).days_left


def get_next_billing_cycle_date(agent: AnyAgent | None = None) -> datetime:
    """When the counts start at zero and the next fee is due, in UTC."""
    return _usage(agent).period_end


def project_monthly_usage(history: Sequence[Mapping[str, Any]], agent: AnyAgent | None = None) -> int:
    """Sessions at the period's end if they go on as in these snapshots; see `_advice.project_sessions`."""
    usage = _usage(agent)
    return _advice.project_sessions(
        history, usage.sessions_used, usage.period_start, usage.period_end, datetime.now(UTC)
    )


def calculate_managed_savings(byok_sessions: int, agent: AnyAgent | None = None) -> float | None:
    """Dollars that this many BYOK sessions of the period cost at providers: what managed access would have saved.

    None where the cost of a session among them is not known: unknown is not free.
    """
    analysis = _client(agent).call(UsageService.AnalyzeCosts, pb.AnalyzeCostsRequest()).cost_analysis
    if analysis.unpriced_sessions:
        return None
    return _advice.share(dollars(analysis.provider_cost), byok_sessions, analysis.byok_sessions)


def calculate_downgrade_savings(tier: str, agent: AnyAgent | None = None) -> float:
    """Dollars a month that the cheapest plan saves which this period's sessions would have fitted.

    Raises:
        NotFoundError: there is no such plan on sale.
    """
    usage = _usage(agent)
    on_sale = [plan for plan in _client(agent).run(_account.plans()) if plan.HasField("price")]
    price = next((dollars(plan.price) for plan in on_sale if plan.plan_id == tier), None)
    if tier == usage.tier and price is None:  # a contract sets it
        price = float(_client(agent).run(_account.tier_info())["price"])
    if price is None:
        known = ", ".join(plan.plan_id for plan in on_sale)
        raise NotFoundError(
            f"There is no plan {tier} on sale. Plans: {known}.", code="NOT_FOUND", reason="PLAN_NOT_FOUND"
        )
    # Managed sessions would not run on a plan that requires keys of one's own.
    fitting = [plan for plan in on_sale if plan.managed_providers or not usage.managed_sessions]
    plans = [(dollars(plan.price), plan.session_limit) for plan in fitting]
    return _advice.downgrade_saving(price, usage.sessions_used, plans)


def send_slack_alert(message: str, agent: AnyAgent | None = None) -> AlertInfo:
    """Sends a text to the account's webhooks in Slack's form; without one, to whatever sinks it has.

    Make one with `agent.alerts.create_webhook(url, format="slack")`.
    """
    return _client(agent).run(_notices.slack_alert(message))


def send_usage_alert(alert: Mapping[str, Any], agent: AnyAgent | None = None) -> AlertInfo:
    """Sends an alert to the account's sinks: its `message`, with the whole of it as data."""
    message = str(alert.get("message") or "Usage alert")
    return _client(agent).run(_notices.send(message, "warning", alert, (), None))


def _client(agent: AnyAgent | None) -> Client:
    core = agent._core if agent is not None else _current.current()  # noqa: SLF001, RUF100  # the SDK's own
    return core.blocking()


def _usage(agent: AnyAgent | None) -> Usage:
    return usage_from(_client(agent).call(UsageService.GetUsage, pb.GetUsageRequest()).usage)
