"""The fake's billing: usage, plans and alerts of the in-memory accounts."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import budget_pb2, plan_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from flowstack_protos.type.v1 import type_pb2 as t
from google.type.money_pb2 import Money

from flowstack.testing._quota import DAY, PLANS, Account, Plan
from flowstack.testing._refusal import Refusal

THRESHOLDS: Final = (75, 90, 95)


class FakeUsage:
    """UsageService, as far as agents and helpers ask."""

    async def GetUsage(self, account: Account, _request: usage.GetUsageRequest) -> usage.GetUsageResponse:
        """The usage, live."""
        quota = account.quota()
        now = datetime.now(UTC)
        found = usage.Usage(
            account_id=account.account_id,
            plan_id=quota.plan_id,
            sessions_used=quota.sessions_committed,
            sessions_used_today=quota.sessions_committed,
            sessions_reserved=quota.sessions_reserved,
            sessions_limit=quota.session_limit,
            sessions_remaining=quota.sessions_remaining,
            usage_percentage=_percentage(account),
            is_near_limit=_percentage(account) >= 80,
            can_make_requests=quota.sessions_available,
            refusal_reason=quota.refusal_reason,
            can_use_managed=bool(quota.managed_providers),
            managed_sessions=quota.managed_sessions,
            byok_sessions=quota.byok_sessions,
            unpriced_sessions=quota.byok_sessions,
            current_charges=_money(account.charged),
            estimated_monthly_cost=_money(account.charged),
            days_left=max(0, math.ceil((account.end - now) / DAY)),
        )
        found.period_start_time.FromDatetime(account.start)
        found.period_end_time.FromDatetime(account.end)
        found.costs_as_of_time.FromDatetime(now)
        settings = _settings(account)
        if settings.HasField("budget"):
            limit = settings.budget.max_monthly_cost.units + settings.budget.max_monthly_cost.nanos / 1e9
            found.budget.budget.CopyFrom(settings.budget)
            found.budget.spent.CopyFrom(_money(account.charged))
            found.budget.remaining.CopyFrom(_money(max(0.0, limit - account.charged)))
            found.budget.exceeded = account.charged > limit
            found.budget.blocking = account.blocked
        return usage.GetUsageResponse(usage=found)

    async def AnalyzeCosts(self, account: Account, _request: usage.AnalyzeCostsRequest) -> usage.AnalyzeCostsResponse:
        """The period's costs; those of providers are unknown to a fake."""
        quota = account.quota()
        analysis = usage.CostAnalysis(
            account_id=account.account_id,
            plan_id=quota.plan_id,
            usage_percentage=_percentage(account),
            managed_sessions=quota.managed_sessions,
            byok_sessions=quota.byok_sessions,
            unpriced_sessions=quota.byok_sessions,
            current_charges=_money(account.charged),
            provider_cost=_money(0),
            estimated_monthly_cost=_money(account.charged),
        )
        return usage.AnalyzeCostsResponse(cost_analysis=analysis)


