"""AccountService of the fake."""

from __future__ import annotations

from typing import Final

from flowstack_protos.billing.v1 import account_service_pb2 as pb

from flowstack.testing._audit import NOTHING, action_of
from flowstack.testing._billing import subscription_to_proto
from flowstack.testing._calls import Call, page_of
from flowstack.testing._changes import end_now
from flowstack.testing._errors import FakeError, invalid_field
from flowstack.testing._facts import facts_of_key
from flowstack.testing._plans import FREE, plan_for_sale
from flowstack.testing._records import Account, ApiKey
from flowstack.testing._settling import apply, changing, lift
from flowstack.testing._time import DAY_US
from flowstack.testing._world import KEYS_MAX, World

PURGE_DELAY_US: Final = 30 * DAY_US
"""From an account's deletion until its personal data and documents are purged."""

OVERLAP_US: Final = DAY_US
"""How long a rotated key stays valid, where nothing else is asked for."""


class Accounts:
    """The methods of AccountService that the SDK, the command line and operators' scripts call."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create_account(self, call: Call, request: pb.CreateAccountRequest) -> pb.CreateAccountResponse:
        """Opens an account."""

        def create() -> pb.CreateAccountResponse:
            plan = plan_for_sale(request.plan_id or FREE)
            account = self._world.open_account(plan, request.display_name, request.email, action_of(call))
            subscription = subscription_to_proto(account, account.subscription, self._world.clock.now_us())
            return pb.CreateAccountResponse(
                account=account.to_proto(), subscription=subscription, entitlement_applied=True
            )

        return self._world.once("", request, create)

    def get_account(self, call: Call, _: pb.GetAccountRequest) -> pb.GetAccountResponse:
        """Reads an account."""
        with self._world.lock:
            return pb.GetAccountResponse(account=self._world.account(call.account_id).to_proto())

    def list_accounts(self, call: Call, request: pb.ListAccountsRequest) -> pb.ListAccountsResponse:
        """Lists the accounts, newest first; deleted ones where they are asked for. It is audited who looks."""
        with self._world.lock:
            found = [self._world.account(account_id).to_proto() for account_id in reversed(self._world.accounts)]
            found = [
                account
                for account in found
                if request.plan_id in ("", account.plan_id)
                and request.email.casefold() in ("", account.email.casefold())
                and account.state in (request.states or (pb.ACCOUNT_STATE_ACTIVE, pb.ACCOUNT_STATE_SUSPENDED))
            ]
            page, token = page_of(found, call, request)
            now_us = self._world.clock.now_us()
            self._world.log.note(action_of(call), "", "account", "", NOTHING, {"listed": len(page)}, now_us)
        return pb.ListAccountsResponse(accounts=page, next_page_token=token)

    def suspend_account(self, call: Call, request: pb.SuspendAccountRequest) -> pb.SuspendAccountResponse:
        """Refuses the account's new sessions, until a time or until that is lifted."""
        with self._world.lock:
            account, now_us = self._world.account(request.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            _check_etag(account, request.etag)
            until_us = request.until_time.ToMicroseconds()
            if until_us and until_us <= now_us:
                raise invalid_field("until_time", "must be in the future")
            with changing(account, action_of(call), now_us):
                if request.lift:
                    lift(account)
                else:
                    account.suspend_reason, account.suspend_until_us = request.reason, until_us
                    account.suspend_us = account.suspend_us or now_us
            self._world.changed.notify_all()
            return pb.SuspendAccountResponse(account=account.to_proto(), entitlement_applied=True)

    def delete_account(self, call: Call, request: pb.DeleteAccountRequest) -> pb.DeleteAccountResponse:
        """Revokes the keys and ends the subscription at once; names and documents are purged after 30 days."""
        with self._world.lock:
            account, now_us = self._world.account(request.account_id), self._world.clock.now_us()
            if not account.delete_us:
                _check_etag(account, request.etag)
                for key in account.keys:
                    key.revoke_us = key.revoke_us or now_us
                ended = end_now(account.subscription, now_us)
                apply(account, ended.outcome, action_of(call), now_us, ended.change if ended.is_new else None)
                with changing(account, action_of(call), now_us):
                    lift(account)
                    account.delete_us, account.purge_us = now_us, now_us + PURGE_DELAY_US
                self._world.changed.notify_all()
            return pb.DeleteAccountResponse(account=account.to_proto(), entitlement_applied=True)

    def create_api_key(self, call: Call, request: pb.CreateApiKeyRequest) -> pb.CreateApiKeyResponse:
        """Gives the account another key."""
        with self._world.lock:
            account, expire_us = self._world.account(call.account_id), request.expire_time.ToMicroseconds()
            account.refuse_deleted()
            self._refuse_too_many(account)
            key = self._world.add_key(account, request.display_name, expire_us)
            account.note_key(key, NOTHING, action_of(call), self._world.clock.now_us())
            return pb.CreateApiKeyResponse(api_key=key.to_proto(self._world.clock.now_us()), secret=key.secret)

    def list_api_keys(self, call: Call, request: pb.ListApiKeysRequest) -> pb.ListApiKeysResponse:
        """Lists the account's keys, newest first; those that are over on demand."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            keys = [key.to_proto(now_us) for key in reversed(self._world.account(call.account_id).keys)]
        over = (pb.API_KEY_STATE_REVOKED, pb.API_KEY_STATE_EXPIRED)
        keys = [key for key in keys if request.include_inactive or key.state not in over]
        page, token = page_of(keys, call, request)
        return pb.ListApiKeysResponse(api_keys=page, next_page_token=token)

    def rotate_api_key(self, call: Call, request: pb.RotateApiKeyRequest) -> pb.RotateApiKeyResponse:
        """Makes a successor; the old key goes on for the overlap."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            account = self._world.account(call.account_id)
            old = self._key(account, request.api_key_id)
            if old.state_at(now_us) != pb.API_KEY_STATE_ACTIVE:
                raise FakeError(
                    "API_KEY_NOT_ACTIVE",
                    "The API key is revoked, expired or rotated already, so it cannot be rotated. Rotate its "
                    "successor, or create another key.",
                )
            action, before, expire_us = action_of(call), facts_of_key(old), request.expire_time.ToMicroseconds()
            overlap_us = request.overlap.ToMicroseconds() if request.HasField("overlap") else OVERLAP_US
            new = self._world.add_key(account, old.display_name, expire_us)
            end_us = new.create_us + overlap_us
            old.expire_us = min(old.expire_us, end_us) if old.expire_us else end_us
            old.rotated_to, new.rotated_from = new.api_key_id, old.api_key_id
            account.note_key(old, before, action, now_us)
            account.note_key(new, NOTHING, action, now_us)
            return pb.RotateApiKeyResponse(
                api_key=new.to_proto(now_us), secret=new.secret, previous_api_key=old.to_proto(now_us)
            )

    def revoke_api_key(self, call: Call, request: pb.RevokeApiKeyRequest) -> pb.RevokeApiKeyResponse:
        """Ends a key for good; sessions that run go on."""
        with self._world.lock:
            now_us = self._world.clock.now_us()
            account = self._world.account(call.account_id)
            key = self._key(account, request.api_key_id)
            before = facts_of_key(key)
            key.revoke_us = key.revoke_us or now_us
            account.note_key(key, before, action_of(call), now_us)
            return pb.RevokeApiKeyResponse(api_key=key.to_proto(now_us))

    def _key(self, account: Account, api_key_id: str) -> ApiKey:
        for key in account.keys:
            if key.api_key_id == api_key_id:
                return key
        raise FakeError("API_KEY_NOT_FOUND", "The account has no such API key. ListApiKeys shows those that it has.")

    def _refuse_too_many(self, account: Account) -> None:
        now_us, active = self._world.clock.now_us(), (pb.API_KEY_STATE_ACTIVE, pb.API_KEY_STATE_ROTATING)
        if sum(key.state_at(now_us) in active for key in account.keys) >= KEYS_MAX:
            raise FakeError(
                "API_KEY_LIMIT_EXCEEDED",
                f"The account has {KEYS_MAX} active API keys. Revoke one that is not used any more.",
                metadata={"limit": str(KEYS_MAX)},
            )


def _check_etag(account: Account, etag: str) -> None:
    if etag and etag != account.etag:
        raise FakeError(
            "STALE_ETAG",
            "The account has changed since it was read. Read it again, and decide again.",
            metadata={"etag": account.etag},
        )
