"""What the methods for alerts, webhooks and budgets do, as steps that blocking and async agents drive."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2, usage_service_pb2
from google.type.money_pb2 import Money

from flowstack._client import Call, Steps
from flowstack._errors import InvalidRequestError
from flowstack._json import NotJsonError, encode
from flowstack._methods import AlertService, UsageService
from flowstack._requests import build
from flowstack._values import dollars, time_of, word

DOLLARS_MAX: Final = 1_000_000_000_000

_ACTIONS: Final = {"warn": budget_pb2.BUDGET_ACTION_WARN, "block": budget_pb2.BUDGET_ACTION_BLOCK}
_FORMATS: Final = {"standard": pb.WEBHOOK_FORMAT_STANDARD, "slack": pb.WEBHOOK_FORMAT_SLACK}
_SEVERITIES: Final = {
    "info": pb.ALERT_SEVERITY_INFO,
    "warning": pb.ALERT_SEVERITY_WARNING,
    "critical": pb.ALERT_SEVERITY_CRITICAL,
}


@dataclass(frozen=True, slots=True)
class AlertInfo:
    """Something that the account was told; `deliveries` maps webhook ids to `pending`, `delivered` or `dead`."""

    alert_id: str
    kind: str
    severity: str
    message: str
    create_time: datetime
    threshold: int | None
    usage_percentage: float | None
    deliveries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """An address that alerts are posted to. `secret` is set by create and rotate alone, and shown nowhere else."""

    webhook_id: str
    name: str
    url: str
    format: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class AlertSettingsInfo:
    """What the account wants to be told: thresholds in percent, and the webhooks that alerts go to."""

    thresholds: tuple[int, ...]
    webhook_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BudgetInfo:
    """The budget and where the period stands. Dollars as floats.

    `spent`, `remaining`, `exceeded` and `blocking` are None where the service has not worked them out.
    """

    max_monthly_cost: float
    action: str
    spent: float | None = None
    remaining: float | None = None
    exceeded: bool | None = None
    blocking: bool | None = None


def settings() -> Steps[AlertSettingsInfo]:
    """Reads thresholds and sinks."""
    response: pb.GetAlertSettingsResponse = yield Call(AlertService.GetAlertSettings, pb.GetAlertSettingsRequest())
    return _settings(response.alert_settings)


def set_thresholds(thresholds: Iterable[int]) -> Steps[AlertSettingsInfo]:
    """Sets the thresholds."""
    request = pb.UpdateAlertSettingsRequest(alert_settings=build(pb.AlertSettings, thresholds=thresholds))
    return (yield from _update(request, "thresholds"))


def send_to(webhook_ids: Iterable[str]) -> Steps[AlertSettingsInfo]:
    """Sets where alerts go."""
    if isinstance(webhook_ids, str) or not isinstance(webhook_ids, Iterable):
        raise InvalidRequestError("webhook_ids has to be a list of ids, such as those of alerts.webhooks().")
    sinks = [build(pb.AlertSink, webhook_id=webhook_id) for webhook_id in webhook_ids]
    request = pb.UpdateAlertSettingsRequest(alert_settings=pb.AlertSettings(sinks=sinks))
    return (yield from _update(request, "sinks"))


def _update(request: pb.UpdateAlertSettingsRequest, path: str) -> Steps[AlertSettingsInfo]:
    request.update_mask.paths.append(path)
    response: pb.UpdateAlertSettingsResponse = yield Call(AlertService.UpdateAlertSettings, request)
    return _settings(response.alert_settings)


def _settings(settings: pb.AlertSettings) -> AlertSettingsInfo:
    return AlertSettingsInfo(tuple(settings.thresholds), tuple(sink.webhook_id for sink in settings.sinks))


def send(
    message: str, severity: str, data: Mapping[str, Any] | None, webhook_ids: Sequence[str], request_id: str | None
) -> Steps[AlertInfo]:
    """Sends an alert of the caller's own."""
    try:
        data_json = encode(data) if data else ""
    except NotJsonError as error:
        raise InvalidRequestError(f"The alert's data cannot be sent: {error}.") from None
    request = build(
        pb.SendAlertRequest,
        message=message,
        severity=one_of(_SEVERITIES, severity, "severity"),
        data_json=data_json,
        webhook_ids=webhook_ids,
        request_id=request_id or uuid.uuid4().hex,
    )
    response: pb.SendAlertResponse = yield Call(AlertService.SendAlert, request, True)
    return _alert(response.alert)


def slack_alert(message: str) -> Steps[AlertInfo]:
    """Sends an alert to the account's webhooks in Slack's form; where it has none, to whatever sinks it has."""
    webhooks = yield from list_webhooks()
    slack = [webhook.webhook_id for webhook in webhooks if webhook.format == "slack"]
    return (yield from send(message, "warning", None, slack[:20], None))


