"""Streams of alerts and of usage: how they begin, where they go on, how many there may be."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import usage_service_pb2 as usages

from tests.contract.target import Customer, Target, details_of, refusal

STREAMS_MAX = 1_000


def alerts_of(customer: Customer, **fields: Any) -> Any:
    """A stream of the customer's alerts."""
    request = alerts.WatchAlertsRequest(**fields)
    return customer.target.alerts.WatchAlerts(request, metadata=customer.metadata)


def usage_of(customer: Customer) -> Any:
    """A stream of the customer's usage."""
    return customer.target.usage.WatchUsage(usages.WatchUsageRequest(), metadata=customer.metadata)


def send(customer: Customer, message: str) -> None:
    customer.call(customer.target.alerts.SendAlert, alerts.SendAlertRequest(message=message))


def test_a_stream_of_alerts_begins_with_a_sign_of_life(free: Customer) -> None:
    send(free, "before")
    stream = alerts_of(free)
    sign = next(stream)
    assert not sign.HasField("alert")
    send(free, "first")
    first = next(stream)
    assert first.alert.message == "first"
    stream.cancel()
    send(free, "second")
    for token, missed in ((sign.resume_token, ["first", "second"]), (first.resume_token, ["second"])):
        again = alerts_of(free, resume_token=token)
        assert not next(again).HasField("alert")
        assert [next(again).alert.message for _ in missed] == missed
        again.cancel()


def test_a_stream_of_alerts_passes_other_kinds_over(free: Customer) -> None:
    stream = alerts_of(free, kinds=[alerts.ALERT_KIND_USAGE_THRESHOLD])
    assert not next(stream).HasField("alert")
    send(free, "mine")
    for _ in range(19):
        list(free.complete())
    assert next(stream).alert.threshold == 75
    stream.cancel()


@pytest.mark.parametrize("token", ["nonsense", "another account's", "0"])
def test_a_token_of_another_account_is_refused(target: Target, free: Customer, token: str) -> None:
    if token == "another account's":
        stream = alerts_of(target.open_account())
        token = next(stream).resume_token
        stream.cancel()
    code, info = refusal(lambda: alerts_of(free, resume_token=token))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_an_account_may_have_1000_streams_open(free: Customer) -> None:
    streams = [alerts_of(free) if place % 2 else usage_of(free) for place in range(STREAMS_MAX)]
    try:
        for stream in streams:
            next(stream)
        for open_one in (alerts_of, usage_of):
            with pytest.raises(grpc.RpcError) as caught:
                next(open_one(free))
            info, retry = details_of(caught.value)
            assert (info.reason, dict(info.metadata)) == ("CONCURRENCY_LIMIT_EXCEEDED", {"limit": "1000"})
            assert retry.retry_delay.seconds == 1
        streams[0].cancel()
        while True:  # the service hears of it a moment later; the test's own time limit ends one that does not
            streams[0] = usage_of(free)
            try:
                next(streams[0])
                break
            except grpc.RpcError as too_early:
                assert too_early.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    finally:
        for stream in streams:
            stream.cancel()