class FakeSubscriptions:
    """SubscriptionService, without contracts."""

    async def ListPlans(
        self, _account: Account, _request: subscriptions.ListPlansRequest
    ) -> subscriptions.ListPlansResponse:
        """The plans, by price."""
        return subscriptions.ListPlansResponse(plans=[_plan(plan) for plan in PLANS.values()])

    async def GetSubscription(
        self, account: Account, _request: subscriptions.GetSubscriptionRequest
    ) -> subscriptions.GetSubscriptionResponse:
        """The subscription."""
        return subscriptions.GetSubscriptionResponse(subscription=_subscription(account), plan=_plan(account.plan))

    async def ChangePlan(
        self, account: Account, request: subscriptions.ChangePlanRequest
    ) -> subscriptions.ChangePlanResponse:
        """Upgrades at once; a downgrade waits for the next period."""
        if request.plan_id not in PLANS:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND", f"Plans on sale: {', '.join(PLANS)}.")
        account.change_plan(PLANS[request.plan_id])
        return subscriptions.ChangePlanResponse(subscription=_subscription(account), entitlement_applied=True)

    async def CancelSubscription(
        self, account: Account, _request: subscriptions.CancelSubscriptionRequest
    ) -> subscriptions.CancelSubscriptionResponse:
        """Ends with the period."""
        account.cancelling, account.pending = True, None
        return subscriptions.CancelSubscriptionResponse(subscription=_subscription(account), entitlement_applied=True)

    async def RevertPendingChange(
        self, account: Account, _request: subscriptions.RevertPendingChangeRequest
    ) -> subscriptions.RevertPendingChangeResponse:
        """Drops what is pending."""
        if not account.cancelling and account.pending is None:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "NO_PENDING_CHANGE", "There is no pending change.")
        account.cancelling, account.pending = False, None
        return subscriptions.RevertPendingChangeResponse(subscription=_subscription(account), entitlement_applied=True)


class FakeAlerts:
    """AlertService without deliveries: what was sent stands in ListAlerts."""

    async def GetAlertSettings(
        self, account: Account, _request: alerts.GetAlertSettingsRequest
    ) -> alerts.GetAlertSettingsResponse:
        """The settings."""
        return alerts.GetAlertSettingsResponse(alert_settings=_settings(account))

    async def UpdateAlertSettings(
        self, account: Account, request: alerts.UpdateAlertSettingsRequest
    ) -> alerts.UpdateAlertSettingsResponse:
        """Changes what the mask names; a budget that blocks does so at once."""
        settings = _settings(account)
        for path in request.update_mask.paths:
            settings.ClearField(path)  # type: ignore[arg-type]  # one of the mask's three
            if path == "budget" and request.alert_settings.HasField("budget"):
                settings.budget.CopyFrom(request.alert_settings.budget)
            elif path != "budget":
                getattr(settings, path).extend(getattr(request.alert_settings, path))
        limit = settings.budget.max_monthly_cost.units + settings.budget.max_monthly_cost.nanos / 1e9
        blocks = settings.HasField("budget") and settings.budget.action == budget_pb2.BUDGET_ACTION_BLOCK
        account.blocked = blocks and account.charged > limit
        return alerts.UpdateAlertSettingsResponse(alert_settings=settings, entitlement_applied=True)

    async def SendAlert(self, account: Account, request: alerts.SendAlertRequest) -> alerts.SendAlertResponse:
        """Sends an alert, once for each request_id."""
        if request.request_id and request.request_id in account.noted:
            return alerts.SendAlertResponse(alert=account.noted[request.request_id])
        sinks = list(request.webhook_ids) or [sink.webhook_id for sink in _settings(account).sinks]
        alert = alerts.Alert(
            alert_id=f"alert_{uuid.uuid4().hex}",
            account_id=account.account_id,
            kind=alerts.ALERT_KIND_CUSTOM,
            severity=request.severity or alerts.ALERT_SEVERITY_WARNING,
            message=request.message,
            data_json=request.data_json,
            deliveries=[
                alerts.AlertDelivery(webhook_id=_webhook(account, one).webhook_id, state=alerts.DELIVERY_STATE_PENDING)
                for one in sinks
            ],
        )
        alert.create_time.FromDatetime(datetime.now(UTC))
        account.alerts.insert(0, alert)
        account.noted[request.request_id] = alert
        return alerts.SendAlertResponse(alert=alert)

    async def ListAlerts(self, account: Account, request: alerts.ListAlertsRequest) -> alerts.ListAlertsResponse:
        """The alerts, newest first."""
        start, size = int(request.page_token or 0), request.page_size or 50
        more = len(account.alerts) > start + size
        page = account.alerts[start : start + size]
        return alerts.ListAlertsResponse(alerts=page, next_page_token=str(start + size) if more else "")

    async def CreateWebhook(
        self, account: Account, request: alerts.CreateWebhookRequest
    ) -> alerts.CreateWebhookResponse:
        """Makes a webhook; nothing is ever sent to it."""
        kind = request.format or alerts.WEBHOOK_FORMAT_STANDARD
        webhook = alerts.Webhook(
            webhook_id=f"wh_{uuid.uuid4().hex}",
            account_id=account.account_id,
            display_name=request.display_name,
            redacted_url=request.url.split("?")[0],
            format=kind,
        )
        account.webhooks.insert(0, webhook)
        secret = "" if kind == alerts.WEBHOOK_FORMAT_SLACK else f"whsec_{uuid.uuid4().hex}"
        return alerts.CreateWebhookResponse(webhook=webhook, secret=secret)

    async def ListWebhooks(self, account: Account, _request: alerts.ListWebhooksRequest) -> alerts.ListWebhooksResponse:
        """The webhooks, newest first."""
        return alerts.ListWebhooksResponse(webhooks=account.webhooks)

    async def DeleteWebhook(
        self, account: Account, request: alerts.DeleteWebhookRequest
    ) -> alerts.DeleteWebhookResponse:
        """Deletes a webhook and takes it out of the sinks."""
        account.webhooks.remove(_webhook(account, request.webhook_id))
        settings = _settings(account)
        kept = [sink for sink in settings.sinks if sink.webhook_id != request.webhook_id]
        settings.ClearField("sinks")
        settings.sinks.extend(kept)
        return alerts.DeleteWebhookResponse()


