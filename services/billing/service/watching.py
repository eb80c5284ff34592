"""Live usage, pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from services.billing.domain.usage import QuotaReading, Usage
from services.billing.service.context import Context
from services.billing.service.usage import UsageService
from services.shared.background import waited
from services.shared.errors import FlowStackError, Reason

LEDGER_FOLLOWS_S: Final = 2.0
"""So long after a change usage is read once more: the ledger, with the money, follows quota within a second."""


class _Feed:
    """One account's usage, for all who watch it."""

    def __init__(self) -> None:
        self.watchers = 0
        self.usage: Usage | None = None
        self.version = 0
        """Counts what was published."""
        self.error: Exception | None = None
        """What ended the feed."""
        self.task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def publish(self, usage: Usage) -> None:
        """Says how the account stands."""
        self.usage = usage
        self.version += 1
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends the feed for everybody."""
        self.error = error
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncGenerator[Usage, None]:
        """What is published, the present first. Who reads slowly misses what newer news has overtaken."""
        seen = 0
        while True:
            changed = self._changed
            if self.usage is not None and self.version > seen:
                seen = self.version
                yield self.usage
            elif self.error is not None:
                raise self.error
            else:
                await changed.wait()


class _Newest:
    """What quota said last, for one reader. What was not read yet is overtaken."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._reading: QuotaReading | None = None

    def put(self, reading: QuotaReading) -> None:
        """Says how quota counts."""
        self._reading = reading
        self.changed.set()

    async def take(self) -> QuotaReading:
        """The newest reading that was not taken yet; waits for it."""
        await self.changed.wait()
        self.changed.clear()
        assert self._reading is not None
        return self._reading


class UsageWatchService:
    """Shares one watch at quota, and one read of the ledger for each change, among all who watch an account."""

    def __init__(self, context: Context, usage: UsageService) -> None:
        self._context = context
        self._usage = usage
        self._feeds: dict[str, _Feed] = {}
        self._closed = False

    async def watch(self, account_id: str) -> AsyncGenerator[Usage, None]:
        """The account's usage at once and after each change; changes that come faster than they are read are one.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ENTITLEMENT_MISSING, QUOTA_UNAVAILABLE, SHUTTING_DOWN.
        """
        await self._context.store.transact(lambda transaction: transaction.accounts.get(account_id))
        if self._closed:
            raise _shutting_down()
        feed = self._feeds.get(account_id)
        if feed is None or feed.error is not None:
            feed = self._feeds[account_id] = _Feed()
            feed.task = asyncio.create_task(self._run(account_id, feed), name=f"usage of {account_id}")
        feed.watchers += 1
        try:
            async with aclosing(feed.follow()) as usages:
                async for usage in usages:
                    yield usage
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                self._drop(account_id, feed)

    async def close(self) -> None:
        """Ends every watch, so that its reader turns to the next server."""
        self._closed = True
        for account_id, feed in list(self._feeds.items()):
            feed.fail(_shutting_down())
            self._drop(account_id, feed)

    def _drop(self, account_id: str, feed: _Feed) -> None:
        if feed.task is not None:
            feed.task.cancel()
        if self._feeds.get(account_id) is feed:
            del self._feeds[account_id]

    async def _run(self, account_id: str, feed: _Feed) -> None:
        newest = _Newest()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_quota(account_id, newest))
                group.create_task(self._publish(account_id, feed, newest))
        except* FlowStackError as errors:
            feed.fail(errors.exceptions[0])
        except* Exception as errors:
            feed.fail(errors.exceptions[0])

    async def _follow_quota(self, account_id: str, newest: _Newest) -> None:
        async with aclosing(self._context.quota.watch_quota(account_id)) as readings:
            async for reading in readings:
                newest.put(reading)
        raise FlowStackError(Reason.QUOTA_UNAVAILABLE, "Quota ended the watch. Watch again.")

    async def _publish(self, account_id: str, feed: _Feed, newest: _Newest) -> None:
        quota, settled = await newest.take(), False
        while True:
            usage = await self._usage.usage_at(account_id, quota)
            if not settled or usage != feed.usage:
                feed.publish(usage)
            settled = not settled and not await waited(newest.changed, LEDGER_FOLLOWS_S)
            if not settled:
                quota = await newest.take()


def _shutting_down() -> FlowStackError:
    return FlowStackError(Reason.SHUTTING_DOWN, "Billing is shutting down. Watch again.")
