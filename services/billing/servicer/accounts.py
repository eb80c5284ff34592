"""AccountService, on the public port and on the internal one."""

from __future__ import annotations

from typing import Any

import grpc
from flowstack_protos.billing.v1 import account_service_pb2 as pb
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceServicer

from services.billing.convert import accounts as convert
from services.billing.service.accounts import AccountService
from services.billing.service.api_keys import ApiKeyService
from services.billing.service.paging import PageRequest
from services.billing.servicer.caller import actor_of_call
from services.shared.auth import account_of_call
from services.shared.clock import Clock
from services.shared.secret import Secret
from services.shared.times import us_from_duration, us_from_proto

Context = grpc.aio.ServicerContext


class AccountServicer(AccountServiceServicer):
    """What customers and the operator call. AuthenticateApiKey is not among it."""

    def __init__(self, accounts: AccountService, api_keys: ApiKeyService, clock: Clock) -> None:
        self._accounts = accounts
        self._api_keys = api_keys
        self._clock = clock

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: Context[Any, Any]
    ) -> pb.CreateAccountResponse:
        """See the contract."""
        created = await self._accounts.create(convert.new_account_from_proto(request), actor_of_call(context))
        return convert.created_account_to_proto(created, self._clock.now_us())

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context[Any, Any]) -> pb.GetAccountResponse:
        """See the contract."""
        account = await self._accounts.get(account_of_call(request.account_id))
        return pb.GetAccountResponse(account=convert.account_to_proto(account))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context[Any, Any]
    ) -> pb.ListAccountsResponse:
        """See the contract."""
        page = await self._accounts.list(
            convert.filter_from_proto(request),
            PageRequest(request.page_size, request.page_token),
            actor_of_call(context),
        )
        accounts = [convert.account_to_proto(account) for account in page.items]
        return pb.ListAccountsResponse(accounts=accounts, next_page_token=page.next_token)

    async def SuspendAccount(
        self, request: pb.SuspendAccountRequest, context: Context[Any, Any]
    ) -> pb.SuspendAccountResponse:
        """See the contract."""
        changed = await self._accounts.suspend(
            account_of_call(request.account_id),
            request.reason,
            us_from_proto(request.until_time),
            request.etag,
            actor_of_call(context),
            lift=request.lift,
        )
        return pb.SuspendAccountResponse(
            account=convert.account_to_proto(changed.account), entitlement_applied=changed.entitlement.applied
        )

    async def DeleteAccount(
        self, request: pb.DeleteAccountRequest, context: Context[Any, Any]
    ) -> pb.DeleteAccountResponse:
        """See the contract."""
        account_id = account_of_call(request.account_id)
        changed = await self._accounts.delete(account_id, request.reason, request.etag, actor_of_call(context))
        return pb.DeleteAccountResponse(
            account=convert.account_to_proto(changed.account), entitlement_applied=changed.entitlement.applied
        )

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context[Any, Any]
    ) -> pb.CreateApiKeyResponse:
        """See the contract."""
        account_id = account_of_call(request.account_id)
        created = await self._api_keys.create(
            account_id, request.display_name, convert.expire_us_from_proto(request), actor_of_call(context)
        )
        key = convert.api_key_to_proto(created.key, self._clock.now_us())
        return pb.CreateApiKeyResponse(api_key=key, secret=created.secret.reveal())

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context[Any, Any]) -> pb.ListApiKeysResponse:
        """See the contract."""
        page = await self._api_keys.list(
            account_of_call(request.account_id),
            PageRequest(request.page_size, request.page_token),
            include_inactive=request.include_inactive,
        )
        now_us = self._clock.now_us()
        keys = [convert.api_key_to_proto(key, now_us) for key in page.items]
        return pb.ListApiKeysResponse(api_keys=keys, next_page_token=page.next_token)

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: Context[Any, Any]
    ) -> pb.RotateApiKeyResponse:
        """See the contract."""
        rotated = await self._api_keys.rotate(
            account_of_call(request.account_id),
            request.api_key_id,
            us_from_duration(request, "overlap"),
            convert.expire_us_from_proto(request),
            actor_of_call(context),
        )
        return convert.rotated_key_to_proto(rotated, self._clock.now_us())

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: Context[Any, Any]
    ) -> pb.RevokeApiKeyResponse:
        """See the contract."""
        key = await self._api_keys.revoke(
            account_of_call(request.account_id), request.api_key_id, actor_of_call(context)
        )
        return pb.RevokeApiKeyResponse(api_key=convert.api_key_to_proto(key, self._clock.now_us()))


class InternalAccountServicer(AccountServiceServicer):
    """What other services call: AuthenticateApiKey, and nothing else."""

    def __init__(self, api_keys: ApiKeyService) -> None:
        self._api_keys = api_keys

    async def AuthenticateApiKey(
        self, request: pb.AuthenticateApiKeyRequest, context: Context[Any, Any]
    ) -> pb.AuthenticateApiKeyResponse:
        """See the contract."""
        return convert.key_owner_to_proto(await self._api_keys.authenticate(Secret(request.api_key)))
