"""Accounts and API keys in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Row, Table, and_, bindparam, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.rows import (
    account_from_row,
    account_to_row,
    api_key_from_row,
    subscription_from_row,
)
from services.billing.adapters.sql.tables import ACCOUNTS, API_KEYS, SUBSCRIPTIONS
from services.billing.domain.model import Account, AccountState, ApiKey
from services.billing.domain.paging import Position
from services.billing.store import AccountFilter, KeyOwner
from services.shared.errors import FlowStackError, Reason

_OF_SUBSCRIPTION: Final = ACCOUNTS.c.subscription_id == SUBSCRIPTIONS.c.subscription_id
_ACCOUNT: Final = select(ACCOUNTS, SUBSCRIPTIONS.c.plan_id).join(SUBSCRIPTIONS, _OF_SUBSCRIPTION)
_LOCK: Final = select(ACCOUNTS.c.account_id)
"""Locks an account, which is then read by a statement of its own: on PostgreSQL one that had to wait for the lock sees
the account as it is by then, beside subscriptions as they were before, and would miss one that was begun meanwhile."""
_OWNER: Final = (
    select(API_KEYS, ACCOUNTS, SUBSCRIPTIONS)
    .join(ACCOUNTS, API_KEYS.c.account_id == ACCOUNTS.c.account_id)
    .join(SUBSCRIPTIONS, _OF_SUBSCRIPTION)
    .where(API_KEYS.c.api_key_id == bindparam("key"))
)


class SqlAccounts:
    """Accounts."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, account: Account) -> None:
        """Adds an account."""
        await self._connection.execute(insert(ACCOUNTS), account_to_row(account))

    async def update(self, account: Account) -> None:
        """Writes an account that this transaction has locked."""
        statement = update(ACCOUNTS).where(ACCOUNTS.c.account_id == account.account_id)
        await self._connection.execute(statement.values(account_to_row(account)))

    async def get(self, account_id: str) -> Account:
        """Reads an account."""
        row = (await self._connection.execute(_ACCOUNT.where(ACCOUNTS.c.account_id == account_id))).one_or_none()
        if row is None:
            raise FlowStackError(Reason.ACCOUNT_NOT_FOUND, "There is no such account. Check the account_id.")
        return account_from_row(row)

    async def lock(self, account_id: str) -> Account:
        """Reads an account for update. On SQLite there is one writer at a time anyway."""
        await self._connection.execute(_LOCK.where(ACCOUNTS.c.account_id == account_id).with_for_update())
        return await self.get(account_id)

    async def try_lock(self, account_id: str) -> Account | None:
        """Reads an account for update; None where another transaction has it, or it is not there."""
        query = _LOCK.where(ACCOUNTS.c.account_id == account_id).with_for_update(skip_locked=True)
        if (await self._connection.execute(query)).one_or_none() is None:
            return None
        return await self.get(account_id)

    async def list(self, wanted: AccountFilter, after: Position | None, limit: int) -> Sequence[Account]:
        """Accounts, newest first."""
        query = _ACCOUNT
        if wanted.states:
            query = query.where(ACCOUNTS.c.state.in_([int(state) for state in wanted.states]))
        else:
            query = query.where(ACCOUNTS.c.state != int(AccountState.DELETED))
        if wanted.plan_id:
            query = query.where(SUBSCRIPTIONS.c.plan_id == wanted.plan_id)
        if wanted.email:
            query = query.where(ACCOUNTS.c.email_folded == wanted.email.casefold())
        place = tuple_(ACCOUNTS.c.create_us, ACCOUNTS.c.account_id)
        if after is not None:
            query = query.where(place < tuple_(*after))
        query = query.order_by(ACCOUNTS.c.create_us.desc(), ACCOUNTS.c.account_id.desc()).limit(limit)
        return [account_from_row(row) for row in await self._connection.execute(query)]


