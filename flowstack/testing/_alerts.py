"""AlertService of the fake: settings with thresholds and a budget, and the alerts that they bring about.

Nothing leaves the process: an alert is read by ListAlerts and WatchAlerts, and its deliveries to webhooks stay pending.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2

from flowstack.testing import _watching as watching
from flowstack.testing._audit import Action, action_of
from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._facts import facts_of_alert_settings
from flowstack.testing._ids import new_id
from flowstack.testing._plans import micro_of
from flowstack.testing._time import datetime_of, timestamp

if TYPE_CHECKING:
    from flowstack.testing._records import Account
    from flowstack.testing._world import World

LIFE_SIGN_S: Final = 30.0
"""How often a stream without alerts says that it is alive; real seconds."""

CALLS_PER_MINUTE: Final = 60
"""Of SendAlert, of RedeliverAlert, and of CreateWebhook."""
MINUTE_US: Final = 60_000_000


def fire_alerts(account: Account, now_us: int) -> None:
    """Writes the alerts that are due; each once for its period, threshold and limit."""
    grant = account.grant(now_us)
    counts, period, limit = account.book.counts(grant.period), grant.period, grant.terms.session_limit
    used, ends = counts.managed + counts.byok, datetime_of(grant.period.end_us).date()
    for threshold in sorted(account.settings.thresholds):
        if not limit or used * 100 < limit * threshold:
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
        _deliver(alert, webhook_id, now_us)
    account.alerts.append(alert)


def _deliver(alert: pb.Alert, webhook_id: str, now_us: int) -> None:
    due = timestamp(now_us)
    alert.deliveries.add(webhook_id=webhook_id, state=pb.DELIVERY_STATE_PENDING, next_attempt_time=due)


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
        if fields - {"thresholds", "sinks", "budget"}:
            raise invalid_field("update_mask", "has to name thresholds, sinks or budget")
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            if request.etag and request.etag != account.settings.etag:
                raise FakeError(
                    "STALE_ETAG",
                    "The alert settings have changed since they were read. Read them again, and decide again.",
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
            if settings != account.settings:
                put_settings(account, settings, action_of(call), now_us)
            fire_alerts(account, now_us)
            self._world.changed.notify_all()
            return pb.UpdateAlertSettingsResponse(alert_settings=account.settings, entitlement_applied=True)

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
        page, token = page_of(found, call, request)
        return pb.ListAlertsResponse(alerts=page, next_page_token=token)

    def watch_alerts(self, call: Call, request: pb.WatchAlertsRequest) -> Iterator[pb.WatchAlertsResponse]:
        """A sign of life, then every alert from now on, or from after a token on."""
        world, account_id = self._world, call.account_id
        watching.begin(world, call)
        with world.lock:
            alerts = world.account(account_id).alerts
            place = _place_of(request.resume_token, account_id, len(alerts))
        alert: pb.Alert | None = None
        while True:
            if alert is None or not request.kinds or alert.kind in request.kinds:
                yield pb.WatchAlertsResponse(alert=alert, resume_token=f"{account_id}:{place}")
                spoken_s = time.monotonic()
            with world.lock:
                while place >= len(alerts) and time.monotonic() < spoken_s + LIFE_SIGN_S:
                    if not watching.goes_on(world, call):
                        return
                alert = alerts[place] if place < len(alerts) else None
                place += alert is not None

    def send_alert(self, call: Call, request: pb.SendAlertRequest) -> pb.SendAlertResponse:
        """An alert of the caller's own."""
        _check_object(request.data_json)
        alert = pb.Alert(
            kind=pb.ALERT_KIND_CUSTOM,
            severity=request.severity or pb.ALERT_SEVERITY_WARNING,
            message=request.message,
            data_json=request.data_json,
        )

        def send() -> pb.SendAlertResponse:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            count_call(account, call.method, now_us, "alerts can be sent")
            for webhook_id in request.webhook_ids:
                webhook_of(account, webhook_id)
            _append(account, alert, now_us, request.webhook_ids)
            self._world.changed.notify_all()
            return pb.SendAlertResponse(alert=alert)

        return self._world.once(call.account_id, request, send)

    def redeliver_alert(self, call: Call, request: pb.RedeliverAlertRequest) -> pb.RedeliverAlertResponse:
        """Has an alert wait for its delivery again, to one webhook or to all that it went to and that still exist."""
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            alert = _alert_of(account, request.alert_id)
            if request.webhook_id:
                webhook_of(account, request.webhook_id)
            count_call(account, call.method, now_us, "alerts can be sent")
            existing = {webhook.webhook_id for webhook in account.webhooks}
            went_to = {delivery.webhook_id for delivery in alert.deliveries}
            wanted = {request.webhook_id} if request.webhook_id else went_to & existing
            for delivery in alert.deliveries:
                if delivery.webhook_id in wanted:
                    delivery.state = pb.DELIVERY_STATE_PENDING
                    delivery.next_attempt_time.CopyFrom(timestamp(now_us))
            for webhook_id in wanted - went_to:
                _deliver(alert, webhook_id, now_us)
            return pb.RedeliverAlertResponse(alert=alert)


def put_settings(account: Account, settings: pb.AlertSettings, action: Action, now_us: int) -> None:
    """Puts settings in the place of the account's."""
    account.settings_version += 1
    settings.etag = f"al{account.settings_version}"
    settings.update_time.CopyFrom(timestamp(now_us))
    facts = facts_of_alert_settings(account.settings), facts_of_alert_settings(settings)
    account.log.note(action, account.account_id, "alert_settings", account.account_id, *facts, now_us)
    account.settings = settings


def _alert_of(account: Account, alert_id: str) -> pb.Alert:
    for alert in account.alerts:
        if alert.alert_id == alert_id:
            return alert
    raise FakeError("ALERT_NOT_FOUND", "The account has no such alert. ListAlerts shows those that it has.")


def _place_of(resume_token: str, account_id: str, newest: int) -> int:
    """After how many of its alerts a stream goes on: all of them without a token.

    Raises:
        FakeError: INVALID_REQUEST: the token is not this account's.
    """
    if not resume_token:
        return newest
    scope, _, place = resume_token.rpartition(":")
    if scope != account_id or not (place.isascii() and place.isdigit()) or int(place) > newest:
        raise invalid_field("resume_token", "must be the last one of a stream of the same account")
    return int(place)


def count_call(account: Account, method: str, now_us: int, what: str) -> None:
    """Refuses more than so many calls within a minute; `what` cannot be done more often.

    Raises:
        FakeError: ALERT_RATE_LIMITED.
    """
    calls = account.alert_calls.setdefault(method, deque())
    while calls and calls[0] <= now_us - MINUTE_US:
        calls.popleft()
    if len(calls) >= CALLS_PER_MINUTE:
        wait_us = calls[0] + MINUTE_US - now_us
        raise FakeError(
            "ALERT_RATE_LIMITED",
            f"At most {CALLS_PER_MINUTE} {what} a minute. Try again in {-(-wait_us // 1_000_000)} s.",
            retry_after=timedelta(microseconds=wait_us),
        )
    calls.append(now_us)


def _check_object(text: str) -> None:
    def refuse(_: str) -> NoReturn:
        raise ValueError

    try:
        is_object = not text or isinstance(json.loads(text, parse_constant=refuse), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise invalid_field("data_json", "must be a JSON object, or empty")
