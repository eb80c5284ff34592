"""Budgets against a real quota: WARN tells, BLOCK refuses at once, under load, until the period ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1 import budget_pb2
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from services.billing.config import BillingSettings
from services.shared.errors import FlowStackError
from services.shared.status import error_from_rpc
from tests.grpc.billing import test_with_quota as with_quota
from tests.grpc.billing.test_usage import usage_of
from tests.support.billing import BillingUnderTest, Customer, billing
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.plans import Desk
from tests.support.quota import CREDENTIALS, QuotaServer, new_session_id, stub

WARN, BLOCK = budget_pb2.BUDGET_ACTION_WARN, budget_pb2.BUDGET_ACTION_BLOCK
quota, settings = with_quota.quota, with_quota.settings  # a real quota in the place of the fake one


class Sessions:
    """Runs sessions of 100,000 tokens on the caller's own key."""

    def __init__(self, channel: grpc.aio.Channel, clock: ManualClock) -> None:
        self._stub: Any = stub(channel)
        self._clock = clock

    async def reserve(self, account_id: str) -> str:
        session_id = new_session_id(self._clock)
        candidate = type_pb2.Candidate(provider="openai", model="gpt-4o", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
        request = quota_pb.ReserveSessionRequest(account_id=account_id, session_id=session_id, candidates=[candidate])
        await self._stub.ReserveSession(request, metadata=CREDENTIALS)
        return session_id

    async def commit(self, account_id: str, session_id: str) -> None:
        outcome = type_pb2.SessionOutcome(
            served_provider="openai",
            served_model="gpt-4o",
            served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK,
            input_tokens=100_000,
            output_tokens=0,
        )
        request = quota_pb.CommitSessionRequest(account_id=account_id, session_id=session_id, outcome=outcome)
        await self._stub.CommitSession(request, metadata=CREDENTIALS)

    async def until_refused(self, account_id: str) -> tuple[int, str]:
        """How many sessions ran, and why the next one did not."""
        count = 0
        while True:
            try:
                session_id = await self.reserve(account_id)
            except Exception as error:
                return count, _reason(error)
            await self.commit(account_id, session_id)
            count += 1


@pytest.fixture
async def sessions(quota: QuotaServer, clock: ManualClock) -> AsyncIterator[Sessions]:
    async with grpc.aio.insecure_channel(quota.address) as channel:
        yield Sessions(channel, clock)


def _reason(error: Any) -> str:
    ours = error_from_rpc(error)
    assert isinstance(ours, FlowStackError)
    return ours.reason.value


async def set_budget(service: BillingUnderTest, customer: Customer, dollars: float | None, action: int = BLOCK) -> Any:
    micro = round((dollars or 0) * 1e6)
    money = Money(currency_code="USD", units=micro // 1_000_000, nanos=micro % 1_000_000 * 1000)
    budget = None if dollars is None else budget_pb2.Budget(max_monthly_cost=money, action=action)  # type: ignore[arg-type]
    request = pb.UpdateAlertSettingsRequest(
        alert_settings=pb.AlertSettings(budget=budget), update_mask=FieldMask(paths=["budget"])
    )
    return await service.alerts.UpdateAlertSettings(request, metadata=customer.metadata)


async def budget_alerts(service: BillingUnderTest, customer: Customer) -> list[pb.Alert]:
    request = pb.ListAlertsRequest(kinds=[pb.ALERT_KIND_BUDGET_EXCEEDED])
    return list((await service.alerts.ListAlerts(request, metadata=customer.metadata)).alerts)


async def test_a_budget_blocks_under_load_and_ends_with_the_period(
    settings: BillingSettings, sessions: Sessions, clock: ManualClock
) -> None:
    async with billing(settings, clock) as service:
        customer, neighbour = await service.new_customer("professional"), await service.new_customer("free")
        desk = Desk(service, customer)
        (invoice,) = await desk.invoices()
        await desk.pay(invoice.invoice_id)
        # Sessions are a quarter of a dollar each, on top of the fee: the third one crosses it.
        assert (await set_budget(service, customer, 200.6)).entitlement_applied
        running = await sessions.reserve(customer.account_id)
        ended = await asyncio.gather(*(sessions.until_refused(customer.account_id) for _ in range(4)))
        assert {reason for _, reason in ended} == {"BUDGET_EXCEEDED"}
        assert 3 <= sum(count for count, _ in ended) < 5000
        # In-flight sessions finish.
        await sessions.commit(customer.account_id, running)
        usage = await usage_of(service, customer)
        assert usage.refusal_reason == "BUDGET_EXCEEDED"
        assert (usage.budget.exceeded, usage.budget.blocking) == (True, True)
        assert usage.budget.exceed_time.ToMicroseconds() == clock.now_us()
        (alert,) = await budget_alerts(service, customer)
        assert (alert.severity, alert.budget.blocking) == (pb.ALERT_SEVERITY_CRITICAL, True)
        assert alert.budget.spent.units >= 200
        assert (alert.budget.remaining.units, alert.budget.remaining.nanos) == (0, 0)
        await sessions.commit(neighbour.account_id, await sessions.reserve(neighbour.account_id))
        # The period ends, and with it the block, without anybody's doing.
        clock.advance_us(us(2026, 4, 10, 12) - clock.now_us())
        await sessions.reserve(customer.account_id)
        assert len(await budget_alerts(service, customer)) == 1


async def test_raising_or_dropping_a_budget_lifts_the_block(
    settings: BillingSettings, sessions: Sessions, clock: ManualClock
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("starter")
        # The fee alone is beyond it.
        assert (await set_budget(service, customer, 49.999999)).entitlement_applied
        assert (await sessions.until_refused(customer.account_id)) == (0, "BUDGET_EXCEEDED")
        assert (await set_budget(service, customer, 50)).entitlement_applied
        await sessions.reserve(customer.account_id)
        assert not (await usage_of(service, customer)).budget.exceeded
        assert (await set_budget(service, customer, 0)).entitlement_applied
        assert (await sessions.until_refused(customer.account_id)) == (0, "BUDGET_EXCEEDED")
        assert (await set_budget(service, customer, None)).entitlement_applied
        await sessions.reserve(customer.account_id)
        assert not (await usage_of(service, customer)).HasField("budget")
        assert len(await budget_alerts(service, customer)) == 2


async def test_a_budget_that_warns_lets_sessions_go_on(
    settings: BillingSettings, sessions: Sessions, clock: ManualClock
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("free")
        await set_budget(service, customer, 1.0, WARN)
        assert (await sessions.until_refused(customer.account_id)) == (25, "SESSION_QUOTA_EXCEEDED")
        while not (alerts := await budget_alerts(service, customer)):
            pass
        assert [alert.severity for alert in alerts] == [pb.ALERT_SEVERITY_WARNING]
        assert not (await usage_of(service, customer)).budget.blocking
        assert clock.now_us() < us(2026, 3, 10, 12) + DAY_US
