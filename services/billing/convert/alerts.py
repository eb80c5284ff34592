"""Alerts, their settings, webhooks and deliveries."""

from __future__ import annotations

from collections.abc import Iterable

from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2

from services.billing.alert_store import AlertFilter
from services.billing.convert.money import micro_from_money, money_to_proto
from services.billing.domain.alerts import (
    AlertKind,
    AlertSettings,
    AlertSeverity,
    AlertSink,
    Budget,
    BudgetAction,
    BudgetStanding,
)
from services.billing.domain.webhooks import Delivery, DeliveryState, Webhook, WebhookFormat
from services.billing.service.alert_settings import SettingsChange, UpdatedSettings
from services.billing.service.alert_watching import WatchedAlert
from services.billing.service.alerts import AlertView, OwnAlert
from services.shared.times import optional_time_to_proto, time_to_proto, us_from_proto


def kinds_from_proto(kinds: Iterable[int]) -> tuple[AlertKind, ...]:
    """AlertKinds to domain."""
    return tuple(AlertKind(kind) for kind in kinds)


def change_from_proto(request: pb.UpdateAlertSettingsRequest, account_id: str) -> SettingsChange:
    """UpdateAlertSettingsRequest to domain."""
    wanted = request.alert_settings
    settings = AlertSettings(
        account_id,
        tuple(sorted(wanted.thresholds)),
        tuple(AlertSink(sink.webhook_id, kinds_from_proto(sink.kinds)) for sink in wanted.sinks),
        budget_from_proto(wanted.budget) if wanted.HasField("budget") else None,
    )
    return SettingsChange(account_id, settings, tuple(request.update_mask.paths), request.etag)


def budget_from_proto(budget: budget_pb2.Budget) -> Budget:
    """Budget to domain."""
    return Budget(micro_from_money(budget.max_monthly_cost), BudgetAction(budget.action))


def settings_to_proto(settings: AlertSettings) -> pb.AlertSettings:
    """Domain to AlertSettings."""
    return pb.AlertSettings(
        account_id=settings.account_id,
        thresholds=settings.thresholds,
        sinks=[
            pb.AlertSink(webhook_id=sink.webhook_id, kinds=[kind.value for kind in sink.kinds])  # type: ignore[misc]
            for sink in settings.sinks
        ],
        budget=None if settings.budget is None else budget_to_proto(settings.budget),
        update_time=optional_time_to_proto(settings.update_us),
        etag=settings.etag,
    )


def updated_to_proto(updated: UpdatedSettings) -> pb.UpdateAlertSettingsResponse:
    """Domain to UpdateAlertSettingsResponse."""
    return pb.UpdateAlertSettingsResponse(
        alert_settings=settings_to_proto(updated.settings), entitlement_applied=updated.applied
    )


def budget_to_proto(budget: Budget) -> budget_pb2.Budget:
    """Domain to Budget."""
    return budget_pb2.Budget(
        max_monthly_cost=money_to_proto(budget.max_micro),
        action=budget.action.value,  # type: ignore[arg-type]  # the numbers are the contract's
    )


def standing_to_proto(standing: BudgetStanding) -> budget_pb2.BudgetStatus:
    """Domain to BudgetStatus."""
    return budget_pb2.BudgetStatus(
        budget=budget_to_proto(standing.budget),
        spent=money_to_proto(standing.spent_micro),
        remaining=money_to_proto(max(0, standing.budget.max_micro - standing.spent_micro)),
        exceeded=standing.exceeded,
        exceed_time=optional_time_to_proto(standing.exceed_us),
        blocking=standing.blocking,
        unpriced_sessions=standing.unpriced,
    )


def delivery_to_proto(delivery: Delivery) -> pb.AlertDelivery:
    """Domain to AlertDelivery."""
    return pb.AlertDelivery(
        webhook_id=delivery.webhook_id,
        state=delivery.state.value,  # type: ignore[arg-type]  # as above
        attempt_count=delivery.attempts,
        last_attempt_time=optional_time_to_proto(delivery.last_attempt_us),
        next_attempt_time=optional_time_to_proto(delivery.next_attempt_us),
        deliver_time=optional_time_to_proto(delivery.deliver_us),
        last_failure=delivery.last_failure.value,  # type: ignore[arg-type]  # as above
        last_http_status=delivery.last_http_status or None,
    )


def view_to_proto(view: AlertView) -> pb.Alert:
    """Domain to Alert."""
    alert, deliveries = view
    message = pb.Alert(
        alert_id=alert.alert_id,
        account_id=alert.account_id,
        kind=alert.kind.value,  # type: ignore[arg-type]  # as above
        severity=alert.severity.value,  # type: ignore[arg-type]  # as above
        create_time=time_to_proto(alert.create_us),
        message=alert.message,
        data_json=alert.data_json,
        deliveries=map(delivery_to_proto, deliveries),
    )
    if alert.period is not None:
        message.period_start_time.CopyFrom(time_to_proto(alert.period.start_us))
        message.period_end_time.CopyFrom(time_to_proto(alert.period.end_us))
    if alert.kind is AlertKind.USAGE_THRESHOLD:
        message.threshold = alert.threshold
        message.sessions_used = alert.sessions_used
        message.sessions_limit = alert.sessions_limit
        message.sessions_remaining = alert.sessions_remaining
        message.usage_percentage = alert.usage_percentage
    if alert.budget is not None:
        message.budget.CopyFrom(standing_to_proto(alert.budget._replace(exceed_us=alert.create_us)))
    return message


def watched_to_proto(watched: WatchedAlert) -> pb.WatchAlertsResponse:
    """Domain to WatchAlertsResponse."""
    alert = None if watched.view is None else view_to_proto(watched.view)
    return pb.WatchAlertsResponse(alert=alert, resume_token=watched.resume_token)


def filter_from_proto(request: pb.ListAlertsRequest) -> AlertFilter:
    """The filters of a ListAlertsRequest."""
    return AlertFilter(
        kinds_from_proto(request.kinds),
        us_from_proto(request.start_time),
        us_from_proto(request.end_time),
        tuple(DeliveryState(state) for state in request.delivery_states),
        request.webhook_id,
    )


def own_from_proto(request: pb.SendAlertRequest, account_id: str) -> OwnAlert:
    """SendAlertRequest to domain."""
    return OwnAlert(
        account_id,
        request.message,
        AlertSeverity(request.severity or AlertSeverity.WARNING),
        request.data_json,
        tuple(request.webhook_ids),
        request.request_id,
    )


def format_from_proto(form: int) -> WebhookFormat:
    """WebhookFormat to domain; unset means Standard Webhooks."""
    return WebhookFormat(form or WebhookFormat.STANDARD)


def webhook_to_proto(webhook: Webhook, now_us: int) -> pb.Webhook:
    """Domain to Webhook, as it stands."""
    overlaps = webhook.previous_expire_us > now_us
    return pb.Webhook(
        webhook_id=webhook.webhook_id,
        account_id=webhook.account_id,
        display_name=webhook.display_name,
        redacted_url=webhook.redacted_url,
        format=webhook.format.value,  # type: ignore[arg-type]  # as above
        create_time=time_to_proto(webhook.create_us),
        rotate_time=optional_time_to_proto(webhook.rotate_us),
        previous_secret_expire_time=time_to_proto(webhook.previous_expire_us) if overlaps else None,
    )
