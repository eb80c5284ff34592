"""A reader whose connection died without a word: its stream ends, and no longer counts."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from flowstack_protos.billing.v1 import usage_service_pb2 as pb

from services.billing import __main__ as billing_main
from services.billing.config import BillingSettings
from services.shared import server
from tests.support.billing import QUICK, BillingUnderTest
from tests.support.clock import ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents
from tests.support.relay import Relay

WAITS = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
IMPATIENT = tuple((name, 200 if name in WAITS else value) for name, value in server.OPTIONS)


async def test_a_stream_ends_with_its_dead_connection(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OPTIONS", IMPATIENT)
    async with billing_main.running(settings, clock, QUICK) as host:
        await host.start()
        with Relay(f"127.0.0.1:{host.bound_ports[0]}") as relay:
            async with grpc.aio.insecure_channel(relay.address) as channel:
                service = BillingUnderTest(channel, channel)
                customer = await service.new_customer("starter")
                stream = service.usage.WatchUsage(pb.WatchUsageRequest(), metadata=customer.metadata)
                await stream.read()
                assert quota.watching == 1
                relay.fall_silent()
                async with asyncio.timeout(60):
                    await quota.until(lambda: quota.watching == 0)
        await host.drain(0)
