"""How many streams of usage and alerts an account may have open."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as alert_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb

from services.billing import __main__ as billing_main
from services.billing.config import BillingSettings
from services.billing.servicer.streams import STREAMS_MAX, StreamLimit
from services.shared.errors import FlowStackError
from tests.support.billing import BillingUnderTest, Customer, billing, failure_of
from tests.support.clock import ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents


def usage_of(service: BillingUnderTest, customer: Customer) -> Any:
    return service.usage.WatchUsage(usage_pb.WatchUsageRequest(), metadata=customer.metadata)


def alerts_of(service: BillingUnderTest, customer: Customer) -> Any:
    return service.alerts.WatchAlerts(alert_pb.WatchAlertsRequest(), metadata=customer.metadata)


async def test_usage_and_alerts_share_the_limit_and_accounts_do_not(
    settings: BillingSettings, quota: FakeQuotaEvents, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing_main, "StreamLimit", partial(StreamLimit, 3))
    async with billing(settings, clock) as service, asyncio.timeout(60):
        customer, other = await service.new_customer("starter"), await service.new_customer("starter")
        streams = [usage_of(service, customer), alerts_of(service, customer), usage_of(service, customer)]
        for stream in streams:
            await stream.read()
        for refused in (usage_of, alerts_of):
            code, error = await failure_of(refused(service, customer))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.reason.value == "CONCURRENCY_LIMIT_EXCEEDED"
            assert error.metadata["limit"] == "3"
            assert error.retry_after is not None
        others = [usage_of(service, other), alerts_of(service, other)]
        for stream in others:
            await stream.read()
        streams[1].cancel()
        while True:
            # The server hears of it a moment later.
            try:
                await (again := alerts_of(service, customer)).read()
                break
            except grpc.aio.AioRpcError as too_early:
                assert too_early.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for stream in (*streams, *others, again):
            stream.cancel()


def test_a_stream_beyond_the_limit_is_refused_until_one_ends() -> None:
    limit = StreamLimit()
    with ExitStack() as first, ExitStack() as rest:
        first.enter_context(limit.one_more("acct_1"))
        for _ in range(STREAMS_MAX - 1):
            rest.enter_context(limit.one_more("acct_1"))
        with pytest.raises(FlowStackError), limit.one_more("acct_1"):
            pass
        first.close()
        with limit.one_more("acct_1"):
            pass
