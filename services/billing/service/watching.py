"""Live usage, pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from services.billing.domain.usage import QuotaReading, Usage
from services.billing.service.context import Context
from services.billing.service.feeds import Feed, Feeds
from services.billing.service.usage import UsageService
from services.shared.background import waited
from services.shared.errors import FlowStackError, Reason

LEDGER_FOLLOWS_S: Final = 2.0
"""So long after a change usage is read once more: the ledger, with the money, follows quota within a second, and it may
be another replica that books it."""

RECHECK_S: Final = 30.0
"""As often usage is read where nothing seems to change: days end, and other replicas change plans and budgets."""


class _Published:
    """One account's usage, as it was published last."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.version = 0
        """Counts what was published."""

    def put(self, usage: Usage) -> None:
        """Says how the account stands."""
        self.usage = usage
        self.version += 1


class _Newest:
    """What quota said last, for one reader. What was not read yet is overtaken."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """There is a reading that was not taken yet, or something here has changed beside it."""
        self.first = asyncio.Event()
        self._reading: QuotaReading | None = None
        self._is_new = False

    def put(self, reading: QuotaReading) -> None:
        """Says how quota counts."""
        self._reading, self._is_new = reading, True
        self.first.set()
        self.changed.set()

    async def take(self) -> tuple[QuotaReading, bool]:
        """The newest reading, and whether it was taken for the first time; waits for the very first one."""
        await self.first.wait()
        assert self._reading is not None
        is_new, self._is_new = self._is_new, False
        self.changed.clear()
        return self._reading, is_new


class UsageWatchService:
    """Shares one watch at quota, and one read of the ledger for each change, among all who watch an account."""

    def __init__(self, context: Context, usage: UsageService) -> None:
        self._context = context
        self._usage = usage
        self._feeds = Feeds("usage", self._feed, "Watch again.")

    async def watch(self, account_id: str) -> AsyncGenerator[Usage, None]:
        """The account's usage at once and after each change; changes that come faster than they are read are one.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ENTITLEMENT_MISSING, QUOTA_UNAVAILABLE, SHUTTING_DOWN.
        """
        await self._context.store.transact(lambda transaction: transaction.accounts.get(account_id))
        seen = 0
        with self._feeds.joined(account_id, _Published) as feed:
            while True:
                changed = feed.changed
                if feed.news.usage is not None and feed.news.version > seen:
                    seen = feed.news.version
                    yield feed.news.usage
                elif feed.error is not None:
                    raise feed.error
                else:
                    await changed.wait()

    async def close(self) -> None:
        """Ends every watch, so that its reader turns to the next server."""
        self._feeds.close()

    async def _feed(self, account_id: str, feed: Feed[_Published]) -> None:
        newest = _Newest()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_quota(account_id, newest))
                group.create_task(self._publish(account_id, feed, newest))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _follow_quota(self, account_id: str, newest: _Newest) -> None:
        async with aclosing(self._context.quota.watch_quota(account_id)) as readings:
            async for reading in readings:
                newest.put(reading)
        raise FlowStackError(Reason.QUOTA_UNAVAILABLE, "Quota ended the watch. Watch again.")

    async def _publish(self, account_id: str, feed: Feed[_Published], newest: _Newest) -> None:
        ledger_follows = False
        with self._context.signals.usage.watched(account_id, newest.changed):
            while True:
                quota, is_new = await newest.take()
                usage = await self._usage.usage_at(account_id, quota)
                if is_new or usage != feed.news.usage:
                    feed.news.put(usage)
                    feed.wake()
                ledger_follows = ledger_follows or is_new
                if not await waited(newest.changed, LEDGER_FOLLOWS_S if ledger_follows else RECHECK_S):
                    ledger_follows = False
