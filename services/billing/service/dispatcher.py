"""Brings entitlements from the outbox to quota: at once, and again and again where quota is down."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from services.billing.domain.entitlements import EntitlementStatus
from services.billing.service.context import Context
from services.billing.store import PendingEntitlement, Transaction
from services.shared.background import Backoff
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger

APPLY_TIMEOUT_S: Final = 2.0
"""How long a change waits for quota before it answers that the entitlement is still on its way."""

SEND_TIMEOUT_S: Final = 5.0
BATCH: Final = 32
"""How many accounts are sent at the same time when quota is back."""

IDLE_S: Final = 1.0
"""How often the outbox is looked at where nothing calls for it: another replica may have left something."""


class EntitlementDispatcher:
    """The one way by which entitlements reach quota.

    An entitlement is sent after its transaction has committed. Sending twice is harmless, because quota takes equal
    revisions as repeats; so replicas need not agree on who sends.
    """

    def __init__(self, context: Context, backoff: Backoff) -> None:
        self._context = context
        self._backoff = backoff
        self._wake = asyncio.Event()
        self._log = get_logger()

    async def apply(self, account_id: str) -> EntitlementStatus:
        """Sends an account's entitlement now and says whether quota has it; returns within about 2 s."""
        store = self._context.store
        pending = await store.transact(lambda transaction: transaction.entitlements.find_pending(account_id))
        if pending is not None:
            await self._send(pending, APPLY_TIMEOUT_S)
        return await store.transact(lambda transaction: transaction.entitlements.status(account_id))

    def wake(self) -> None:
        """Says that there may be something to send."""
        self._wake.set()

    async def renew(self, account_id: str = "") -> None:
        """Sends what quota has acknowledged once more, of one account or of all: quota's store was replaced."""
        now_us = self._context.clock.now_us()
        await self._context.store.transact(lambda transaction: transaction.entitlements.renew(now_us, account_id))
        self._wake.set()

    async def run_once(self) -> bool:
        """Sends what is due, then waits until something may be due again. Always True: each row has its own backoff."""
        self._wake.clear()
        now_us = self._context.clock.now_us()
        due = await self._context.store.transact(lambda transaction: transaction.entitlements.due(now_us, BATCH))
        if due:
            await asyncio.gather(*(self._send(pending, SEND_TIMEOUT_S) for pending in due))
            return True
        await self._wait()
        return True

    async def _wait(self) -> None:
        next_us = await self._context.store.transact(lambda transaction: transaction.entitlements.next_due_us())
        wait_s = IDLE_S
        if next_us is not None:
            wait_s = min(IDLE_S, max(0.0, (next_us - self._context.clock.now_us()) / 1e6))
        try:
            await asyncio.wait_for(self._wake.wait(), wait_s)
        except TimeoutError:
            pass  # the usual case

    async def _send(self, pending: PendingEntitlement, timeout_s: float) -> None:
        entitlement = pending.entitlement
        account_id, revision = entitlement.account_id, entitlement.revision
        try:
            await self._context.quota.put_entitlement(entitlement, timeout_s)
        except FlowStackError as error:
            await self._failed(pending, error)
            return
        now_us = self._context.clock.now_us()
        await self._context.store.transact(
            lambda transaction: transaction.entitlements.mark_applied(account_id, revision, now_us)
        )

    async def _failed(self, pending: PendingEntitlement, error: FlowStackError) -> None:
        account_id, revision = pending.entitlement.account_id, pending.entitlement.revision
        if error.reason is Reason.STALE_REVISION:
            await self._overtake(account_id, int(error.metadata["stored_revision"]))
            return
        delay_s = self._backoff.delay_s(pending.attempts)
        self._log.warning(
            "entitlement_not_applied",
            account_id=account_id,
            reason=error.reason.value,
            attempt=pending.attempts + 1,
            delay_s=round(delay_s, 3),
        )
        next_attempt_us = self._context.clock.now_us() + int(delay_s * 1e6)
        await self._context.store.transact(
            lambda transaction: transaction.entitlements.mark_failed(account_id, revision, next_attempt_us)
        )
        self._wake.set()

    async def _overtake(self, account_id: str, stored_revision: int) -> None:
        """Allots a revision above quota's: this database is older than quota's, restored from a backup perhaps."""

        async def raise_revision(transaction: Transaction) -> None:
            await transaction.accounts.lock(account_id)
            pending = await transaction.entitlements.find_pending(account_id)
            if pending is None or pending.entitlement.revision > stored_revision:
                return
            newer = replace(pending.entitlement, revision=stored_revision + 1)
            await transaction.entitlements.put(newer, self._context.clock.now_us())

        await self._context.store.transact(raise_revision)
        self._log.warning("entitlement_revision_raised", account_id=account_id, count=stored_revision + 1)
        self._wake.set()
