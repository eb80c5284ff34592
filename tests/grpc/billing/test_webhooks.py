"""Webhooks: creating, signing, giving new secrets, delivering again, giving up, and what is kept of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from standardwebhooks import Webhook, WebhookVerificationError

from services.billing.adapters.webhooks.secrets import PepperSealer
from services.billing.config import BillingSettings
from services.billing.webhooks import SealError
from services.shared.secret import Secret
from tests.support import receiver as behaviours
from tests.support.billing import BillingUnderTest, Customer, billing, failure_of, reason_of
from tests.support.clock import HOUR_US, ManualClock
from tests.support.database import everything_in
from tests.support.receiver import Names, Receiver, answering

RETRIES = 10
"""Attempts until a delivery is given up."""


@pytest.fixture
def settings(settings: BillingSettings) -> BillingSettings:
    return settings.model_copy(update={"webhook_allowed_networks": "127.0.0.1/32", "webhook_allow_http": True})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as running:
        yield running


class Desk:
    """A customer and its webhooks."""

    def __init__(self, service: BillingUnderTest, customer: Customer) -> None:
        self.stub = service.alerts
        self.customer = customer

    async def create(self, url: str, **fields: Any) -> pb.CreateWebhookResponse:
        request = pb.CreateWebhookRequest(url=url, **fields)
        answer: pb.CreateWebhookResponse = await self.stub.CreateWebhook(request, metadata=self.customer.metadata)
        return answer

    async def send_to(self, *webhook_ids: str, message: str = "hello <world> & all") -> pb.Alert:
        request = pb.SendAlertRequest(message=message, webhook_ids=webhook_ids, data_json='{"n":1.0}')
        alert: pb.Alert = (await self.stub.SendAlert(request, metadata=self.customer.metadata)).alert
        return alert

    async def redeliver(self, alert: pb.Alert, webhook_id: str = "") -> pb.Alert:
        request = pb.RedeliverAlertRequest(alert_id=alert.alert_id, webhook_id=webhook_id)
        again: pb.Alert = (await self.stub.RedeliverAlert(request, metadata=self.customer.metadata)).alert
        return again

    async def delivery(self, alert: pb.Alert) -> pb.AlertDelivery:
        answer = await self.stub.ListAlerts(pb.ListAlertsRequest(), metadata=self.customer.metadata)
        (delivery,) = next(found for found in answer.alerts if found.alert_id == alert.alert_id).deliveries
        return delivery  # type: ignore[no-any-return]

    async def delivery_after(self, alert: pb.Alert, attempts: int) -> pb.AlertDelivery:
        while (delivery := await self.delivery(alert)).attempt_count < attempts:
            await asyncio.sleep(0)
        return delivery


@pytest.fixture
def desk(service: BillingUnderTest, customer: Customer) -> Desk:
    return Desk(service, customer)


def verify(secret: str, received: behaviours.Received) -> None:
    """Raises where the request is not signed with the secret; its time is a test's, and not looked at."""
    headers = received.headers
    time = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    signature = Webhook(secret).sign(headers["webhook-id"], time, received.body)
    if signature not in headers["webhook-signature"].split(" "):
        raise WebhookVerificationError


async def test_addresses_that_are_refused_count_too(desk: Desk, clock: ManualClock) -> None:
    for _ in range(60):
        assert await reason_of(desk.create("https://10.0.0.1/")) == "INVALID_REQUEST"
        clock.advance(0.5)
    _, error = await failure_of(desk.create("https://127.0.0.1/"))
    assert error.reason.value == "ALERT_RATE_LIMITED"
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 30
    clock.advance(30)
    assert (await desk.create("https://127.0.0.1/")).webhook.webhook_id


