"""AccountService of the fake."""

from __future__ import annotations

from flowstack_protos.billing.v1 import account_service_pb2 as pb

from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError
from flowstack.testing._plans import plan_for_sale
from flowstack.testing._time import timestamp
from flowstack.testing._world import Account, ApiKey, World


class Accounts:
    """The methods of AccountService that the SDK, the command line and operators' scripts call."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create_account(self, _: Call, request: pb.CreateAccountRequest) -> pb.CreateAccountResponse:
        """Opens an account."""

        def create() -> pb.CreateAccountResponse:
            plan = plan_for_sale(request.plan_id or "free")
            account = self._world.open_account(plan, request.display_name, request.email)
            now_us = self._world.clock.now_us()
            return pb.CreateAccountResponse(
                account=_to_proto(account), subscription=account.subscription.to_proto(now_us), entitlement_applied=True
            )

        return self._world.once("", request, create)

    def get_account(self, call: Call, _: pb.GetAccountRequest) -> pb.GetAccountResponse:
        """Reads an account."""
        with self._world.lock:
            return pb.GetAccountResponse(account=_to_proto(self._world.account(call.account_id)))

    def list_accounts(self, _: Call, request: pb.ListAccountsRequest) -> pb.ListAccountsResponse:
        """Lists the accounts, newest first."""
        with self._world.lock:
            found = [_to_proto(account) for account in reversed(self._world.accounts.values())]
        found = [
            account
            for account in found
            if request.plan_id in ("", account.plan_id)
            and request.email in ("", account.email)
            and (not request.states or account.state in request.states)
        ]
        page, token = page_of(found, request.page_size, request.page_token)
        return pb.ListAccountsResponse(accounts=page, next_page_token=token)

    def suspend_account(self, _: Call, request: pb.SuspendAccountRequest) -> pb.SuspendAccountResponse:
        """Refuses the account's new sessions, or lifts that."""
        with self._world.lock:
            account = self._world.account(request.account_id)
            account.suspend_reason = "" if request.lift else request.reason
            self._world.changed.notify_all()
            return pb.SuspendAccountResponse(account=_to_proto(account), entitlement_applied=True)

    def create_api_key(self, call: Call, request: pb.CreateApiKeyRequest) -> pb.CreateApiKeyResponse:
        """Gives the account another key."""
        with self._world.lock:
            expire_us = request.expire_time.ToMicroseconds() if request.HasField("expire_time") else 0
            key = self._world.add_key(self._world.account(call.account_id), request.display_name, expire_us)
            return pb.CreateApiKeyResponse(api_key=key.to_proto(self._world.clock.now_us()), secret=key.secret)

    def list_api_keys(self, call: Call, request: pb.ListApiKeysRequest) -> pb.ListApiKeysResponse:
        """Lists the account's keys, newest first; those that are over on demand."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            keys = [key.to_proto(now_us) for key in reversed(self._world.account(call.account_id).keys)]
        over = (pb.API_KEY_STATE_REVOKED, pb.API_KEY_STATE_EXPIRED)
        keys = [key for key in keys if request.include_inactive or key.state not in over]
        page, token = page_of(keys, request.page_size, request.page_token)
        return pb.ListApiKeysResponse(api_keys=page, next_page_token=token)

    def rotate_api_key(self, call: Call, request: pb.RotateApiKeyRequest) -> pb.RotateApiKeyResponse:
        """Makes a successor; the old key goes on for the overlap."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            old = self._key(call.account_id, request.api_key_id)
            if old.state_at(now_us) != pb.API_KEY_STATE_ACTIVE:
                raise FakeError("API_KEY_NOT_ACTIVE", "The API key is not active, so it cannot be rotated.")
            expire_us = request.expire_time.ToMicroseconds() if request.HasField("expire_time") else 0
            new = self._world.add_key(self._world.account(call.account_id), old.display_name, expire_us)
            overlap_us = request.overlap.ToMicroseconds() if request.HasField("overlap") else 0
            end_us = now_us + overlap_us
            old.expire_us = min(old.expire_us, end_us) if old.expire_us else end_us
            old.rotated_to, new.rotated_from = new.api_key_id, old.api_key_id
            return pb.RotateApiKeyResponse(
                api_key=new.to_proto(now_us), secret=new.secret, previous_api_key=old.to_proto(now_us)
            )

    def revoke_api_key(self, call: Call, request: pb.RevokeApiKeyRequest) -> pb.RevokeApiKeyResponse:
        """Ends a key for good; sessions that run go on."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            key = self._key(call.account_id, request.api_key_id)
            key.revoke_us = key.revoke_us or now_us
            return pb.RevokeApiKeyResponse(api_key=key.to_proto(now_us))

    def _key(self, account_id: str, api_key_id: str) -> ApiKey:
        for key in self._world.account(account_id).keys:
            if key.api_key_id == api_key_id:
                return key
        raise FakeError("API_KEY_NOT_FOUND", "The account has no such API key. ListApiKeys shows those that it has.")


def _to_proto(account: Account) -> pb.Account:
    return pb.Account(
        account_id=account.account_id,
        display_name=account.display_name,
        email=account.email,
        plan_id=account.subscription.plan.plan_id,
        state=pb.ACCOUNT_STATE_SUSPENDED if account.suspend_reason else pb.ACCOUNT_STATE_ACTIVE,
        suspend_reason=account.suspend_reason,
        create_time=timestamp(account.create_us),
        update_time=timestamp(account.create_us),
        etag="a1",
    )
