"""Billing and the real quota service together: what one sells, the other grants, and the ledger adds it up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb
from flowstack_protos.billing.v1 import usage_service_pb2 as usage_pb
from flowstack_protos.quota.v1 import quota_service_pb2 as quota_pb
from flowstack_protos.type.v1 import type_pb2

from services.billing.config import BillingSettings
from services.shared.secret import Secret
from tests.support.billing import ADMIN, BillingUnderTest, Customer, billing, reason_of, settings_for
from tests.support.clock import DAY_US, ManualClock, us
from tests.support.database import read_rows
from tests.support.plans import Desk, dollars
from tests.support.quota import CREDENTIALS, INTERNAL_TOKEN, QuotaServer, new_session_id, quota_server, stub

BYOK, MANAGED = type_pb2.CREDENTIAL_MODE_BYOK, type_pb2.CREDENTIAL_MODE_MANAGED


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def quota(tmp_path: Path, clock: ManualClock) -> AsyncIterator[QuotaServer]:
    async with quota_server(tmp_path, clock, maintained=True) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, quota: QuotaServer, database_address: str) -> BillingSettings:
    token = Secret(INTERNAL_TOKEN)
    return settings_for(tmp_path, quota.address, internal_token=token, billing_database=database_address)


class Router:
    """Runs sessions at quota as a router does."""

    def __init__(self, channel: grpc.aio.Channel, clock: ManualClock) -> None:
        self._stub: Any = stub(channel)
        self._clock = clock

    async def run(self, account_id: str, provider: str = "openai", mode: int = BYOK, *, fail: bool = False) -> str:
        """Reserves a session and commits it, or releases it."""
        session_id = new_session_id(self._clock)
        candidate = type_pb2.Candidate(provider=provider, model="m", credential_mode=mode)  # type: ignore[arg-type]
        reserve = quota_pb.ReserveSessionRequest(account_id=account_id, session_id=session_id, candidates=[candidate])
        await self._stub.ReserveSession(reserve, metadata=CREDENTIALS)
        if fail:
            reason = type_pb2.RELEASE_REASON_PROVIDER_FAILED
            release = quota_pb.ReleaseSessionRequest(account_id=account_id, session_id=session_id, reason=reason)
            await self._stub.ReleaseSession(release, metadata=CREDENTIALS)
        else:
            outcome = type_pb2.SessionOutcome(served_provider=provider, served_credential_mode=mode)  # type: ignore[arg-type]
            commit = quota_pb.CommitSessionRequest(account_id=account_id, session_id=session_id, outcome=outcome)
            await self._stub.CommitSession(commit, metadata=CREDENTIALS)
        return session_id


@pytest.fixture
async def router(quota: QuotaServer, clock: ManualClock) -> AsyncIterator[Router]:
    async with grpc.aio.insecure_channel(quota.address) as channel:
        yield Router(channel, clock)


async def usage_of(service: BillingUnderTest, customer: Customer) -> usage_pb.Usage:
    response: usage_pb.GetUsageResponse = await service.usage.GetUsage(
        usage_pb.GetUsageRequest(), metadata=customer.metadata
    )
    return response.usage


async def drained_usage(service: BillingUnderTest, customer: Customer) -> usage_pb.Usage:
    """The usage once the ledger has every counted session of today."""
    while True:
        usage = await usage_of(service, customer)
        if usage.sessions_used_today == usage.sessions_used:
            return usage


async def test_a_plan_grants_what_it_says_and_no_more(
    settings: BillingSettings, clock: ManualClock, router: Router
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("free")
        outcomes = await asyncio.gather(*(router.run(customer.account_id) for _ in range(60)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert len(outcomes) - len(refused) == 25
        # At most 25 run at once, and at most 25 in all: the rest is told either.
        assert {type(error) for error in refused} == {grpc.aio.AioRpcError}
        usage = await drained_usage(service, customer)
        assert (usage.sessions_used, usage.sessions_remaining, usage.can_make_requests) == (25, 0, False)
        assert usage.refusal_reason == "SESSION_QUOTA_EXCEEDED"
        assert await reason_of(router.run(customer.account_id)) == "SESSION_QUOTA_EXCEEDED"
    assert len(read_rows(settings.billing_database)) == 25


async def test_the_free_plan_has_nothing_managed(settings: BillingSettings, clock: ManualClock, router: Router) -> None:
    async with billing(settings, clock) as service:
        free, paid = await service.new_customer("free"), await service.new_customer("hobbyist")
        assert await reason_of(router.run(free.account_id, "bedrock", MANAGED)) == "BYOK_REQUIRED"
        await router.run(paid.account_id, "bedrock", MANAGED)
        usage = await drained_usage(service, paid)
        assert (usage.managed_sessions, usage.byok_sessions, usage.unpriced_sessions) == (1, 0, 0)
        assert (await usage_of(service, free)).sessions_used == 0


async def test_the_ledger_equals_the_counters_over_restarts(
    settings: BillingSettings, clock: ManualClock, router: Router
) -> None:
    customers: list[Customer] = []
    for restart in range(3):
        async with billing(settings, clock) as service:
            customers.append(await service.new_customer("starter"))
            for number in range(12):
                customer = customers[number % len(customers)]
                mode = MANAGED if number % 3 else BYOK
                await router.run(customer.account_id, "bedrock", mode, fail=number % 4 == 0)
            if restart == 2:
                usages = [await drained_usage(service, customer) for customer in customers]
        clock.advance(60)
    rows = [row for row in read_rows(settings.billing_database) if row["event"] == 1]
    counted = Counter((row["account_id"], row["credential_mode"]) for row in rows)
    for usage in usages:
        assert usage.managed_sessions == counted[usage.account_id, MANAGED]
        assert usage.byok_sessions == counted[usage.account_id, BYOK]
    assert len(rows) == 27


async def test_sessions_beside_changes_of_the_plan_never_pass_the_limit_that_holds(
    settings: BillingSettings, clock: ManualClock, router: Router
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("hobbyist")
        desk = Desk(service, customer)

        def contract(limit: int, price: int) -> subscription_pb.Contract:
            return subscription_pb.Contract(
                plan_id="hobbyist", price=dollars(price), session_limit=limit, max_concurrent_sessions=500
            )

        async def attempt(count: int) -> int:
            sessions = [router.run(customer.account_id) for _ in range(count)]
            ended = await asyncio.gather(*sessions, return_exceptions=True)
            return sum(isinstance(one, str) for one in ended)

        assert (await desk.contract(contract(10, 15))).entitlement_applied
        granted, _ = await asyncio.gather(attempt(60), desk.contract(contract(30, 20)))
        assert 10 <= granted <= 30
        # What was used stays used, and the new limit holds exactly.
        granted += await attempt(60)
        assert granted == 30
        # A downgrade waits: nothing is refused that was paid for.
        downgraded = await desk.contract(contract(5, 1))
        assert downgraded.change.kind == subscription_pb.CHANGE_KIND_DOWNGRADE
        usage = await drained_usage(service, customer)
        assert (usage.sessions_used, usage.sessions_limit, usage.current_charges.units) == (30, 30, 20)
        clock.advance_us(us(2026, 4, 10, 12) - clock.now_us())
        await desk.pay_all()
        # In the new period quota has come to the lower limit by itself, whether billing was there or not.
        assert await attempt(20) == 5


async def test_a_cancelled_account_is_refused_after_its_end_and_serves_again_after_a_new_start(
    settings: BillingSettings, clock: ManualClock, router: Router
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("hobbyist")
        desk = Desk(service, customer)
        (invoice,) = await desk.invoices()
        await desk.pay(invoice.invoice_id)
        await desk.cancel()
        await router.run(customer.account_id)
        clock.advance_us(us(2026, 4, 10, 12) - clock.now_us())
        assert await reason_of(router.run(customer.account_id)) == "SUBSCRIPTION_ENDED"
        assert (await desk.change("starter")).entitlement_applied
        await router.run(customer.account_id)
        assert (await usage_of(service, customer)).sessions_used == 1


async def test_overdue_and_suspended_accounts_start_no_sessions(
    settings: BillingSettings, clock: ManualClock, router: Router
) -> None:
    async with billing(settings, clock) as service:
        customer = await service.new_customer("hobbyist")
        desk = Desk(service, customer)
        (invoice,) = await desk.invoices()
        suspend = account_pb.SuspendAccountRequest(account_id=customer.account_id, reason="abuse")
        await service.accounts.SuspendAccount(suspend, metadata=ADMIN)
        assert await reason_of(router.run(customer.account_id)) == "ACCOUNT_SUSPENDED"
        lift = account_pb.SuspendAccountRequest(account_id=customer.account_id, lift=True)
        await service.accounts.SuspendAccount(lift, metadata=ADMIN)
        await router.run(customer.account_id)
        clock.advance_us(28 * DAY_US)
        while (await usage_of(service, customer)).refusal_reason != "PAYMENT_OVERDUE":
            pass
        assert await reason_of(router.run(customer.account_id)) == "PAYMENT_OVERDUE"
        await desk.pay(invoice.invoice_id)
        await router.run(customer.account_id)


async def test_reconciliation_finds_nothing_while_sessions_come_and_go(
    settings: BillingSettings, clock: ManualClock, router: Router
) -> None:
    async with billing(settings, clock) as service:
        customers = [await service.new_customer("starter") for _ in range(3)]

        async def run_sessions(customer: Customer) -> None:
            for number in range(30):
                mode = MANAGED if number % 3 else BYOK
                await router.run(customer.account_id, "bedrock", mode, fail=number % 4 == 0)

        load = asyncio.gather(*(run_sessions(customer) for customer in customers))
        compared = 0
        while not load.done():
            found = await service.usage.ReconcileUsage(usage_pb.ReconcileUsageRequest(), metadata=ADMIN)
            assert list(found.drifts) == []
            assert found.accounts_compared == 3
            compared += 1
        await load
        assert compared > 1
        # As the ledger is complete up to now, the statement is about every session there was.
        found = await service.usage.ReconcileUsage(usage_pb.ReconcileUsageRequest(), metadata=ADMIN)
        assert list(found.drifts) == []
        assert found.as_of_time.ToMicroseconds() > 0
