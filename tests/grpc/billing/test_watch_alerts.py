"""WatchAlerts and a reader that takes nothing: it is cut off, and misses nothing."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceStub

from services.billing import __main__ as billing_main
from services.billing.config import BillingSettings
from services.billing.servicer.alerts import AlertServicer
from services.shared.status import error_from_rpc
from tests.support.billing import QUICK, BillingUnderTest
from tests.support.clock import ManualClock

ALERTS = 40
DATA = f'{{"x":"{"y" * 16_000}"}}'
"""Forty times that is more than what the server's and the reader's sides of gRPC hold together."""

READERS_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    # So that the reader's side takes no more than 64 KiB of a stream that is not read.
    ("grpc.http2.bdp_probe", 0),
)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Is set once a stream of alerts has ended. A reader may leave a message lying for a moment only."""
    left = asyncio.Event()

    class NotingServicer(AlertServicer):
        async def WatchAlerts(self, request: Any, context: Any) -> None:
            try:
                await super().WatchAlerts(request, context)
            finally:
                left.set()

    monkeypatch.setattr(billing_main, "AlertServicer", partial(NotingServicer, write_timeout_s=0.2))
    return left


async def numbers_of(stream: Any) -> tuple[list[int], str, grpc.aio.AioRpcError]:
    """Reads a stream to its end: the alerts' numbers, the last token, and the error that it ended with."""
    numbers, token = list[int](), ""
    try:
        while True:
            message = await stream.read()
            token = message.resume_token
            if message.HasField("alert"):
                numbers.append(int(message.alert.message))
    except grpc.aio.AioRpcError as error:
        return numbers, token, error


async def test_a_reader_that_takes_nothing_is_cut_off_and_misses_nothing(
    settings: BillingSettings, clock: ManualClock, cut_off: asyncio.Event
) -> None:
    async with billing_main.running(settings, clock, QUICK) as host:
        await host.start()
        address = f"127.0.0.1:{host.bound_ports[0]}"
        async with (
            grpc.aio.insecure_channel(address) as channel,
            grpc.aio.insecure_channel(address, options=READERS_OPTIONS) as readers_channel,
        ):
            service, reader = BillingUnderTest(channel, channel), AlertServiceStub(readers_channel)
            customer = await service.new_customer()
            stream: Any = reader.WatchAlerts(pb.WatchAlertsRequest(), metadata=customer.metadata)
            first = await stream.read()
            for number in range(ALERTS):
                request = pb.SendAlertRequest(message=str(number), data_json=DATA)
                await service.alerts.SendAlert(request, metadata=customer.metadata)
            await cut_off.wait()
            seen, token, error = await numbers_of(stream)
            ours = error_from_rpc(error)
            assert ours is not None
            assert (error.code(), ours.reason.value) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "READER_TOO_SLOW")
            assert len(seen) < ALERTS
            again: Any = reader.WatchAlerts(
                pb.WatchAlertsRequest(resume_token=token or first.resume_token), metadata=customer.metadata
            )
            while len(seen) < ALERTS:
                message = await again.read()
                if message.HasField("alert"):
                    seen.append(int(message.alert.message))
            assert seen == list(range(ALERTS))
            again.cancel()
        await host.drain(0)
