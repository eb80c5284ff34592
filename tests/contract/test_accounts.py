"""Accounts as the operator has them: listed, suspended for a while, deleted for good."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as pb
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.billing.v1 import usage_service_pb2 as usage

from tests.contract.target import Customer, details_of, kinds, refusal

DAY_S = 24 * 3600


def account_of(customer: Customer) -> pb.Account:
    """As the operator reads it."""
    request = pb.GetAccountRequest(account_id=customer.account_id)
    return customer.target.operate(customer.target.accounts.GetAccount, request).account


def suspend(customer: Customer, **fields: Any) -> pb.Account:
    """The operator suspends an account, or lifts that."""
    request = pb.SuspendAccountRequest(account_id=customer.account_id, **fields)
    return customer.target.operate(customer.target.accounts.SuspendAccount, request).account


def delete(customer: Customer, **fields: Any) -> pb.DeleteAccountResponse:
    """The operator deletes an account."""
    request = pb.DeleteAccountRequest(account_id=customer.account_id, **fields)
    return customer.target.operate(customer.target.accounts.DeleteAccount, request)


def test_a_deleted_account_has_no_keys_and_no_subscription(hobbyist: Customer) -> None:
    deleted = delete(hobbyist, reason="asked for it")
    again = delete(hobbyist)
    code, info = refusal(hobbyist.usage)
    standing = hobbyist.target.operate(
        hobbyist.target.subscriptions.GetSubscription,
        subscriptions.GetSubscriptionRequest(account_id=hobbyist.account_id),
    )
    listed = invoices.ListInvoicesRequest(account_id=hobbyist.account_id)

    account = deleted.account
    assert (account.state, deleted.entitlement_applied) == (pb.ACCOUNT_STATE_DELETED, True)
    assert account.purge_time.seconds - account.delete_time.seconds == 30 * DAY_S
    assert again.account == account == account_of(hobbyist)
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED")
    assert standing.subscription.state == subscriptions.SUBSCRIPTION_STATE_ENDED
    assert standing.subscription.end_time == account.delete_time
    assert standing.changes[0].kind == subscriptions.CHANGE_KIND_CANCELLATION
    kept = hobbyist.target.operate(hobbyist.target.invoices.ListInvoices, listed).invoices
    assert [invoice.customer_name for invoice in kept] == ["C"]


def test_a_deleted_account_is_changed_no_more(free: Customer) -> None:
    delete(free)
    target, named = free.target, {"account_id": free.account_id}
    wanted = subscriptions.ChangePlanRequest(plan_id="starter", **named)
    contract = subscriptions.Contract(offer_id="volume-10k")
    calls = [
        (target.subscriptions.ChangePlan, wanted),
        (target.subscriptions.PutContract, subscriptions.PutContractRequest(contract=contract, **named)),
        (target.accounts.CreateApiKey, pb.CreateApiKeyRequest(**named)),
        (target.accounts.SuspendAccount, pb.SuspendAccountRequest(reason="x", **named)),
        (target.alerts.CreateWebhook, alerts.CreateWebhookRequest(url="https://hooks.invalid/x", **named)),
        (target.alerts.SendAlert, alerts.SendAlertRequest(message="x", **named)),
    ]
    reasons = {refusal(lambda call=call: target.operate(*call))[1].reason for call in calls}

    assert reasons == {"ACCOUNT_DELETED"}
    read = usage.GetUsageRequest(**named)
    assert target.operate(target.usage.GetUsage, read).usage.refusal_reason == "SUBSCRIPTION_ENDED"


def test_a_session_that_runs_outlives_its_account(free: Customer) -> None:
    stream = free.complete(labels={"echo.words": "3", "echo.delay_ms": "300"})
    assert kinds([next(stream)]) == ["session_started"]
    delete(free)

    assert kinds(stream)[-1] == "session_finished"


def test_deleted_accounts_are_listed_on_request_alone(free: Customer) -> None:
    request = pb.CreateAccountRequest(display_name="L", email=f"{free.account_id}@Example.com")
    found = free.target.operate(free.target.accounts.CreateAccount, request).account
    one = Customer(free.target, found.account_id, "")
    email = request.email.lower()

    def listed(*states: pb.AccountState.ValueType) -> list[str]:
        wanted = pb.ListAccountsRequest(email=email, states=states)
        answered = free.target.operate(free.target.accounts.ListAccounts, wanted)
        return [account.account_id for account in answered.accounts]

    before = listed()
    delete(one)

    assert before == [one.account_id]
    assert listed() == listed(pb.ACCOUNT_STATE_ACTIVE) == []
    assert listed(pb.ACCOUNT_STATE_DELETED) == [one.account_id]


def test_etags_guard_accounts(free: Customer) -> None:
    before = account_of(free)
    suspended = suspend(free, reason="a test", etag=before.etag)
    code, info = refusal(lambda: delete(free, etag=before.etag))
    lifted = suspend(free, lift=True, etag=suspended.etag)

    assert (suspended.state, suspended.suspend_reason) == (pb.ACCOUNT_STATE_SUSPENDED, "a test")
    assert suspended.suspend_time == suspended.update_time
    assert (code, info.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert dict(info.metadata) == {"etag": suspended.etag}
    assert (lifted.state, lifted.suspend_reason) == (pb.ACCOUNT_STATE_ACTIVE, "")
    assert not lifted.HasField("suspend_time")
    assert suspend(free, lift=True).etag == lifted.etag


def test_a_suspension_says_when_it_ends(free: Customer) -> None:
    until = {"seconds": account_of(free).create_time.seconds + 10 * DAY_S}
    suspended = suspend(free, reason="a test", until_time=until)

    assert suspended.suspend_until_time.seconds == until["seconds"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, ""),
        ({"lift": True, "reason": "x"}, ""),
        ({"reason": "x", "until_time": {"seconds": 1}}, "until_time"),
        ({"reason": "x" * 513}, "reason"),
        ({"reason": "x\x1b[2J"}, "reason"),
    ],
)
def test_a_bad_suspension_is_refused(free: Customer, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        suspend(free, **fields)

    info, bad = details_of(caught.value)
    assert info.reason == "INVALID_REQUEST"
    assert [violation.field for violation in bad.field_violations] == [field]


@pytest.mark.parametrize("reason", ["x\n", "\0", "x\x7f"])
def test_reasons_are_text_on_one_line(free: Customer, reason: str) -> None:
    cancel = subscriptions.CancelSubscriptionRequest(reason=reason)
    calls = [
        lambda: delete(free, reason=reason),
        lambda: free.call(free.target.subscriptions.CancelSubscription, cancel),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        _, bad = details_of(caught.value)
        assert [violation.field for violation in bad.field_violations] == ["reason"]


def test_a_rotated_keys_overlap_is_a_day_by_default(free: Customer) -> None:
    (old,) = free.call(free.target.accounts.ListApiKeys, pb.ListApiKeysRequest()).api_keys
    rotated = free.call(free.target.accounts.RotateApiKey, pb.RotateApiKeyRequest(api_key_id=old.api_key_id))
    again, info = refusal(
        lambda: free.call(free.target.accounts.RotateApiKey, pb.RotateApiKeyRequest(api_key_id=old.api_key_id))
    )

    previous = rotated.previous_api_key
    assert previous.expire_time.ToMicroseconds() - rotated.api_key.create_time.ToMicroseconds() == DAY_S * 1_000_000
    assert previous.rotated_to_api_key_id == rotated.api_key.api_key_id
    assert (again, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_NOT_ACTIVE")


def test_a_key_begins_before_it_ends(free: Customer) -> None:
    request = pb.CreateApiKeyRequest(expire_time={"seconds": 1})
    code, info = refusal(lambda: free.call(free.target.accounts.CreateApiKey, request))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_the_operator_names_the_account(free: Customer) -> None:
    code, info = refusal(lambda: free.target.operate(free.target.usage.GetUsage, usage.GetUsageRequest()))

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_nobody_is_told_whose_a_key_is(free: Customer) -> None:
    call, request = free.target.accounts.AuthenticateApiKey, pb.AuthenticateApiKeyRequest(api_key=free.secret)
    reasons = [refusal(lambda: free.call(call, request))[1], refusal(lambda: free.target.operate(call, request))[1]]

    assert [info.reason for info in reasons] == ["API_KEY_INVALID", "API_KEY_INVALID"]
