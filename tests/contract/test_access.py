"""Keys: whose they are, how they end, and what each is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.vault.v1 import vault_service_pb2 as vault

from tests.contract.target import Customer, Target, refusal
from tests.support.suite import CALL_SECONDS, bearer, completion

CALLS: dict[str, Callable[[Target, Any], Any]] = {
    "router": lambda target, metadata: list(target.router.Complete(completion(), metadata=metadata)),
    "models": lambda target, metadata: target.router.ListModels(router.ListModelsRequest(), metadata=metadata),
    "billing": lambda target, metadata: target.usage.GetUsage(usage.GetUsageRequest(), metadata=metadata),
    "vault": lambda target, metadata: target.vault.ListCollections(vault.ListCollectionsRequest(), metadata=metadata),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "API_KEY_MISSING"),
        ((("authorization", "Basic abc"),), "API_KEY_MISSING"),
        (bearer("fs_unknown"), "API_KEY_INVALID"),
        (bearer("something"), "API_KEY_INVALID"),
    ],
)
def test_a_call_needs_a_key(target: Target, call: str, metadata: Any, reason: str) -> None:
    code, info = refusal(lambda: CALLS[call](target, metadata))

    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


def test_a_key_is_for_its_own_account(target: Target, free: Customer) -> None:
    other = target.open_account("free")
    code, info = refusal(lambda: free.call(target.usage.GetUsage, usage.GetUsageRequest(account_id=other.account_id)))

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCOUNT_MISMATCH")
    own = free.call(target.usage.GetUsage, usage.GetUsageRequest(account_id=free.account_id)).usage
    assert own.account_id == free.account_id


def test_the_operator_reads_any_account(target: Target, free: Customer) -> None:
    request = usage.GetUsageRequest(account_id=free.account_id)
    found = target.usage.GetUsage(request, metadata=target.admin, timeout=CALL_SECONDS).usage

    assert found.account_id == free.account_id


def test_what_is_the_operators_is_refused(target: Target, free: Customer) -> None:
    request = accounts.CreateAccountRequest(display_name="x", email="x@example.com")
    code, info = refusal(lambda: free.call(target.accounts.CreateAccount, request))

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ADMIN_REQUIRED")


def test_a_revoked_key_is_refused(target: Target, free: Customer) -> None:
    created = free.call(target.accounts.CreateApiKey, accounts.CreateApiKeyRequest(display_name="second"))
    second = Customer(target, free.account_id, created.secret)
    listed = free.call(target.accounts.ListApiKeys, accounts.ListApiKeysRequest()).api_keys
    revoke = accounts.RevokeApiKeyRequest(api_key_id=created.api_key.api_key_id)
    revoked = free.call(target.accounts.RevokeApiKey, revoke).api_key
    code, info = refusal(second.usage)

    assert [key.display_name for key in listed] == ["second", "c"]
    assert revoked.state == accounts.API_KEY_STATE_REVOKED
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_REVOKED")
    left = free.call(target.accounts.ListApiKeys, accounts.ListApiKeysRequest()).api_keys
    assert [key.display_name for key in left] == ["c"]


def test_a_rotated_key_overlaps_with_its_successor(target: Target, free: Customer) -> None:
    (old,) = free.call(target.accounts.ListApiKeys, accounts.ListApiKeysRequest()).api_keys
    rotate = accounts.RotateApiKeyRequest(api_key_id=old.api_key_id)
    rotate.overlap.FromSeconds(3600)
    rotated = free.call(target.accounts.RotateApiKey, rotate)
    successor = Customer(target, free.account_id, rotated.secret)

    assert rotated.previous_api_key.state == accounts.API_KEY_STATE_ROTATING
    assert rotated.api_key.rotated_from_api_key_id == old.api_key_id
    assert free.usage().account_id == successor.usage().account_id == free.account_id


def test_a_suspended_account_starts_no_sessions(target: Target, free: Customer) -> None:
    suspend = accounts.SuspendAccountRequest(account_id=free.account_id, reason="a test")
    target.accounts.SuspendAccount(suspend, metadata=target.admin, timeout=CALL_SECONDS)
    code, info = refusal(free.complete)
    seen = free.usage()
    lift = accounts.SuspendAccountRequest(account_id=free.account_id, lift=True)
    target.accounts.SuspendAccount(lift, metadata=target.admin, timeout=CALL_SECONDS)
    list(free.complete())

    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_SUSPENDED")
    assert (seen.can_make_requests, seen.refusal_reason) == (False, "ACCOUNT_SUSPENDED")


def test_models_are_listed(target: Target, free: Customer) -> None:
    models = free.call(target.router.ListModels, router.ListModelsRequest(provider="anthropic")).models
    code, info = refusal(lambda: free.call(target.router.ListModels, router.ListModelsRequest(provider="none")))

    assert {model.provider for model in models} == {"anthropic"}
    assert "claude-3-sonnet" in {alias for model in models for alias in model.aliases}
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
