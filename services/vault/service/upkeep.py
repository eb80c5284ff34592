"""What goes on beside the calls: expired documents are swept away, and deleted accounts purged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger
from services.vault.accounts import AccountDirectory
from services.vault.store import Store, Transaction

DOCUMENTS_AT_ONCE: Final = 500
"""Documents that one transaction deletes."""
ACCOUNTS_AT_ONCE: Final = 50
CHECK_INTERVAL_US: Final = 24 * 3600 * 1_000_000
"""How often billing is asked of each account. Documents outlive a purge that is due by no more than this."""

_NO_ANSWER: Final = frozenset({Reason.BILLING_UNAVAILABLE, Reason.SHUTTING_DOWN, Reason.CALL_TIME_LIMIT})


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Deletes documents that have expired."""

    database: Store
    clock: Clock

    async def run_once(self) -> bool:
        """Deletes some; answers whether there were any."""
        now_us = self.clock.now_us()

        async def sweep(transaction: Transaction) -> bool:
            account_id = await transaction.upkeep.expired_account(now_us)
            if account_id is None:
                return False
            await transaction.documents.lock_account(account_id)
            keys = await transaction.upkeep.expired_keys(account_id, now_us, DOCUMENTS_AT_ONCE)
            await _delete(transaction, account_id, keys)
            return True

        return await self.database.transact(sweep)


@dataclass(frozen=True, slots=True)
class Purger:
    """Deletes the documents of accounts that billing has deleted, once billing's purge time has passed."""

    database: Store
    accounts: AccountDirectory
    clock: Clock

    async def run_once(self) -> bool:
        """Asks billing of some accounts; answers whether there were any to ask of.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE.
        """
        due = await self.database.transact(
            lambda transaction: transaction.upkeep.accounts_to_check(self.clock.now_us(), ACCOUNTS_AT_ONCE)
        )
        for account_id in due:
            await self._check(account_id)
        return bool(due)

    async def _check(self, account_id: str) -> None:
        purge_us = await self._ask(account_id)
        now_us = self.clock.now_us()
        if purge_us is not None and purge_us <= now_us:
            await self._purge(account_id)
            return
        next_us = now_us + CHECK_INTERVAL_US
        check_us = next_us if purge_us is None else min(next_us, purge_us)

        async def wait(transaction: Transaction) -> None:
            if await transaction.documents.lock_account(account_id):
                await transaction.upkeep.check_again(account_id, check_us)
            else:
                # Nothing is kept of it: it is asked of again once something is.
                await transaction.upkeep.forget_account(account_id)

        await self.database.transact(wait)

    async def _ask(self, account_id: str) -> int | None:
        try:
            return await self.accounts.purge_us(account_id)
        except FlowStackError as error:
            if error.reason in _NO_ANSWER:
                raise
            # One account that billing cannot deal with must not keep all others from being asked for.
            get_logger().warning("purge_unknown", account_id=account_id, reason=error.reason.value)
            return None

    async def _purge(self, account_id: str) -> None:
        deleted = 0
        while some := await self.database.transact(partial(_purge_some, account_id)):
            deleted += some
        get_logger().info("purged", account_id=account_id, count=deleted)


async def _purge_some(account_id: str, transaction: Transaction) -> int:
    await transaction.documents.lock_account(account_id)
    keys = await transaction.upkeep.some_keys(account_id, DOCUMENTS_AT_ONCE)
    if not keys:
        await transaction.upkeep.forget_account(account_id)
    return await _delete(transaction, account_id, keys)


async def _delete(transaction: Transaction, account_id: str, keys: Mapping[str, Sequence[str]]) -> int:
    deleted = 0
    for collection, of_collection in keys.items():
        deleted += (await transaction.documents.delete(account_id, collection, of_collection)).documents
    return deleted