class SqlApiKeys:
    """API keys."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, key: ApiKey) -> None:
        """Adds a key."""
        await self._connection.execute(
            insert(API_KEYS),
            {
                "api_key_id": key.api_key_id,
                "account_id": key.account_id,
                "display_name": key.display_name,
                "digest": key.digest,
                "create_us": key.create_us,
                "expire_us": key.expire_us,
                "revoke_us": key.revoke_us,
                "last_use_us": key.last_use_us,
                "rotated_from": key.rotated_from,
                "rotated_to": key.rotated_to,
            },
        )

    async def find(self, account_id: str, api_key_id: str) -> ApiKey | None:
        """One key of an account."""
        query = select(API_KEYS).where(API_KEYS.c.api_key_id == api_key_id, API_KEYS.c.account_id == account_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else api_key_from_row(row)

    async def find_owner(self, api_key_id: str) -> KeyOwner | None:
        """A key with whom it acts for, in one read."""
        row = (await self._connection.execute(_OWNER, {"key": api_key_id})).one_or_none()
        if row is None:
            return None
        key, account, subscription = _parts(row, API_KEYS, ACCOUNTS, SUBSCRIPTIONS)
        account.plan_id = subscription.plan_id
        return KeyOwner(api_key_from_row(key), account_from_row(account), subscription_from_row(subscription))

    async def list(
        self, account_id: str, now_us: int, after: Position | None, limit: int, *, include_inactive: bool
    ) -> Sequence[ApiKey]:
        """Keys of an account, newest first."""
        query = select(API_KEYS).where(API_KEYS.c.account_id == account_id)
        if not include_inactive:
            query = query.where(_is_valid(now_us))
        place = tuple_(API_KEYS.c.create_us, API_KEYS.c.api_key_id)
        if after is not None:
            query = query.where(place < tuple_(*after))
        query = query.order_by(API_KEYS.c.create_us.desc(), API_KEYS.c.api_key_id.desc()).limit(limit)
        return [api_key_from_row(row) for row in await self._connection.execute(query)]

    async def count_active(self, account_id: str, now_us: int) -> int:
        """How many keys of an account are neither revoked, expired nor rotated."""
        active = and_(_is_valid(now_us), API_KEYS.c.rotated_to == "")
        query = select(func.count()).where(API_KEYS.c.account_id == account_id, active)
        return (await self._connection.execute(query)).scalar_one()

    async def set_rotated(self, key: ApiKey) -> None:
        """Writes which key replaces one, and until when it is valid."""
        statement = update(API_KEYS).where(API_KEYS.c.api_key_id == key.api_key_id)
        await self._connection.execute(statement.values(expire_us=key.expire_us, rotated_to=key.rotated_to))

    async def revoke(self, api_key_id: str, now_us: int) -> None:
        """Revokes a key for good."""
        await self._connection.execute(
            update(API_KEYS)
            .where(API_KEYS.c.api_key_id == api_key_id, API_KEYS.c.revoke_us == 0)
            .values(revoke_us=now_us)
        )

    async def revoke_all(self, account_id: str, now_us: int) -> None:
        """Revokes every key of an account for good."""
        await self._connection.execute(
            update(API_KEYS)
            .where(API_KEYS.c.account_id == account_id, API_KEYS.c.revoke_us == 0)
            .values(revoke_us=now_us)
        )

    async def note_uses(self, uses: Mapping[str, int]) -> None:
        """Sets when keys were last used, where that is later than what is stored."""
        statement = (
            update(API_KEYS)
            .where(API_KEYS.c.api_key_id == bindparam("key"), API_KEYS.c.last_use_us < bindparam("used_us"))
            .values(last_use_us=bindparam("used_us"))
        )
        # In one order, so that two replicas never wait for each other.
        await self._connection.execute(statement, [{"key": key, "used_us": used} for key, used in sorted(uses.items())])


def _parts(row: Row[Any], *tables: Table) -> Iterator[SimpleNamespace]:
    """A joined row's columns, by table: several of them have the same names."""
    begin = 0
    for table in tables:
        end = begin + len(table.c)
        yield SimpleNamespace(**dict(zip(table.c.keys(), row[begin:end], strict=True)))
        begin = end


def _is_valid(now_us: int) -> Any:
    return and_(API_KEYS.c.revoke_us == 0, or_(API_KEYS.c.expire_us == 0, API_KEYS.c.expire_us > now_us))