async def test_alerts_come_signed_in_the_standard_form(desk: Desk, receiver: Receiver, clock: ManualClock) -> None:
    created = await desk.create(receiver.url("/a?token=x"), display_name="pager")
    assert created.secret.startswith("whsec_")
    assert created.webhook.redacted_url == receiver.url("/a?…")
    alert = await desk.send_to(created.webhook.webhook_id)
    (received,) = await receiver.until(1)
    assert received.path == "/a?token=x"
    assert received.headers["webhook-id"] == alert.alert_id
    verify(created.secret, received)
    body = received.json
    assert (body["type"], body["data"]["message"]) == ("alert.custom", "hello <world> & all")
    assert '"custom":{"n":1.0}' in received.body
    assert body["timestamp"] == "2026-03-10T12:00:00.000000Z"
    delivery = await desk.delivery_after(alert, 1)
    assert (delivery.state, delivery.last_http_status) == (pb.DELIVERY_STATE_DELIVERED, 200)
    assert delivery.deliver_time.ToMicroseconds() == clock.now_us()
    assert not delivery.HasField("next_attempt_time")


async def test_alerts_come_in_slacks_form(desk: Desk, receiver: Receiver) -> None:
    created = await desk.create(receiver.url("/services/T0/B0/secret"), format=pb.WEBHOOK_FORMAT_SLACK)
    assert created.secret == ""
    assert created.webhook.redacted_url == receiver.url("/…")
    await desk.send_to(created.webhook.webhook_id)
    (received,) = await receiver.until(1)
    assert received.json == {"text": "*Warning*: hello &lt;world&gt; &amp; all"}
    assert "webhook-signature" not in received.headers
    rotate = pb.RotateWebhookSecretRequest(webhook_id=created.webhook.webhook_id)
    call = desk.stub.RotateWebhookSecret(rotate, metadata=desk.customer.metadata)
    assert await reason_of(call) == "WEBHOOK_WITHOUT_SECRET"


async def test_both_secrets_sign_until_the_overlap_ends(desk: Desk, receiver: Receiver, clock: ManualClock) -> None:
    created = await desk.create(receiver.url())
    webhook_id = created.webhook.webhook_id
    rotate = pb.RotateWebhookSecretRequest(webhook_id=webhook_id, overlap=Duration(seconds=3600))
    rotated = await desk.stub.RotateWebhookSecret(rotate, metadata=desk.customer.metadata)
    assert rotated.webhook.previous_secret_expire_time.ToMicroseconds() == clock.now_us() + HOUR_US
    await desk.send_to(webhook_id)
    (during,) = await receiver.until(1)
    verify(created.secret, during)
    verify(rotated.secret, during)
    clock.advance_us(HOUR_US)
    await desk.send_to(webhook_id)
    after = (await receiver.until(2))[1]
    verify(rotated.secret, after)
    with pytest.raises(WebhookVerificationError):
        verify(created.secret, after)
    rotate.overlap.seconds = 0
    at_once = await desk.stub.RotateWebhookSecret(rotate, metadata=desk.customer.metadata)
    assert not at_once.webhook.HasField("previous_secret_expire_time")
    await desk.send_to(webhook_id)
    last = (await receiver.until(3))[2]
    verify(at_once.secret, last)
    assert len(last.headers["webhook-signature"].split(" ")) == 1


