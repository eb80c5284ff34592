"""AlertService of the fake: settings with thresholds and a budget, and the alerts that they bring about.

Nothing leaves the process: an alert is read by ListAlerts and WatchAlerts, and its deliveries to webhooks stay pending.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2

from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._ids import new_id
from flowstack.testing._plans import micro_of
from flowstack.testing._time import datetime_of, timestamp

if TYPE_CHECKING:
    from flowstack.testing._world import Account, World

WATCH_S = 1.0
"""How often a watcher looks whether its caller is still there."""


def fire_alerts(account: Account, now_us: int) -> None:
    """Writes the alerts that are due; each once for its period, threshold and limit."""
    grant = account.grant(now_us)
    counts, period, limit = account.book.counts(grant.period), grant.period, grant.plan.session_limit
    used, ends = counts.managed + counts.byok, datetime_of(grant.period.end_us).date()
    for threshold in sorted(account.settings.thresholds):
        if used * 100 < limit * threshold:
            continue
        alert = pb.Alert(
            kind=pb.ALERT_KIND_USAGE_THRESHOLD,
            severity=pb.ALERT_SEVERITY_CRITICAL if threshold >= 100 else pb.ALERT_SEVERITY_WARNING,
            message=f"Sessions have reached {threshold} % of this period's limit: {used} of {limit} are used, "
            f"{max(0, limit - used)} are left until {ends}.",
            threshold=threshold,
            sessions_used=used,
            sessions_limit=limit,
            sessions_remaining=max(0, limit - used),
            usage_percentage=100 * used / limit,
        )
        _write(account, ("usage", period.start_us, threshold, limit), alert, now_us)
    status = account.budget_status(now_us)
    if status is not None and status.exceeded:
        blocks = status.budget.action == budget_pb2.BUDGET_ACTION_BLOCK
        spent, most = (micro_of(amount) / 1e6 for amount in (status.spent, status.budget.max_monthly_cost))
        what = f"New sessions are refused until {ends}." if blocks else "Sessions go on."
        alert = pb.Alert(
            kind=pb.ALERT_KIND_BUDGET_EXCEEDED,
            severity=pb.ALERT_SEVERITY_CRITICAL if blocks else pb.ALERT_SEVERITY_WARNING,
            message=f"This period's cost of ${spent:.2f} is beyond the budget of ${most:.2f}. {what}",
            budget=status,
        )
        once = ("budget", period.start_us, micro_of(status.budget.max_monthly_cost), status.budget.action)
        _write(account, once, alert, now_us)


def _write(account: Account, once: tuple[object, ...], alert: pb.Alert, now_us: int) -> None:
    if once in account.fired:
        return
    account.fired.add(once)
    period = account.subscription.period(now_us)
    alert.period_start_time.CopyFrom(timestamp(period.start_us))
    alert.period_end_time.CopyFrom(timestamp(period.end_us))
    _append(account, alert, now_us)


def _append(account: Account, alert: pb.Alert, now_us: int, webhook_ids: Sequence[str] = ()) -> None:
    alert.alert_id, alert.account_id = new_id("alert_"), account.account_id
    alert.create_time.CopyFrom(timestamp(now_us))
    wanted = webhook_ids or [
        sink.webhook_id for sink in account.settings.sinks if not sink.kinds or alert.kind in sink.kinds
    ]
    for webhook_id in wanted:
        alert.deliveries.add(webhook_id=webhook_id, state=pb.DELIVERY_STATE_PENDING)
    account.alerts.append(alert)


def webhook_of(account: Account, webhook_id: str) -> pb.Webhook:
    """A webhook of the account.

    Raises:
        FakeError: WEBHOOK_NOT_FOUND.
    """
    for webhook in account.webhooks:
        if webhook.webhook_id == webhook_id:
            return webhook
    raise FakeError("WEBHOOK_NOT_FOUND", "The account has no such webhook. ListWebhooks shows those that it has.")


class Alerts:
    """The methods of AlertService."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get_alert_settings(self, call: Call, _: pb.GetAlertSettingsRequest) -> pb.GetAlertSettingsResponse:
        """Thresholds and budget."""
        with self._world.lock:
            return pb.GetAlertSettingsResponse(alert_settings=self._world.account(call.account_id).settings)

    def update_alert_settings(
        self, call: Call, request: pb.UpdateAlertSettingsRequest
    ) -> pb.UpdateAlertSettingsResponse:
        """Sets the fields that the mask names."""
        wanted, fields = request.alert_settings, set(request.update_mask.paths)
        if not fields or fields - {"thresholds", "sinks", "budget"}:
            raise invalid_field("update_mask", "has to name thresholds, sinks or budget")
        if "budget" in fields and wanted.HasField("budget"):
            _check_budget(wanted.budget)
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            if request.etag and request.etag != account.settings.etag:
                raise FakeError(
                    "STALE_ETAG",
                    "The settings have changed since they were read. Read them again, and decide again.",
                    metadata={"etag": account.settings.etag},
                )
            settings = pb.AlertSettings()
            settings.CopyFrom(account.settings)
            if "sinks" in fields:
                for sink in wanted.sinks:
                    webhook_of(account, sink.webhook_id)
                settings.ClearField("sinks")
                settings.sinks.extend(wanted.sinks)
            if "thresholds" in fields:
                settings.thresholds[:] = sorted(wanted.thresholds)
            if "budget" in fields:
                settings.ClearField("budget")
                if wanted.HasField("budget"):
                    settings.budget.CopyFrom(wanted.budget)
            account.settings_version += 1
            settings.etag = f"v{account.settings_version}"
            settings.update_time.CopyFrom(timestamp(now_us))
            account.settings = settings
            fire_alerts(account, now_us)
            self._world.changed.notify_all()
            return pb.UpdateAlertSettingsResponse(alert_settings=settings, entitlement_applied=True)

    def list_alerts(self, call: Call, request: pb.ListAlertsRequest) -> pb.ListAlertsResponse:
        """The account's alerts, newest first."""
        with self._world.lock:
            found = list(reversed(self._world.account(call.account_id).alerts))
        begin, end = request.start_time.ToMicroseconds(), request.end_time.ToMicroseconds()
        found = [
            alert
            for alert in found
            if (not request.kinds or alert.kind in request.kinds)
            and (not begin or alert.create_time.ToMicroseconds() >= begin)
            and (not end or alert.create_time.ToMicroseconds() < end)
        ]
        page, token = page_of(found, request.page_size, request.page_token)
        return pb.ListAlertsResponse(alerts=page, next_page_token=token)

    def watch_alerts(self, call: Call, request: pb.WatchAlertsRequest) -> Iterator[pb.WatchAlertsResponse]:
        """Every alert from now on, or from after a token on."""
        call.when_over(self._world.notify)
        with self._world.lock:
            alerts = self._world.account(call.account_id).alerts
            place = int(request.resume_token) if request.resume_token.isdigit() else len(alerts)
        while True:
            with self._world.lock:
                while place >= len(alerts) and call.is_active() and not self._world.stopping:
                    self._world.changed.wait(WATCH_S)
                if place >= len(alerts):
                    return
                alert = alerts[place]
                place += 1
            if not request.kinds or alert.kind in request.kinds:
                yield pb.WatchAlertsResponse(alert=alert, resume_token=str(place))

    def send_alert(self, call: Call, request: pb.SendAlertRequest) -> pb.SendAlertResponse:
        """An alert of the caller's own."""
        if request.data_json:
            try:
                json.loads(request.data_json)
            except ValueError:
                raise invalid_field("data_json", "has to be JSON") from None
        alert = pb.Alert(
            kind=pb.ALERT_KIND_CUSTOM,
            severity=request.severity or pb.ALERT_SEVERITY_INFO,
            message=request.message,
            data_json=request.data_json,
        )

        def send() -> pb.SendAlertResponse:
            account = self._world.account(call.account_id)
            for webhook_id in request.webhook_ids:
                webhook_of(account, webhook_id)
            _append(account, alert, self._world.clock.now_us(), request.webhook_ids)
            self._world.changed.notify_all()
            return pb.SendAlertResponse(alert=alert)

        return self._world.once(call.account_id, request, send)

    def create_webhook(self, call: Call, request: pb.CreateWebhookRequest) -> pb.CreateWebhookResponse:
        """Makes a webhook, which is never called."""
        address = urlsplit(request.url)
        kind = request.format or pb.WEBHOOK_FORMAT_STANDARD
        with self._world.lock:
            webhook = pb.Webhook(
                webhook_id=new_id("wh_"),
                account_id=call.account_id,
                display_name=request.display_name,
                redacted_url=f"{address.scheme}://{address.hostname}/…",
                format=kind,
                create_time=timestamp(self._world.clock.now_us()),
            )
            self._world.account(call.account_id).webhooks.append(webhook)
        secret = "" if kind == pb.WEBHOOK_FORMAT_SLACK else f"whsec_{secrets.token_urlsafe(24)}"
        return pb.CreateWebhookResponse(webhook=webhook, secret=secret)

    def list_webhooks(self, call: Call, request: pb.ListWebhooksRequest) -> pb.ListWebhooksResponse:
        """The webhooks, newest first."""
        with self._world.lock:
            webhooks = list(reversed(self._world.account(call.account_id).webhooks))
        page, token = page_of(webhooks, request.page_size, request.page_token)
        return pb.ListWebhooksResponse(webhooks=page, next_page_token=token)

    def delete_webhook(self, call: Call, request: pb.DeleteWebhookRequest) -> pb.DeleteWebhookResponse:
        """Deletes a webhook, and takes it out of the sinks."""
        with self._world.lock:
            account = self._world.account(call.account_id)
            account.webhooks.remove(webhook_of(account, request.webhook_id))
            kept = [sink for sink in account.settings.sinks if sink.webhook_id != request.webhook_id]
            account.settings.ClearField("sinks")
            account.settings.sinks.extend(kept)
        return pb.DeleteWebhookResponse()


def _check_budget(budget: budget_pb2.Budget) -> None:
    amount = budget.max_monthly_cost
    good = amount.currency_code == "USD" and 0 <= amount.units <= 1_000_000_000 and 0 <= amount.nanos <= 999_999_999
    if not good or amount.nanos % 1000:
        raise invalid_field(
            "alert_settings.budget.max_monthly_cost",
            "must be USD, in whole micro-dollars, from 0 to 1,000,000,000 dollars",
        )
