"""Alerts and webhooks: settings, secrets, deliveries that are asked for again."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from tests.contract.target import Customer, details_of, refusal

# No such host exists (RFC 6761), so nothing is ever sent.
URL = "https://user:password@hooks.invalid:8443/services/t0?token=t1"


def webhook(customer: Customer, **fields: Any) -> pb.CreateWebhookResponse:
    """A new webhook."""
    return customer.call(customer.target.alerts.CreateWebhook, pb.CreateWebhookRequest(**{"url": URL, **fields}))


def rotate(customer: Customer, webhook_id: str, **fields: Any) -> pb.RotateWebhookSecretResponse:
    """A new secret."""
    request = pb.RotateWebhookSecretRequest(webhook_id=webhook_id, **fields)
    return customer.call(customer.target.alerts.RotateWebhookSecret, request)


def update(customer: Customer, settings: pb.AlertSettings, *paths: str, **fields: Any) -> pb.AlertSettings:
    """Changed settings."""
    mask = FieldMask(paths=paths)
    request = pb.UpdateAlertSettingsRequest(alert_settings=settings, update_mask=mask, **fields)
    return customer.call(customer.target.alerts.UpdateAlertSettings, request).alert_settings


def send(customer: Customer, **fields: Any) -> pb.Alert:
    """An alert of the customer's own."""
    request = pb.SendAlertRequest(**{"message": "mine", **fields})
    return customer.call(customer.target.alerts.SendAlert, request).alert


def redeliver(customer: Customer, alert_id: str, webhook_id: str = "") -> pb.Alert:
    """The alert, sent again."""
    request = pb.RedeliverAlertRequest(alert_id=alert_id, webhook_id=webhook_id)
    return customer.call(customer.target.alerts.RedeliverAlert, request).alert


def listed(customer: Customer) -> list[pb.Alert]:
    """The alerts, newest first."""
    return list(customer.call(customer.target.alerts.ListAlerts, pb.ListAlertsRequest()).alerts)


def test_a_message_may_have_several_lines(free: Customer) -> None:
    text = "deployed\r\n\tby Ada"
    assert send(free, message=text).message == text


@pytest.mark.parametrize("message", ["\0", "x\x1b[2J", "x\x7f", "x\x0b"])
def test_a_message_has_no_other_control_characters(free: Customer, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        send(free, message=message)

    _, bad = details_of(caught.value)
    assert [violation.field for violation in bad.field_violations] == ["message"]


def test_settings_begin_with_three_thresholds(free: Customer) -> None:
    settings = free.call(free.target.alerts.GetAlertSettings, pb.GetAlertSettingsRequest()).alert_settings
    changed = update(free, pb.AlertSettings(thresholds=[80, 20]), "thresholds", etag=settings.etag)
    stale, info = refusal(lambda: update(free, pb.AlertSettings(), "thresholds", etag=settings.etag))

    assert (list(settings.thresholds), settings.HasField("update_time")) == ([75, 90, 95], False)
    assert (list(changed.thresholds), changed.HasField("update_time")) == ([20, 80], True)
    assert (stale, info.reason, dict(info.metadata)) == (
        grpc.StatusCode.ABORTED,
        "STALE_ETAG",
        {"etag": changed.etag},
    )
    assert update(free, changed, "thresholds").etag == changed.etag


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        (pb.AlertSettings(thresholds=[0]), ["thresholds"]),
        (pb.AlertSettings(thresholds=[101]), ["thresholds"]),
        (pb.AlertSettings(thresholds=[5, 5]), ["thresholds"]),
        (pb.AlertSettings(), []),
        (pb.AlertSettings(), ["etag"]),
        (pb.AlertSettings(budget={"max_monthly_cost": Money(currency_code="USD", units=-1), "action": 1}), ["budget"]),
        (pb.AlertSettings(budget={"max_monthly_cost": Money(currency_code="EUR", units=1), "action": 1}), ["budget"]),
        (pb.AlertSettings(sinks=[pb.AlertSink(webhook_id="wh_a"), pb.AlertSink(webhook_id="wh_a")]), ["sinks"]),
    ],
)
def test_bad_settings_are_refused(free: Customer, settings: pb.AlertSettings, paths: list[str]) -> None:
    code, info = refusal(lambda: update(free, settings, *paths))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_a_budget_that_is_used_up_blocks_until_it_is_raised(hobbyist: Customer) -> None:
    def budget(units: int) -> pb.AlertSettings:
        most = Money(currency_code="USD", units=units)
        wanted = budget_pb2.Budget(max_monthly_cost=most, action=budget_pb2.BUDGET_ACTION_BLOCK)
        return pb.AlertSettings(budget=wanted)

    update(hobbyist, budget(10), "budget")
    code, info = refusal(hobbyist.complete)
    update(hobbyist, budget(20), "budget")
    list(hobbyist.complete())

    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
    assert [(alert.kind, alert.budget.spent.units) for alert in listed(hobbyist)] == [
        (pb.ALERT_KIND_BUDGET_EXCEEDED, 15)
    ]


