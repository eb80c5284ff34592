"""What is looked for in all accounts, beside the calls, in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Select, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.vault.adapters.sql.tables import ACCOUNTS, COLLECTIONS, DOCUMENTS, SORT_INDEXES

_A: Final = ACCOUNTS.c
_D: Final = DOCUMENTS.c


class SqlUpkeep:
    """Expired documents, and accounts that may be deleted."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def expired_account(self, now_us: int) -> str | None:
        """The account of what expired first."""
        query = select(_D.account_id).where(_D.expire_us > 0, _D.expire_us <= now_us)
        return (await self._connection.execute(query.order_by(_D.expire_us).limit(1))).scalar_one_or_none()

    async def expired_keys(self, account_id: str, now_us: int, limit: int) -> dict[str, list[str]]:
        """What has expired."""
        query = select(_D.collection, _D.key).where(
            _D.expire_us > 0, _D.expire_us <= now_us, _D.account_id == account_id
        )
        return await self._by_collection(query.order_by(_D.expire_us).limit(limit))

    async def some_keys(self, account_id: str, limit: int) -> dict[str, list[str]]:
        """Any documents of an account."""
        query = select(_D.collection, _D.key).where(_D.account_id == account_id)
        return await self._by_collection(query.order_by(_D.collection, _D.key).limit(limit))

    async def _by_collection(self, query: Select[Any]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for collection, key in await self._connection.execute(query):
            found[collection].append(key)
        return dict(found)

    async def accounts_to_check(self, now_us: int, limit: int) -> Sequence[str]:
        """The longest due first."""
        query = select(_A.account_id).where(_A.check_us <= now_us).order_by(_A.check_us).limit(limit)
        return (await self._connection.execute(query)).scalars().all()

    async def check_again(self, account_id: str, check_us: int) -> None:
        """Sets when billing is asked next."""
        statement = update(ACCOUNTS).where(_A.account_id == account_id)
        await self._connection.execute(statement.values(check_us=check_us))

    async def forget_account(self, account_id: str) -> None:
        """Deletes the account's row, and what might be left of its collections."""
        for table in (SORT_INDEXES, COLLECTIONS, ACCOUNTS):
            await self._connection.execute(delete(table).where(table.c.account_id == account_id))
