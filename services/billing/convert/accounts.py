"""Accounts and API keys."""

from __future__ import annotations

from flowstack_protos.billing.v1 import account_service_pb2 as pb

from services.billing.convert.subscriptions import subscription_to_proto
from services.billing.domain.model import Account, AccountState, ApiKey
from services.billing.service.accounts import CreatedAccount, NewAccount
from services.billing.service.api_keys import RotatedKey
from services.billing.service.subscriptions import Standing
from services.billing.store import AccountFilter, KeyOwner
from services.shared.times import optional_time_to_proto, time_to_proto, us_from_proto


def new_account_from_proto(request: pb.CreateAccountRequest) -> NewAccount:
    """CreateAccountRequest to domain."""
    return NewAccount(request.display_name, request.email, request.plan_id, request.request_id)


def filter_from_proto(request: pb.ListAccountsRequest) -> AccountFilter:
    """The filters of a ListAccountsRequest."""
    return AccountFilter(tuple(AccountState(state) for state in request.states), request.plan_id, request.email)


def expire_us_from_proto(request: pb.CreateApiKeyRequest | pb.RotateApiKeyRequest) -> int:
    """When the new key expires; 0 for never."""
    return us_from_proto(request.expire_time) if request.HasField("expire_time") else 0


def account_to_proto(account: Account) -> pb.Account:
    """Domain to Account."""
    return pb.Account(
        account_id=account.account_id,
        display_name=account.display_name,
        email=account.email,
        plan_id=account.plan_id,
        state=account.state.value,  # type: ignore[arg-type]  # the numbers are the contract's
        suspend_reason=account.suspend_reason,
        suspend_time=optional_time_to_proto(account.suspend_us),
        suspend_until_time=optional_time_to_proto(account.suspend_until_us),
        create_time=time_to_proto(account.create_us),
        update_time=time_to_proto(account.update_us),
        delete_time=optional_time_to_proto(account.delete_us),
        purge_time=optional_time_to_proto(account.purge_us),
        etag=account.etag,
    )


def created_account_to_proto(created: CreatedAccount, now_us: int) -> pb.CreateAccountResponse:
    """Domain to CreateAccountResponse."""
    standing = Standing(created.subscription, None, created.payment, now_us)
    return pb.CreateAccountResponse(
        account=account_to_proto(created.account),
        subscription=subscription_to_proto(standing, created.entitlement),
        entitlement_applied=created.entitlement.applied,
    )


def api_key_to_proto(key: ApiKey, now_us: int) -> pb.ApiKey:
    """Domain to ApiKey, as it stands at `now_us`."""
    return pb.ApiKey(
        api_key_id=key.api_key_id,
        account_id=key.account_id,
        display_name=key.display_name,
        state=key.state_at(now_us).value,  # type: ignore[arg-type]  # as above
        create_time=time_to_proto(key.create_us),
        expire_time=optional_time_to_proto(key.expire_us),
        revoke_time=optional_time_to_proto(key.revoke_us),
        last_use_time=optional_time_to_proto(key.last_use_us),
        rotated_from_api_key_id=key.rotated_from,
        rotated_to_api_key_id=key.rotated_to,
    )


def rotated_key_to_proto(rotated: RotatedKey, now_us: int) -> pb.RotateApiKeyResponse:
    """Domain to RotateApiKeyResponse."""
    return pb.RotateApiKeyResponse(
        api_key=api_key_to_proto(rotated.created.key, now_us),
        secret=rotated.created.secret.reveal(),
        previous_api_key=api_key_to_proto(rotated.previous, now_us),
    )


def key_owner_to_proto(owner: KeyOwner) -> pb.AuthenticateApiKeyResponse:
    """Domain to AuthenticateApiKeyResponse."""
    terms = owner.subscription.terms
    return pb.AuthenticateApiKeyResponse(
        account_id=owner.account.account_id,
        api_key_id=owner.key.api_key_id,
        account_state=owner.account.state.value,  # type: ignore[arg-type]  # as above
        plan_id=terms.plan_id,
        features=terms.features,
        managed_providers=terms.managed_providers,
        expire_time=optional_time_to_proto(owner.key.expire_us),
    )