def test_a_webhooks_address_and_secret_are_shown_once(free: Customer) -> None:
    standard = webhook(free, display_name="ops")
    slack = webhook(free, format=pb.WEBHOOK_FORMAT_SLACK)
    found = free.call(free.target.alerts.ListWebhooks, pb.ListWebhooksRequest()).webhooks

    assert standard.secret.startswith("whsec_")
    assert slack.secret == ""
    assert list(found) == [slack.webhook, standard.webhook]
    assert [one.redacted_url for one in found] == [
        "https://…@hooks.invalid:8443/…?…",
        "https://…@hooks.invalid:8443/services/t0?…",
    ]
    assert standard.webhook.format == pb.WEBHOOK_FORMAT_STANDARD
    assert not standard.webhook.HasField("rotate_time")


def test_a_secret_is_rotated_with_an_overlap(free: Customer) -> None:
    made = webhook(free)
    rotated = rotate(free, made.webhook.webhook_id)
    at_once = rotate(free, made.webhook.webhook_id, overlap={"seconds": 0})
    slack = webhook(free, format=pb.WEBHOOK_FORMAT_SLACK).webhook
    unsigned, info = refusal(lambda: rotate(free, slack.webhook_id))
    unknown, _ = refusal(lambda: rotate(free, "wh_none"))
    too_long, _ = refusal(lambda: rotate(free, made.webhook.webhook_id, overlap={"seconds": 604_801}))

    assert len({made.secret, rotated.secret, at_once.secret}) == 3
    assert rotated.secret.startswith("whsec_")
    after = rotated.webhook
    assert after.previous_secret_expire_time.seconds - after.rotate_time.seconds == 24 * 3600
    assert not at_once.webhook.HasField("previous_secret_expire_time")
    assert (unsigned, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WEBHOOK_WITHOUT_SECRET")
    assert unknown is grpc.StatusCode.NOT_FOUND
    assert too_long is grpc.StatusCode.INVALID_ARGUMENT


def test_an_alert_is_delivered_again(free: Customer) -> None:
    first, second = webhook(free).webhook.webhook_id, webhook(free).webhook.webhook_id
    sent = send(free, webhook_ids=[first], data_json='{"a": 1}')
    again = redeliver(free, sent.alert_id)
    elsewhere = redeliver(free, sent.alert_id, second)
    reasons = [
        refusal(lambda: redeliver(free, "alert_none"))[1].reason,
        refusal(lambda: redeliver(free, sent.alert_id, "wh_none"))[1].reason,
    ]

    assert (sent.severity, sent.kind, sent.data_json) == (
        pb.ALERT_SEVERITY_WARNING,
        pb.ALERT_KIND_CUSTOM,
        '{"a": 1}',
    )
    assert again.alert_id == elsewhere.alert_id == sent.alert_id
    assert [(one.webhook_id, one.state) for one in again.deliveries] == [(first, pb.DELIVERY_STATE_PENDING)]
    assert {one.webhook_id for one in elsewhere.deliveries} == {first, second}
    assert reasons == ["ALERT_NOT_FOUND", "WEBHOOK_NOT_FOUND"]
    assert [alert.alert_id for alert in listed(free)] == [sent.alert_id]


def test_a_deleted_webhook_is_out_of_the_sinks(free: Customer) -> None:
    made = webhook(free).webhook
    update(free, pb.AlertSettings(sinks=[pb.AlertSink(webhook_id=made.webhook_id)]), "sinks")
    sent = send(free)
    free.call(free.target.alerts.DeleteWebhook, pb.DeleteWebhookRequest(webhook_id=made.webhook_id))
    settings = free.call(free.target.alerts.GetAlertSettings, pb.GetAlertSettingsRequest()).alert_settings
    again, info = refusal(
        lambda: free.call(free.target.alerts.DeleteWebhook, pb.DeleteWebhookRequest(webhook_id=made.webhook_id))
    )

    assert [one.webhook_id for one in sent.deliveries] == [made.webhook_id]
    assert list(settings.sinks) == []
    assert [one.state for one in listed(free)[0].deliveries] == [pb.DELIVERY_STATE_DEAD]
    assert (again, info.reason) == (grpc.StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND")
    assert {one.state for one in redeliver(free, sent.alert_id).deliveries} == {pb.DELIVERY_STATE_DEAD}


def test_webhooks_are_limited(free: Customer) -> None:
    for _ in range(20):
        webhook(free)
    code, info = refusal(lambda: webhook(free))

    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WEBHOOK_LIMIT_EXCEEDED")


def test_60_webhooks_a_minute_can_be_asked_for(free: Customer) -> None:
    for _ in range(60):
        made = webhook(free).webhook
        free.call(free.target.alerts.DeleteWebhook, pb.DeleteWebhookRequest(webhook_id=made.webhook_id))
    code, info = refusal(lambda: webhook(free))

    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ALERT_RATE_LIMITED")


def test_60_alerts_a_minute_can_be_sent(free: Customer) -> None:
    for place in range(60):
        send(free, message=str(place))
    code, info = refusal(lambda: send(free))

    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ALERT_RATE_LIMITED")
    assert redeliver(free, listed(free)[0].alert_id).message == "59"


@pytest.mark.parametrize("data", ["[1]", "x", '{"a": NaN}'])
def test_data_is_a_json_object(free: Customer, data: str) -> None:
    code, info = refusal(lambda: send(free, data_json=data))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_a_repeated_alert_is_sent_once(free: Customer) -> None:
    first, second = send(free, request_id="r"), send(free, request_id="r")
    code, info = refusal(lambda: send(free, request_id="r", message="another"))

    assert first.alert_id == second.alert_id
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_REQUEST")
    assert len(listed(free)) == 1