async def test_a_receiver_that_is_down_is_tried_again_until_it_is_given_up(
    desk: Desk, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.behaviour = answering("500 Down")
    created = await desk.create(receiver.url())
    alert = await desk.send_to(created.webhook.webhook_id)
    waits_us = []
    for attempt in range(1, RETRIES):
        delivery = await desk.delivery_after(alert, attempt)
        assert (delivery.state, delivery.last_failure) == (pb.DELIVERY_STATE_PENDING, pb.DELIVERY_FAILURE_STATUS)
        waits_us.append(delivery.next_attempt_time.ToMicroseconds() - clock.now_us())
        clock.advance_us(waits_us[-1])
    assert waits_us == sorted(waits_us)
    assert waits_us[0] <= 5_500_000
    assert waits_us[-1] > 21 * HOUR_US
    dead = await desk.delivery_after(alert, RETRIES)
    assert (dead.state, dead.HasField("next_attempt_time")) == (pb.DELIVERY_STATE_DEAD, False)
    request = pb.ListAlertsRequest(delivery_states=[pb.DELIVERY_STATE_DEAD])
    letters = await desk.stub.ListAlerts(request, metadata=desk.customer.metadata)
    assert [letter.alert_id for letter in letters.alerts] == [alert.alert_id]
    # All of them were the same alert, under one id.
    assert {received.headers["webhook-id"] for received in receiver.received} == {alert.alert_id}
    assert len({received.body for received in receiver.received}) == 1
    receiver.behaviour = behaviours.accept
    await desk.redeliver(alert)
    delivery = await desk.delivery_after(alert, RETRIES + 1)
    assert delivery.state == pb.DELIVERY_STATE_DELIVERED
    assert len(receiver.received) == RETRIES + 1


async def test_a_receiver_that_is_gone_is_not_tried_again(desk: Desk, receiver: Receiver) -> None:
    receiver.behaviour = answering("410 Gone")
    alert = await desk.send_to((await desk.create(receiver.url())).webhook.webhook_id)
    assert (await desk.delivery_after(alert, 1)).state == pb.DELIVERY_STATE_DEAD


async def test_a_delivered_alert_can_be_sent_again_and_to_another_webhook(desk: Desk, receiver: Receiver) -> None:
    first, other = [(await desk.create(receiver.url(path))).webhook.webhook_id for path in ("/1", "/2")]
    alert = await desk.send_to(first)
    await desk.delivery_after(alert, 1)
    await desk.redeliver(alert)
    await desk.delivery_after(alert, 2)
    again = await desk.redeliver(alert, other)
    assert {delivery.webhook_id for delivery in again.deliveries} == {first, other}
    assert [received.path for received in await receiver.until(3)] == ["/1", "/1", "/2"]
    assert await reason_of(desk.redeliver(alert, "wh_unknown")) == "WEBHOOK_NOT_FOUND"


async def test_one_accounts_slow_receivers_do_not_keep_anothers_alerts(
    service: BillingUnderTest, desk: Desk, receiver: Receiver
) -> None:
    async with Receiver(behaviours.hang) as slow:
        hooks = [(await desk.create(slow.url(f"/{number}"))).webhook.webhook_id for number in range(20)]
        await desk.send_to(*hooks)
        await slow.until(4)
        neighbour = Desk(service, await service.new_customer())
        await neighbour.send_to((await neighbour.create(receiver.url())).webhook.webhook_id)
        await receiver.until(1)
        assert slow.most_running == 4


async def test_deleting_a_webhook_ends_what_waits_for_it(
    desk: Desk, receiver: Receiver, service: BillingUnderTest
) -> None:
    receiver.behaviour = answering("500 Down")
    webhook_id = (await desk.create(receiver.url())).webhook.webhook_id
    update = pb.UpdateAlertSettingsRequest(
        alert_settings=pb.AlertSettings(sinks=[pb.AlertSink(webhook_id=webhook_id)]),
        update_mask=FieldMask(paths=["sinks"]),
    )
    await desk.stub.UpdateAlertSettings(update, metadata=desk.customer.metadata)
    alert = await desk.send_to()
    await desk.delivery_after(alert, 1)
    delete = pb.DeleteWebhookRequest(webhook_id=webhook_id)
    other = await service.new_customer()
    assert await reason_of(desk.stub.DeleteWebhook(delete, metadata=other.metadata)) == "WEBHOOK_NOT_FOUND"
    await desk.stub.DeleteWebhook(delete, metadata=desk.customer.metadata)
    delivery = await desk.delivery(alert)
    assert (delivery.state, delivery.last_failure) == (pb.DELIVERY_STATE_DEAD, pb.DELIVERY_FAILURE_WEBHOOK_DELETED)
    settings = await desk.stub.GetAlertSettings(pb.GetAlertSettingsRequest(), metadata=desk.customer.metadata)
    assert list(settings.alert_settings.sinks) == []
    assert await reason_of(desk.stub.DeleteWebhook(delete, metadata=desk.customer.metadata)) == "WEBHOOK_NOT_FOUND"
    listed = await desk.stub.ListWebhooks(pb.ListWebhooksRequest(), metadata=desk.customer.metadata)
    assert list(listed.webhooks) == []


async def test_at_most_twenty_webhooks(settings: BillingSettings, clock: ManualClock) -> None:
    names = Names(**{"hooks.example": ["127.0.0.1"]})
    async with billing(settings, clock, lookup=names) as service:
        desk = Desk(service, await service.new_customer())
        for number in range(20):
            await desk.create(f"http://hooks.example/{number}")
        assert await reason_of(desk.create("http://one-more.example/")) == "WEBHOOK_LIMIT_EXCEEDED"
        page = await desk.stub.ListWebhooks(pb.ListWebhooksRequest(page_size=15), metadata=desk.customer.metadata)
        request = pb.ListWebhooksRequest(page_token=page.next_page_token)
        rest = await desk.stub.ListWebhooks(request, metadata=desk.customer.metadata)
        assert (len(page.webhooks), len(rest.webhooks)) == (15, 5)
    assert set(names.asked) == {"hooks.example"}, "nothing is looked up for what is refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "https://10.0.0.1/",
        "https://[fd00:ec2::254]/",
        "file:///etc/passwd",
        "",
        "ftp://x",
    ],
)
async def test_addresses_that_no_webhook_may_have(desk: Desk, url: str) -> None:
    _, error = await failure_of(desk.create(url))
    assert [violation.field for violation in error.violations][:1] == ["url"]
    assert "169.254" not in error.message


