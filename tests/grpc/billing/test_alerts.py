"""Alerts as a customer sees them: settings, thresholds, streams, and alerts of one's own."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import audit_service_pb2 as audit_pb
from flowstack_protos.billing.v1 import budget_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from services.billing.__main__ import running
from services.billing.config import BillingSettings
from tests.support.billing import ADMIN, QUICK, BillingUnderTest, Customer, failure_of, reason_of
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.fake_quota_events import FakeQuotaEvents


async def update(service: BillingUnderTest, customer: Customer, etag: str = "", **values: Any) -> Any:
    request = pb.UpdateAlertSettingsRequest(
        alert_settings=pb.AlertSettings(**values), update_mask=FieldMask(paths=list(values)), etag=etag
    )
    return await service.alerts.UpdateAlertSettings(request, metadata=customer.metadata)


async def alerts_of(service: BillingUnderTest, customer: Customer, **fields: Any) -> list[pb.Alert]:
    answer = await service.alerts.ListAlerts(pb.ListAlertsRequest(**fields), metadata=customer.metadata)
    return list(answer.alerts)


async def run_sessions(quota: FakeQuotaEvents, customer: Customer, count: int, name: str = "s") -> None:
    for number in range(count):
        await quota.resolve(customer.account_id, f"ses_{name}{number}")
        # One by one, so that each is a transaction of its own.
        await quota.drained()


def watch(service: BillingUnderTest, customer: Customer, **fields: Any) -> Any:
    return service.alerts.WatchAlerts(pb.WatchAlertsRequest(**fields), metadata=customer.metadata)


async def test_thresholds_are_75_90_and_95_until_they_are_set(service: BillingUnderTest, customer: Customer) -> None:
    answer = await service.alerts.GetAlertSettings(pb.GetAlertSettingsRequest(), metadata=customer.metadata)
    assert list(answer.alert_settings.thresholds) == [75, 90, 95]
    assert not answer.alert_settings.HasField("update_time")
    changed = await update(service, customer, thresholds=[100, 50])
    assert list(changed.alert_settings.thresholds) == [50, 100]
    assert changed.entitlement_applied
    assert await reason_of(update(service, customer, answer.alert_settings.etag, thresholds=[1])) == "STALE_ETAG"
    assert (await update(service, customer, thresholds=[50, 100])).alert_settings == changed.alert_settings


async def test_each_threshold_fires_once(service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock) -> None:
    customer = await service.new_customer()
    await run_sessions(quota, customer, 18)
    assert await alerts_of(service, customer) == []
    quota.duplicate = True
    await run_sessions(quota, customer, 7, "t")
    ninety_five, ninety, seventy_five = await alerts_of(service, customer)
    assert (seventy_five.threshold, seventy_five.sessions_used, seventy_five.sessions_limit) == (75, 19, 25)
    assert (seventy_five.sessions_remaining, seventy_five.usage_percentage) == (6, 76)
    assert (seventy_five.kind, seventy_five.severity) == (pb.ALERT_KIND_USAGE_THRESHOLD, pb.ALERT_SEVERITY_WARNING)
    assert (ninety.sessions_used, ninety_five.sessions_used) == (23, 24)
    assert "75 %" in seventy_five.message
    assert seventy_five.period_end_time.ToMicroseconds() > clock.now_us()
    # What has been passed when it is added fires at once.
    await update(service, customer, thresholds=[75, 100, 10])
    assert [alert.threshold for alert in await alerts_of(service, customer)][:2] == [100, 10]
    assert (await alerts_of(service, customer))[0].severity == pb.ALERT_SEVERITY_CRITICAL


async def test_a_new_limit_and_a_new_period_fire_again(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    customer = await service.new_customer("hobbyist")
    await update(service, customer, thresholds=[10])
    await run_sessions(quota, customer, 20)
    request = subscription_pb.ChangePlanRequest(plan_id="starter")
    await service.subscriptions.ChangePlan(request, metadata=customer.metadata)
    await run_sessions(quota, customer, 80, "t")
    assert [alert.sessions_limit for alert in await alerts_of(service, customer)] == [1000, 200]
    clock.advance_us(40 * DAY_US)
    await run_sessions(quota, customer, 100, "u")
    first, second, _ = await alerts_of(service, customer)
    assert (first.sessions_used, second.sessions_used) == (100, 100)
    assert first.period_start_time == second.period_end_time


async def test_a_late_session_of_the_last_period_fires_for_that_period(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    customer = await service.new_customer("hobbyist")
    await update(service, customer, thresholds=[1])
    begun_us = clock.now_us()
    await run_sessions(quota, customer, 1)
    clock.advance_us(40 * DAY_US)
    await quota.resolve(customer.account_id, "ses_late", reserve_us=begun_us + 1)
    await quota.drained()
    (alert,) = await alerts_of(service, customer)
    assert (alert.sessions_used, alert.sessions_limit) == (2, 200)
    assert alert.period_start_time.ToMicroseconds() == begun_us


async def test_watching_misses_nothing_between_two_calls(
    service: BillingUnderTest, customer: Customer, quota: FakeQuotaEvents
) -> None:
    await update(service, customer, thresholds=[1, 2, 3])
    stream = watch(service, customer)
    sign_of_life = await stream.read()
    assert not sign_of_life.HasField("alert")
    await run_sessions(quota, customer, 10)
    first = await stream.read()
    assert first.alert.threshold == 1
    stream.cancel()
    await run_sessions(quota, customer, 20, "t")
    stream = watch(service, customer, resume_token=first.resume_token)
    await stream.read()
    assert [(await stream.read()).alert.threshold for _ in range(2)] == [2, 3]
    stream.cancel()
    # Only what is asked for; the rest is passed over for good.
    stream = watch(service, customer, resume_token=sign_of_life.resume_token, kinds=[pb.ALERT_KIND_CUSTOM])
    await stream.read()
    await service.alerts.SendAlert(pb.SendAlertRequest(message="mine"), metadata=customer.metadata)
    assert (await stream.read()).alert.message == "mine"
    stream.cancel()
    other = await service.new_customer()
    assert await reason_of(watch(service, other, resume_token=first.resume_token)) == "INVALID_REQUEST"


async def test_a_stream_ends_when_billing_shuts_down(
    settings: BillingSettings, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    async with running(settings, clock, QUICK) as host:
        await host.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{host.bound_ports[0]}") as channel:
            service = BillingUnderTest(channel, channel)
            stream = watch(service, await service.new_customer())
            await stream.read()
            draining = asyncio.create_task(host.drain(30))
            assert await reason_of(stream) == "SHUTTING_DOWN"
            await draining


async def test_ones_own_alert(service: BillingUnderTest, customer: Customer) -> None:
    request = pb.SendAlertRequest(message="deployed", data_json='{"n":12345678901234567890.10}', request_id="r1")
    sent = await service.alerts.SendAlert(request, metadata=customer.metadata)
    assert sent.alert.severity == pb.ALERT_SEVERITY_WARNING
    assert sent.alert.data_json == '{"n":12345678901234567890.10}'
    assert (await service.alerts.SendAlert(request, metadata=customer.metadata)).alert == sent.alert
    request.message = "other"
    assert await reason_of(service.alerts.SendAlert(request, metadata=customer.metadata)) == "DUPLICATE_REQUEST"
    assert len(await alerts_of(service, customer)) == 1
    other = await service.new_customer()
    redeliver = pb.RedeliverAlertRequest(alert_id=sent.alert.alert_id)
    assert await reason_of(service.alerts.RedeliverAlert(redeliver, metadata=other.metadata)) == "ALERT_NOT_FOUND"


@pytest.mark.parametrize("data", ["[]", "nonsense", '{"a":NaN}', "1", "[" * 10_000])
async def test_data_has_to_be_a_json_object(service: BillingUnderTest, customer: Customer, data: str) -> None:
    request = pb.SendAlertRequest(message="m", data_json=data)
    _, error = await failure_of(service.alerts.SendAlert(request, metadata=customer.metadata))
    assert [violation.field for violation in error.violations] == ["data_json"]


async def test_at_most_sixty_alerts_a_minute(service: BillingUnderTest, customer: Customer, clock: ManualClock) -> None:
    async def send() -> None:
        await service.alerts.SendAlert(pb.SendAlertRequest(message="m"), metadata=customer.metadata)

    for _ in range(60):
        await send()
        clock.advance(0.5)
    code, error = await failure_of(
        service.alerts.SendAlert(pb.SendAlertRequest(message="m"), metadata=customer.metadata)
    )
    assert (code, error.reason.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ALERT_RATE_LIMITED")
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 30
    clock.advance(30)
    await send()


async def test_alerts_are_listed_in_pages_and_by_filter(
    service: BillingUnderTest, customer: Customer, clock: ManualClock
) -> None:
    for number in range(5):
        clock.advance(1)
        await service.alerts.SendAlert(pb.SendAlertRequest(message=str(number)), metadata=customer.metadata)
    messages, token = list[str](), ""
    while True:
        request = pb.ListAlertsRequest(page_size=2, page_token=token)
        page = await service.alerts.ListAlerts(request, metadata=customer.metadata)
        messages += [alert.message for alert in page.alerts]
        token = page.next_page_token
        if not token:
            break
    assert messages == ["4", "3", "2", "1", "0"]
    assert await alerts_of(service, customer, kinds=[pb.ALERT_KIND_USAGE_THRESHOLD]) == []
    assert await alerts_of(service, customer, delivery_states=[pb.DELIVERY_STATE_DEAD]) == []
    newest = (await alerts_of(service, customer))[0].create_time
    assert [alert.message for alert in await alerts_of(service, customer, start_time=newest)] == ["4"]
    assert len(await alerts_of(service, customer, end_time=newest)) == 4


BUDGET = budget_pb2.Budget(max_monthly_cost=Money(currency_code="USD", units=-1), action=budget_pb2.BUDGET_ACTION_WARN)
CENT_BELOW_ZERO = budget_pb2.Budget(
    max_monthly_cost=Money(currency_code="USD", nanos=-10_000_000), action=budget_pb2.BUDGET_ACTION_BLOCK
)


@pytest.mark.parametrize(
    "values",
    [
        {"thresholds": [0]},
        {"thresholds": [101]},
        {"thresholds": [-1]},
        {"thresholds": list(range(1, 1001))},
        {"thresholds": [5, 5]},
        {"budget": BUDGET},
        {"budget": CENT_BELOW_ZERO},
        {"budget": budget_pb2.Budget(max_monthly_cost=Money(currency_code="USD", units=1))},
        {"sinks": [pb.AlertSink(webhook_id="other")]},
        {"sinks": [pb.AlertSink(webhook_id="wh_1"), pb.AlertSink(webhook_id="wh_1")]},
    ],
)
async def test_settings_that_make_no_sense(
    service: BillingUnderTest, customer: Customer, values: dict[str, Any]
) -> None:
    _, error = await failure_of(update(service, customer, **values))
    assert error.reason.value == "INVALID_REQUEST"
    assert all(next(iter(values)) in v.field or v.field == "alert_settings" for v in error.violations)


@pytest.mark.parametrize("path", ["budget.action", "sinks.kinds", "thresholds.x", "etag", "update_mask", ""])
async def test_parts_of_settings_cannot_be_changed(service: BillingUnderTest, customer: Customer, path: str) -> None:
    request = pb.UpdateAlertSettingsRequest(alert_settings=pb.AlertSettings(), update_mask=FieldMask(paths=[path]))
    _, error = await failure_of(service.alerts.UpdateAlertSettings(request, metadata=customer.metadata))
    assert {violation.field for violation in error.violations} == {"update_mask"}


async def test_alerts_of_a_thousand_years_are_refused_and_of_all_time_are_those_that_there_are(
    service: BillingUnderTest, customer: Customer
) -> None:
    await service.alerts.SendAlert(pb.SendAlertRequest(message="m"), metadata=customer.metadata)
    begin, last = {"seconds": 0}, {"seconds": us(2100, 1, 1) // 10**6 - 1}
    assert [alert.message for alert in await alerts_of(service, customer, start_time=begin, end_time=last)] == ["m"]
    ages = pb.ListAlertsRequest(start_time=begin, end_time={"seconds": us(3026, 1, 1) // 10**6})  # type: ignore[arg-type]
    _, error = await failure_of(service.alerts.ListAlerts(ages, metadata=customer.metadata))
    assert [violation.field for violation in error.violations] == ["end_time"]


async def test_an_unknown_sink_and_another_account(service: BillingUnderTest, customer: Customer) -> None:
    assert await reason_of(update(service, customer, sinks=[pb.AlertSink(webhook_id="wh_1")])) == "WEBHOOK_NOT_FOUND"
    other = await service.new_customer()
    request = pb.ListAlertsRequest(account_id=other.account_id)
    assert await reason_of(service.alerts.ListAlerts(request, metadata=customer.metadata)) == "ACCOUNT_MISMATCH"
    assert await reason_of(service.alerts.ListAlerts(pb.ListAlertsRequest(), metadata=ADMIN)) == "INVALID_REQUEST"


async def test_changes_are_audited_and_deleted_accounts_change_no_more(
    service: BillingUnderTest, customer: Customer
) -> None:
    await update(service, customer, thresholds=[50])
    events = await service.audit.ListAuditEvents(audit_pb.ListAuditEventsRequest(), metadata=customer.metadata)
    change = next(e for e in events.audit_events if e.action == "AlertService.UpdateAlertSettings").changes[0]
    assert (change.field, change.from_json, change.to_json) == ("thresholds", "[75,90,95]", "[50]")
    delete = account_pb.DeleteAccountRequest(account_id=customer.account_id)
    await service.accounts.DeleteAccount(delete, metadata=ADMIN)
    request = pb.SendAlertRequest(account_id=customer.account_id, message="m")
    assert await reason_of(service.alerts.SendAlert(request, metadata=ADMIN)) == "ACCOUNT_DELETED"
