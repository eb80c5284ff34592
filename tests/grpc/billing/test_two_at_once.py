"""Two replicas of billing on one PostgreSQL that are told the same, or the contrary, in the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as account_pb
from flowstack_protos.billing.v1 import invoice_pb2

from services.shared.status import error_from_rpc
from tests.support.billing import BillingUnderTest, billing, settings_for
from tests.support.clock import ManualClock
from tests.support.fake_quota_events import FakeQuotaEvents
from tests.support.plans import Desk, amount_of

ROUNDS = 12
"""Each with a fresh customer, so that the two meet at many points of the transaction."""


@pytest.fixture
async def replicas(
    tmp_path: Path, quota: FakeQuotaEvents, billing_postgres: str, clock: ManualClock
) -> AsyncIterator[tuple[BillingUnderTest, BillingUnderTest]]:
    settings = settings_for(tmp_path, quota.address, billing_database=billing_postgres)
    async with billing(settings, clock) as one, billing(settings, clock) as other:
        yield one, other


Told = list[tuple[object, str]]
"""What each replica answered, and the reason where it refused."""


async def both(replicas: tuple[BillingUnderTest, BillingUnderTest], desk: Desk, say: Callable[[Desk], object]) -> Told:
    async def told(service: BillingUnderTest) -> tuple[object, str]:
        try:
            call = say(Desk(service, desk.customer))
            assert isinstance(call, Awaitable)
            return await call, ""
        except grpc.aio.AioRpcError as error:
            ours = error_from_rpc(error)
            assert ours is not None, error
            return None, ours.reason.value

    return list(await asyncio.gather(*(told(service) for service in replicas)))


def reasons(told: Told) -> list[str]:
    return sorted(reason for _, reason in told)


async def test_a_change_with_one_request_id_happens_once(
    replicas: tuple[BillingUnderTest, BillingUnderTest],
) -> None:
    for number in range(ROUNDS):
        desk = Desk(replicas[0], await replicas[0].new_customer("starter"))
        told = await both(replicas, desk, lambda d, n=number: d.change("professional", request_id=f"r{n}"))
        assert reasons(told) == ["", ""]
        first, second = (answer for answer, _ in told)
        assert (first.change, first.invoice) == (second.change, second.invoice)  # type: ignore[attr-defined]
        assert await desk.amounts() == [50, 150]


async def test_of_two_changes_with_one_etag_one_holds(replicas: tuple[BillingUnderTest, BillingUnderTest]) -> None:
    for _ in range(ROUNDS):
        desk = Desk(replicas[0], await replicas[0].new_customer("starter"))
        etag = (await desk.view()).subscription.etag
        told = await both(replicas, desk, lambda d, e=etag: d.change("professional", etag=e))
        assert reasons(told) == ["", "STALE_ETAG"]
        assert await desk.amounts() == [50, 150]


async def test_changes_without_etag_are_one_after_the_other(
    replicas: tuple[BillingUnderTest, BillingUnderTest], quota: FakeQuotaEvents
) -> None:
    for _ in range(ROUNDS):
        desk = Desk(replicas[0], await replicas[0].new_customer("starter"))
        plans = iter(("professional", "hobbyist"))
        told = await both(replicas, desk, lambda d, p=plans: d.change(next(p)))
        assert reasons(told) == ["", ""]
        assert await desk.amounts() == [50, 150]
        subscription = (await desk.view()).subscription
        await quota.until(
            lambda d=desk, s=subscription: quota.entitlements[d.account_id].revision == s.entitlement_revision
        )


async def test_credits_never_exceed_the_line(replicas: tuple[BillingUnderTest, BillingUnderTest]) -> None:
    for _ in range(ROUNDS):
        desk = Desk(replicas[0], await replicas[0].new_customer("starter"))
        (invoice,) = await desk.invoices()
        names = iter(("c1", "c2"))
        told = await both(replicas, desk, lambda d, i=invoice, n=names: d.credit(i.invoice_id, 30, next(n)))
        assert reasons(told) == ["", "INVALID_REQUEST"]
        (credited,) = await desk.invoices()
        assert [amount_of(note.total) for note in credited.credit_notes] == [30]


async def test_an_invoice_is_paid_or_void(replicas: tuple[BillingUnderTest, BillingUnderTest]) -> None:
    for _ in range(ROUNDS):
        desk = Desk(replicas[0], await replicas[0].new_customer("starter"))
        (invoice,) = await desk.invoices()
        acts = iter((Desk.pay, Desk.void))
        told = await both(replicas, desk, lambda d, i=invoice, a=acts: next(a)(d, i.invoice_id))
        assert reasons(told) == ["", "INVOICE_NOT_OPEN"]
        (settled,) = await desk.invoices()
        paid_first = told[0][1] == ""
        assert settled.state == (invoice_pb2.INVOICE_STATE_PAID if paid_first else invoice_pb2.INVOICE_STATE_VOID)


async def test_a_key_is_rotated_once(replicas: tuple[BillingUnderTest, BillingUnderTest]) -> None:
    for _ in range(ROUNDS):
        desk = Desk(replicas[0], await replicas[0].new_customer("starter"))
        request = account_pb.RotateApiKeyRequest(api_key_id=desk.customer.api_key_id)
        told = await both(
            replicas, desk, lambda d, r=request: d.service.accounts.RotateApiKey(r, metadata=d.customer.metadata)
        )
        assert reasons(told) == ["", "API_KEY_NOT_ACTIVE"]
        listed = await replicas[1].accounts.ListApiKeys(
            account_pb.ListApiKeysRequest(), metadata=desk.customer.metadata
        )
        assert len(listed.api_keys) == 2