@asynccontextmanager
async def _two(settings: BillingSettings, clock: ManualClock) -> AsyncIterator[list[BillingUnderTest]]:
    async with billing(settings, clock) as one, billing(settings, clock) as other:
        yield [one, other]


async def test_two_replicas_deliver_each_alert_once(
    settings: BillingSettings, clock: ManualClock, receiver: Receiver, billing_postgres: str
) -> None:
    shared = settings.model_copy(update={"billing_database": billing_postgres})
    async with _two(shared, clock) as replicas:
        desks = [Desk(replicas[0], await replicas[0].new_customer()) for _ in range(4)]
        sent = []
        for desk in desks:
            hook = (await desk.create(receiver.url())).webhook.webhook_id
            elsewhere = Desk(replicas[1], desk.customer)
            for number in range(10):
                at = (desk, elsewhere)[number % 2]
                sent.append(await at.send_to(hook))
        await receiver.until(len(sent))
        for desk in desks:
            for alert in sent:
                if alert.account_id == desk.customer.account_id:
                    await desk.delivery_after(alert, 1)
    ids = [received.headers["webhook-id"] for received in receiver.received]
    assert sorted(ids) == sorted(alert.alert_id for alert in sent)


async def test_nothing_of_an_address_or_a_secret_is_kept_in_plain(
    settings: BillingSettings, clock: ManualClock, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    async with billing(settings, clock) as service:
        desk = Desk(service, await service.new_customer())
        receiver.behaviour = answering("500 Down")
        created = await desk.create(receiver.url("/x?token=planted-token"))
        slack = await desk.create(receiver.url("/services/planted-path"), format=pb.WEBHOOK_FORMAT_SLACK)
        await desk.delivery_after(await desk.send_to(created.webhook.webhook_id), 1)
        await desk.delivery_after(await desk.send_to(slack.webhook.webhook_id), 1)
    kept = everything_in(settings.database_url())
    captured = capfd.readouterr()
    for planted in (created.secret, created.secret.removeprefix("whsec_"), "planted-token", "planted-path"):
        assert planted.encode() not in kept
        assert planted not in captured.out + captured.err


def test_what_is_sealed_opens_with_its_pepper_and_in_its_place_alone() -> None:
    sealer = PepperSealer(Secret("one-pepper"), secrets.token_bytes)
    sealed = sealer.seal("text", "wh_1/url")
    assert sealer.open(sealed, "wh_1/url").reveal() == "text"
    another = PepperSealer(Secret("another-pepper"), secrets.token_bytes)
    for other, place in ((sealer, "wh_2/url"), (another, "wh_1/url")):
        with pytest.raises(SealError):
            other.open(sealed, place)
