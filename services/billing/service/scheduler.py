"""Does what is due in accounts without anybody's call: renewals, changes, closing statements, graces, purges."""

from __future__ import annotations

import asyncio
from typing import Final

from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.open_account import OpenAccount, by_system
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from services.shared.log import frames_of, get_logger

BATCH: Final = 64
"""How many due accounts are looked up at once."""

IDLE_S: Final = 1.0
"""How often it is looked for what is due: the index makes it one cheap read."""

URGENT_RETRY_S: Final = 0.1
"""How long until an account that cannot wait is tried again, where somebody else had it."""

RETRY_US: Final = 60_000_000
"""How long an account that a defect keeps from being brought up to date waits, so that others have their turn."""


class Scheduler:
    """Finds due accounts by an index on their due times, and brings each up to date in a transaction of its own.

    Replicas need not agree on who does what: an account that another transaction has locked is passed over, and one
    that was brought up to date meanwhile is not due any more. What was missed while nobody ran is done then, period
    by period.
    """

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._log = get_logger()

    async def run_once(self) -> bool:
        """Does what is due, or waits a moment where nothing is. Always True: each account has its own retry."""
        now_us = self._context.clock.now_us()
        due = await self._context.store.transact(lambda transaction: transaction.due_accounts.due(now_us, BATCH))
        done = [await self._bring_up_to_date(account_id) for account_id in due]
        if any(done):
            self._dispatcher.wake()
        else:
            await asyncio.sleep(IDLE_S)
        return True

    async def run_urgent(self) -> bool:
        """Brings accounts up to date that cannot wait for their turn, such as those beyond their budget."""
        account_id = await self._context.signals.urgent.get()
        if not await self._bring_up_to_date(account_id):
            # Somebody is changing it, and may have read of it before; it is due in the store too.
            await asyncio.sleep(URGENT_RETRY_S)
            await self._bring_up_to_date(account_id)
        self._dispatcher.wake()
        return True

    async def _bring_up_to_date(self, account_id: str) -> bool:
        """Whether there was anything to do."""

        async def work(transaction: Transaction) -> bool:
            account = await transaction.accounts.try_lock(account_id)
            if account is None:
                return False
            opened = await OpenAccount.of(self._context, transaction, account)
            await opened.close(by_system("renewal"))
            return True

        try:
            return await self._context.store.transact(work)
        except Exception as error:  # one account's defect must not keep the others from their renewal
            if isinstance(error, FlowStackError) and error.reason is Reason.BILLING_UNAVAILABLE:
                raise
            self._log.error(
                "defect",
                detail="renewal",
                account_id=account_id,
                error_type=type(error).__name__,
                traceback=frames_of(error),
            )
        later_us = self._context.clock.now_us() + RETRY_US
        await self._context.store.transact(lambda transaction: transaction.due_accounts.put(account_id, later_us))
        return False