def _webhook(account: Account, webhook_id: str) -> Any:
    found = next((one for one in account.webhooks if one.webhook_id == webhook_id), None)
    if found is None:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND", "There is no such webhook.")
    return found


def _settings(account: Account) -> alerts.AlertSettings:
    if account.settings is None:
        account.settings = alerts.AlertSettings(account_id=account.account_id, thresholds=THRESHOLDS)
    settings: alerts.AlertSettings = account.settings
    return settings


def _percentage(account: Account) -> float:
    return 100 * account.count(t.SESSION_STATE_COMMITTED) / account.plan.session_limit


def _money(dollars: float) -> Money:
    return Money(currency_code="USD", units=int(dollars), nanos=round(dollars % 1 * 1_000_000) * 1000)


def _plan(plan: Plan) -> plan_pb2.Plan:
    required = plan_pb2.BYOK_REQUIREMENT_OPTIONAL if plan.managed else plan_pb2.BYOK_REQUIREMENT_REQUIRED
    return plan_pb2.Plan(
        plan_id=plan.plan_id,
        version=1,
        display_name=plan.plan_id.capitalize(),
        price=_money(plan.price),
        session_limit=plan.session_limit,
        managed_providers=plan.managed,
        byok_requirement=required,
        max_concurrent_sessions=plan.concurrent,
    )


def _terms(plan: Plan) -> subscriptions.SubscriptionTerms:
    return subscriptions.SubscriptionTerms(
        plan_id=plan.plan_id,
        plan_version=1,
        price=_money(plan.price),
        session_limit=plan.session_limit,
        managed_providers=plan.managed,
        max_concurrent_sessions=plan.concurrent,
    )


def _subscription(account: Account) -> subscriptions.Subscription:
    state = subscriptions.SUBSCRIPTION_STATE_ACTIVE
    if account.cancelling:
        state = subscriptions.SUBSCRIPTION_STATE_CANCELLING
    if account.ended:
        state = subscriptions.SUBSCRIPTION_STATE_ENDED
    found = subscriptions.Subscription(
        account_id=account.account_id,
        state=state,
        plan_id=account.plan.plan_id,
        plan_version=1,
        terms=_terms(account.plan),
        entitlement_applied=True,
    )
    found.period_start_time.FromDatetime(account.start)
    found.period_end_time.FromDatetime(account.end)
    if account.pending:
        found.pending_change.to_terms.CopyFrom(_terms(account.pending))
    return found
