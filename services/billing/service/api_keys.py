"""API keys: making, listing, rotating, revoking, and telling whose one is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.billing.domain.api_keys import (
    ACTIVE_KEYS_MAX,
    OVERLAP_US,
    Rotated,
    check_key,
    digest_of,
    invalid_key,
    key_id_of,
    make_key,
    rotate,
)
from services.billing.domain.audit import NOTHING, Action, Actor, Facts, audit_event
from services.billing.domain.facts import facts_of_key
from services.billing.domain.model import AccountState, ApiKey
from services.billing.service.context import Context
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import KeyOwner, Transaction
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.secret import Secret


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key and its secret, which is kept nowhere."""

    key: ApiKey
    secret: Secret


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A key's successor with its secret, and the key itself."""

    created: CreatedKey
    previous: ApiKey


class ApiKeyService:
    """Use cases of API keys."""

    def __init__(self, context: Context, pepper: Secret) -> None:
        self._context = context
        self._pepper = pepper
        self._uses: dict[str, int] = {}

    async def create(self, account_id: str, display_name: str, expire_us: int, actor: Actor) -> CreatedKey:
        """Creates a key of an account; `expire_us` 0 for one that does not expire.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, API_KEY_LIMIT_EXCEEDED; INVALID_REQUEST for an
                expire_time that is not in the future.
        """
        now_us = self._context.clock.now_us()
        _check_expiry(expire_us, now_us)
        made = make_key(self._context.randomness)
        digest = digest_of(made.secret, self._pepper)
        key = ApiKey(made.api_key_id, account_id, display_name, digest, now_us, expire_us, 0, 0, "", "")

        async def insert(transaction: Transaction) -> None:
            account = await transaction.accounts.lock(account_id)
            if account.state is AccountState.DELETED:
                raise FlowStackError(
                    Reason.ACCOUNT_DELETED, "The account is deleted and gets no keys any more. Create another account."
                )
            if await transaction.api_keys.count_active(account_id, now_us) >= ACTIVE_KEYS_MAX:
                raise FlowStackError(
                    Reason.API_KEY_LIMIT_EXCEEDED,
                    f"The account has {ACTIVE_KEYS_MAX} active API keys. Revoke one that is not used any more.",
                    metadata={"limit": str(ACTIVE_KEYS_MAX)},
                )
            await transaction.api_keys.insert(key)
            action = Action(actor, "AccountService.CreateApiKey")
            await self._audit(transaction, action, key, NOTHING, facts_of_key(key))

        await self._context.store.transact(insert)
        return CreatedKey(key, made.secret)

    async def list(self, account_id: str, request: PageRequest, *, include_inactive: bool) -> Page[ApiKey]:
        """Lists keys of an account, newest first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND; INVALID_REQUEST: another call's page token.
        """
        now_us = self._context.clock.now_us()

        async def read(transaction: Transaction) -> Page[ApiKey]:
            await transaction.accounts.get(account_id)
            return await read_page(
                self._context.page_tokens,
                ("ListApiKeys", account_id, str(include_inactive)),
                request,
                lambda after, limit: transaction.api_keys.list(
                    account_id, now_us, after, limit, include_inactive=include_inactive
                ),
                lambda key: (key.create_us, key.api_key_id),
            )

        return await self._context.store.transact(read)

    async def rotate(
        self, account_id: str, api_key_id: str, overlap_us: int | None, expire_us: int, actor: Actor
    ) -> RotatedKey:
        """Replaces a key of an account by a new one; both are valid until the overlap ends.

        Args:
            account_id: the account.
            api_key_id: the key to replace.
            overlap_us: how long it stays valid; None for 24 h.
            expire_us: from when the new key is refused; 0 for never.
            actor: who does it.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, API_KEY_NOT_FOUND, API_KEY_NOT_ACTIVE; INVALID_REQUEST for an
                expire_time that is not in the future.
        """
        now_us = self._context.clock.now_us()
        _check_expiry(expire_us, now_us)
        made = make_key(self._context.randomness)
        digest = digest_of(made.secret, self._pepper)
        overlap_us = OVERLAP_US if overlap_us is None else overlap_us

        async def replace_key(transaction: Transaction) -> Rotated:
            key = await _locked_key(transaction, account_id, api_key_id)
            rotated = rotate(key, made, digest, overlap_us=overlap_us, expire_us=expire_us, now_us=now_us)
            await transaction.api_keys.insert(rotated.successor)
            await transaction.api_keys.set_rotated(rotated.previous)
            action = Action(actor, "AccountService.RotateApiKey")
            facts = facts_of_key(key), facts_of_key(rotated.previous)
            await self._audit(transaction, action, rotated.previous, *facts)
            after = facts_of_key(rotated.successor)
            await self._audit(transaction, action, rotated.successor, NOTHING, after, place=1)
            return rotated

        rotated = await self._context.store.transact(replace_key)
        return RotatedKey(CreatedKey(rotated.successor, made.secret), rotated.previous)

    async def revoke(self, account_id: str, api_key_id: str, actor: Actor) -> ApiKey:
        """Revokes a key of an account for good; a key that is revoked already is answered unchanged.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, API_KEY_NOT_FOUND.
        """
        now_us = self._context.clock.now_us()

        async def revoke(transaction: Transaction) -> ApiKey:
            key = await _locked_key(transaction, account_id, api_key_id)
            if key.revoke_us:
                return key
            await transaction.api_keys.revoke(api_key_id, now_us)
            revoked = replace(key, revoke_us=now_us)
            action = Action(actor, "AccountService.RevokeApiKey")
            await self._audit(transaction, action, key, facts_of_key(key), facts_of_key(revoked))
            return revoked

        return await self._context.store.transact(revoke)

    async def _audit(
        self, transaction: Transaction, action: Action, key: ApiKey, before: Facts, after: Facts, *, place: int = 0
    ) -> None:
        event = audit_event(
            action,
            key.account_id,
            "api_key",
            key.api_key_id,
            before=before,
            after=after,
            now_us=self._context.clock.now_us(),
            place=place,
            randomness=self._context.randomness,
        )
        await transaction.audit.insert(event)

    async def authenticate(self, secret: Secret) -> KeyOwner:
        """Says whose key `secret` is. One whose form or checksum is wrong is refused without asking the store.

        Raises:
            FlowStackError: API_KEY_MISSING, API_KEY_INVALID, API_KEY_REVOKED, API_KEY_EXPIRED.
        """
        if not secret:
            raise FlowStackError(Reason.API_KEY_MISSING, "The API key is empty. Send the customer's `fs_…`.")
        api_key_id = key_id_of(secret)
        if api_key_id is None:
            raise invalid_key()
        owner = await self._context.store.transact(lambda transaction: transaction.api_keys.find_owner(api_key_id))
        now_us = self._context.clock.now_us()
        check_key(None if owner is None else owner.key, digest_of(secret, self._pepper), now_us)
        assert owner is not None
        self._uses[api_key_id] = now_us
        return owner

    async def flush_uses(self) -> None:
        """Writes when keys were last used: gathered, because a write for each call would be the dearest part of it."""
        if not self._uses:
            return
        uses, self._uses = self._uses, {}
        try:
            await self._context.store.transact(lambda transaction: transaction.api_keys.note_uses(uses))
        except FlowStackError:
            self._uses = uses | self._uses
            raise


def _check_expiry(expire_us: int, now_us: int) -> None:
    if expire_us and expire_us <= now_us:
        raise invalid_request("expire_time", "must be in the future")


async def _locked_key(transaction: Transaction, account_id: str, api_key_id: str) -> ApiKey:
    """A key of an account, which no other transaction changes meanwhile."""
    await transaction.accounts.lock(account_id)
    key = await transaction.api_keys.find(account_id, api_key_id)
    if key is None:
        raise FlowStackError(
            Reason.API_KEY_NOT_FOUND, "The account has no such API key. ListApiKeys shows those that it has."
        )
    return key
