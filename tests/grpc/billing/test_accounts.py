"""Accounts: created once, listed in pages."""

from __future__ import annotations

import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as pb
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscription_pb

from services.billing.config import BillingSettings
from tests.support.billing import ADMIN, BillingUnderTest, Customer, billing, failure_of, reason_of
from tests.support.clock import ManualClock


async def test_a_new_account_is_free_and_active(service: BillingUnderTest, clock: ManualClock) -> None:
    created = await service.open_account()
    assert created.account.plan_id == created.subscription.plan_id == "free"
    assert created.account.state == pb.ACCOUNT_STATE_ACTIVE
    assert created.account.create_time.ToMicroseconds() == clock.now_us()
    assert created.subscription.anchor_time == created.account.create_time
    read = await service.accounts.GetAccount(
        pb.GetAccountRequest(account_id=created.account.account_id), metadata=ADMIN
    )
    assert read.account == created.account


async def test_a_repeat_gets_the_first_answer(service: BillingUnderTest, clock: ManualClock) -> None:
    first = await service.open_account("hobbyist", request_id="once")
    clock.advance(3600)
    assert await service.open_account("hobbyist", request_id="once") == first
    listed = await service.accounts.ListAccounts(pb.ListAccountsRequest(), metadata=ADMIN)
    assert [account.account_id for account in listed.accounts] == [first.account.account_id]


async def test_a_repeat_after_a_restart_gets_the_first_answer(settings: BillingSettings, clock: ManualClock) -> None:
    async with billing(settings, clock) as service:
        first = await service.open_account(request_id="once")
    async with billing(settings, clock) as service:
        assert await service.open_account(request_id="once") == first


async def test_the_same_request_id_with_other_content_is_refused(service: BillingUnderTest) -> None:
    await service.open_account(request_id="once")
    for other in ({"display_name": "Eve"}, {"email": "eve@example.org"}, {"plan_id": "starter"}):
        assert await reason_of(service.open_account(**{"request_id": "once", **other})) == "DUPLICATE_REQUEST"


async def test_without_a_request_id_a_repeat_is_another_account(service: BillingUnderTest) -> None:
    first, second = await service.open_account(), await service.open_account()
    assert first.account.account_id != second.account.account_id


@pytest.mark.parametrize(("plan_id", "reason"), [("platinum", "PLAN_NOT_FOUND"), ("enterprise", "CONTRACT_REQUIRED")])
async def test_a_plan_that_is_not_sold_makes_no_account(service: BillingUnderTest, plan_id: str, reason: str) -> None:
    assert await reason_of(service.open_account(plan_id, request_id="r")) == reason
    listed = await service.accounts.ListAccounts(pb.ListAccountsRequest(), metadata=ADMIN)
    assert not listed.accounts
    # The request_id was undone with the rest: it is free for a request that works.
    await service.open_account("free", request_id="r")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("display_name", ""),
        ("display_name", "a\nb"),
        ("email", "nobody"),
        ("plan_id", "Free!"),
        ("request_id", "x" * 129),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named(service: BillingUnderTest, field: str, value: str) -> None:
    _, error = await failure_of(service.open_account(**{field: value}))
    assert [violation.field for violation in error.violations] == [field]


async def test_an_unknown_account_is_not_found(service: BillingUnderTest) -> None:
    for call in (
        service.accounts.GetAccount(pb.GetAccountRequest(account_id="acct_none"), metadata=ADMIN),
        service.accounts.ListApiKeys(pb.ListApiKeysRequest(account_id="acct_none"), metadata=ADMIN),
        service.accounts.CreateApiKey(pb.CreateApiKeyRequest(account_id="acct_none"), metadata=ADMIN),
        service.subscriptions.GetSubscription(
            subscription_pb.GetSubscriptionRequest(account_id="acct_none"), metadata=ADMIN
        ),
    ):
        assert await reason_of(call) == "ACCOUNT_NOT_FOUND"


async def test_pages_hold_every_account_once_newest_first(service: BillingUnderTest, clock: ManualClock) -> None:
    opened = []
    for number in range(7):
        # Two at a time are of the same moment: the id orders them.
        clock.advance(number % 2)
        opened.append((await service.open_account()).account)
    listed: list[pb.Account] = []
    token, sizes = "", []
    while True:
        page = await service.accounts.ListAccounts(
            pb.ListAccountsRequest(page_size=3, page_token=token), metadata=ADMIN
        )
        listed += page.accounts
        sizes.append(len(page.accounts))
        token = page.next_page_token
        if not token:
            break
    newest_first = sorted(opened, key=lambda a: (a.create_time.ToMicroseconds(), a.account_id), reverse=True)
    assert listed == newest_first
    assert sizes == [3, 3, 1]


async def test_filters_combine(service: BillingUnderTest) -> None:
    wanted = (await service.open_account("starter", email="Ada@Example.org")).account
    await service.open_account("starter", email="eve@example.org")
    await service.open_account("free", email="ada@example.org")
    request = pb.ListAccountsRequest(plan_id="starter", email="ada@example.ORG", states=[pb.ACCOUNT_STATE_ACTIVE])
    assert list((await service.accounts.ListAccounts(request, metadata=ADMIN)).accounts) == [wanted]
    request.states[:] = [pb.ACCOUNT_STATE_SUSPENDED]
    assert not (await service.accounts.ListAccounts(request, metadata=ADMIN)).accounts


async def test_another_calls_page_token_is_refused(service: BillingUnderTest, customer: Customer) -> None:
    await service.open_account("starter")
    await service.new_key(customer.account_id)
    page = await service.accounts.ListAccounts(pb.ListAccountsRequest(page_size=1), metadata=ADMIN)
    keys = await service.accounts.ListApiKeys(pb.ListApiKeysRequest(page_size=1), metadata=customer.metadata)
    assert page.next_page_token
    assert keys.next_page_token
    for request in (
        pb.ListAccountsRequest(page_token=keys.next_page_token),
        pb.ListAccountsRequest(page_token=page.next_page_token, plan_id="starter"),
        pb.ListAccountsRequest(page_token=page.next_page_token + "A"),
        pb.ListAccountsRequest(page_token="é"),
        pb.ListAccountsRequest(page_token="AAAA"),
    ):
        _, error = await failure_of(service.accounts.ListAccounts(request, metadata=ADMIN))
        assert [violation.field for violation in error.violations] == ["page_token"]
    # The same call with another page_size goes on.
    request = pb.ListAccountsRequest(page_size=10, page_token=page.next_page_token)
    assert len((await service.accounts.ListAccounts(request, metadata=ADMIN)).accounts) == 1
    other = await service.new_customer()
    call = service.accounts.ListApiKeys(pb.ListApiKeysRequest(page_token=keys.next_page_token), metadata=other.metadata)
    assert await reason_of(call) == "INVALID_REQUEST"
