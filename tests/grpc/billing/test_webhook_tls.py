"""Webhooks over TLS: a receiver that does not prove its name is told nothing, and tried again until it does."""

from __future__ import annotations

import ssl

import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as pb

from services.billing.adapters.webhooks.sender import GuardedSender
from services.billing.config import BillingSettings
from services.billing.domain.targets import networks_of
from services.billing.domain.webhooks import DeliveryFailure
from services.shared.secret import Secret
from tests.grpc.billing.test_webhooks import Desk
from tests.grpc.shared.certificates import Authority, Certificate
from tests.support.billing import billing
from tests.support.clock import ManualClock
from tests.support.receiver import Names, Receiver

HOST = "hooks.example"
NAMES = {HOST: ["127.0.0.1"]}
LOOPBACK = "127.0.0.1/32"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("known"), "known")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("unknown"), "unknown")


@pytest.fixture
def settings(settings: BillingSettings, known: Authority, monkeypatch: pytest.MonkeyPatch) -> BillingSettings:
    """Of a billing whose system trusts the known authority and no other."""
    monkeypatch.setenv("SSL_CERT_FILE", str(known.file))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return settings.model_copy(update={"webhook_allowed_networks": LOOPBACK})


@pytest.fixture(params=["unknown authority", "another name", "the address alone"])
def wrong(request: pytest.FixtureRequest, known: Authority, unknown: Authority) -> Certificate:
    """A certificate that does not prove that its bearer is HOST."""
    if request.param == "unknown authority":
        return unknown.issue("right-name", f"DNS:{HOST}")
    name = "DNS:planted-name.example" if request.param == "another name" else "IP:127.0.0.1"
    return known.issue("wrong-name", name)


def served_with(issued: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


async def test_nothing_of_a_request_is_sent_before_the_name_is_proved(known: Authority, wrong: Certificate) -> None:
    trusting = ssl.create_default_context(cafile=str(known.file))
    sender = GuardedSender(Names(**NAMES), networks_of(LOOPBACK), tls=trusting)
    async with Receiver(tls=served_with(wrong)) as receiver:
        result = await sender.post("acct_1", Secret(receiver.url(host=HOST)), {"webhook-id": "alert_1"}, "{}")
        assert (result.failure, result.http_status) == (DeliveryFailure.TLS, 0)
        assert receiver.received == []
    async with Receiver(tls=served_with(known.issue("right", f"DNS:{HOST}"))) as receiver:
        result = await sender.post("acct_1", Secret(receiver.url(host=HOST)), {"webhook-id": "alert_1"}, "{}")
        assert (result.failure, len(receiver.received)) == (DeliveryFailure.NONE, 1)


async def test_a_delivery_waits_for_a_certificate_that_can_be_trusted(
    settings: BillingSettings,
    clock: ManualClock,
    known: Authority,
    wrong: Certificate,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with (
        Receiver(tls=served_with(wrong)) as receiver,
        billing(settings, clock, lookup=Names(**NAMES)) as service,
    ):
        desk = Desk(service, await service.new_customer())
        created = await desk.create(receiver.url("/planted-path?token=planted-token", HOST))
        alert = await desk.send_to(created.webhook.webhook_id, message="planted-message")
        delivery = await desk.delivery_after(alert, 1)
        assert (delivery.state, delivery.last_failure) == (pb.DELIVERY_STATE_PENDING, pb.DELIVERY_FAILURE_TLS)
        assert delivery.last_http_status == 0
        wait_us = delivery.next_attempt_time.ToMicroseconds() - clock.now_us()
        assert 0 < wait_us <= 5_500_000
        assert receiver.received == []
        assert receiver.tls is not None
        renewed = known.issue("renewed", f"DNS:{HOST}")
        receiver.tls.load_cert_chain(renewed.certificate, renewed.key)
        clock.advance_us(wait_us)
        delivery = await desk.delivery_after(alert, 2)
        assert (delivery.state, len(receiver.received)) == (pb.DELIVERY_STATE_DELIVERED, 1)
    captured = capfd.readouterr()
    told = captured.out + captured.err
    assert "alert_not_delivered" in told
    assert "failure=TLS" in told
    for planted in ("planted-path", "planted-token", "planted-message", "planted-name", HOST, created.secret):
        assert planted not in told