def list_alerts(limit: int) -> Steps[list[AlertInfo]]:
    """Reads alerts, newest first."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise InvalidRequestError("limit has to be a whole number.")
    found: list[AlertInfo] = []
    request = pb.ListAlertsRequest()
    while len(found) < limit:
        request.page_size = min(1000, limit - len(found))
        page: pb.ListAlertsResponse = yield Call(AlertService.ListAlerts, request)
        found.extend(_alert(alert) for alert in page.alerts)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def alert_told(message: pb.WatchAlertsResponse) -> AlertInfo | None:
    """What a message of WatchAlerts says; None for a sign of life."""
    return _alert(message.alert) if message.HasField("alert") else None


def create_webhook(url: str, name: str, kind: str) -> Steps[WebhookInfo]:
    """Makes a webhook."""
    request = build(pb.CreateWebhookRequest, url=url, display_name=name, format=one_of(_FORMATS, kind, "format"))
    response: pb.CreateWebhookResponse = yield Call(AlertService.CreateWebhook, request)
    return _webhook(response.webhook, response.secret)


def list_webhooks() -> Steps[list[WebhookInfo]]:
    """Reads the webhooks."""
    found: list[WebhookInfo] = []
    request = pb.ListWebhooksRequest()
    while True:
        page: pb.ListWebhooksResponse = yield Call(AlertService.ListWebhooks, request)
        found.extend(_webhook(webhook) for webhook in page.webhooks)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def rotate_webhook_secret(webhook_id: str) -> Steps[WebhookInfo]:
    """Gives a webhook a new secret."""
    request = build(pb.RotateWebhookSecretRequest, webhook_id=webhook_id)
    response: pb.RotateWebhookSecretResponse = yield Call(AlertService.RotateWebhookSecret, request)
    return _webhook(response.webhook, response.secret)


def delete_webhook(webhook_id: str) -> Steps[None]:
    """Deletes a webhook."""
    yield Call(AlertService.DeleteWebhook, build(pb.DeleteWebhookRequest, webhook_id=webhook_id))


def get_budget() -> Steps[BudgetInfo | None]:
    """Reads the budget and where the period stands."""
    response: usage_service_pb2.GetUsageResponse = yield Call(
        UsageService.GetUsage, usage_service_pb2.GetUsageRequest()
    )
    if response.usage.HasField("budget"):
        status = response.usage.budget
        return BudgetInfo(
            dollars(status.budget.max_monthly_cost),
            word(budget_pb2.BudgetAction, status.budget.action, "BUDGET_ACTION_"),
            dollars(status.spent),
            dollars(status.remaining),
            status.exceeded,
            status.blocking,
        )
    settings: pb.GetAlertSettingsResponse = yield Call(AlertService.GetAlertSettings, pb.GetAlertSettingsRequest())
    if not settings.alert_settings.HasField("budget"):
        return None
    return _budget(settings.alert_settings.budget)


def set_budget(max_monthly_cost: float | Decimal, action: str) -> Steps[BudgetInfo]:
    """Sets the budget."""
    request = pb.UpdateAlertSettingsRequest(alert_settings=pb.AlertSettings())
    request.alert_settings.budget.max_monthly_cost.CopyFrom(money(max_monthly_cost))
    request.alert_settings.budget.action = one_of(_ACTIONS, action, "action")
    request.update_mask.paths.append("budget")
    response: pb.UpdateAlertSettingsResponse = yield Call(AlertService.UpdateAlertSettings, request)
    return _budget(response.alert_settings.budget)


def clear_budget() -> Steps[None]:
    """Drops the budget."""
    request = pb.UpdateAlertSettingsRequest(alert_settings=pb.AlertSettings())
    request.update_mask.paths.append("budget")
    yield Call(AlertService.UpdateAlertSettings, request)


def money(amount: float | Decimal) -> Money:
    """Dollars as Money, rounded to the micro-dollar.

    Raises:
        InvalidRequestError: no amount of 0 or more, or one over DOLLARS_MAX.
    """
    try:
        micros = int((Decimal(str(amount)) * 1_000_000).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        micros = -1
    if not 0 <= micros <= DOLLARS_MAX * 1_000_000:
        raise InvalidRequestError(
            f"max_monthly_cost has to be an amount of dollars, 0 or more, at most {DOLLARS_MAX:,}."
        )
    return Money(currency_code="USD", units=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def one_of(values: Mapping[str, Any], given: str, what: str) -> Any:
    """The enum's value for a word.

    Raises:
        InvalidRequestError: a word that there is not; the text names those that there are.
    """
    if not isinstance(given, str) or given not in values:
        raise InvalidRequestError(f"{what} has to be one of {', '.join(values)}.")
    return values[given]


def _budget(budget: budget_pb2.Budget) -> BudgetInfo:
    return BudgetInfo(dollars(budget.max_monthly_cost), word(budget_pb2.BudgetAction, budget.action, "BUDGET_ACTION_"))


def _alert(alert: pb.Alert) -> AlertInfo:
    return AlertInfo(
        alert_id=alert.alert_id,
        kind=word(pb.AlertKind, alert.kind, "ALERT_KIND_"),
        severity=word(pb.AlertSeverity, alert.severity, "ALERT_SEVERITY_"),
        message=alert.message,
        create_time=time_of(alert.create_time),
        threshold=alert.threshold if alert.HasField("threshold") else None,
        usage_percentage=alert.usage_percentage if alert.HasField("usage_percentage") else None,
        deliveries={one.webhook_id: word(pb.DeliveryState, one.state, "DELIVERY_STATE_") for one in alert.deliveries},
    )


def _webhook(webhook: pb.Webhook, secret: str = "") -> WebhookInfo:
    kind = word(pb.WebhookFormat, webhook.format, "WEBHOOK_FORMAT_")
    return WebhookInfo(webhook.webhook_id, webhook.display_name, webhook.redacted_url, kind, secret)
