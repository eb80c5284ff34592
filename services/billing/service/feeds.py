"""One feed for each account that is watched, shared by all who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from services.shared.errors import FlowStackError, Reason

NewsT = TypeVar("NewsT")


class Feed(Generic[NewsT]):
    """What is told of one account, for all who watch it. It has failed once it has an error, for good."""

    def __init__(self, news: NewsT) -> None:
        self.news = news
        """What there is to read."""
        self.changed = asyncio.Event()
        """Is set, and another one takes its place, when there is more to read or the feed has failed."""
        self.error: Exception | None = None
        self.watchers = 0
        self.task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Tells everybody that there is more to read."""
        self.changed.set()
        self.changed = asyncio.Event()

    def fail(self, error: Exception) -> None:
        """Ends the feed for everybody."""
        self.error = error
        self.wake()


class Feeds(Generic[NewsT]):
    """The feeds of all accounts. Each is fed by a task, from when its first watcher joins until its last one leaves."""

    def __init__(self, name: str, feed: Callable[[str, Feed[NewsT]], Awaitable[None]], next_step: str) -> None:
        """Begins without feeds.

        Args:
            name: what the feeds tell, for the tasks' names.
            feed: feeds an account's feed; whatever it raises ends the feed.
            next_step: what a watcher shall do that is sent away because the service ends, a sentence.
        """
        self._name = name
        self._feed = feed
        self._next_step = next_step
        self._feeds: dict[str, Feed[NewsT]] = {}
        self._closed = False

    @property
    def accounts(self) -> Collection[str]:
        """Those that are watched."""
        return self._feeds.keys()

    def get(self, account_id: str) -> Feed[NewsT] | None:
        """An account's feed; None where nobody watches it."""
        return self._feeds.get(account_id)

    @contextmanager
    def joined(self, account_id: str, begin: Callable[[], NewsT]) -> Iterator[Feed[NewsT]]:
        """An account's feed, watched within the block; `begin` makes the news of a new one.

        Raises:
            FlowStackError: SHUTTING_DOWN.
        """
        if self._closed:
            raise self._shutting_down()
        feed = self._feeds.get(account_id)
        if feed is None or feed.error is not None:
            feed = self._feeds[account_id] = Feed(begin())
            feed.task = asyncio.create_task(self._run(account_id, feed), name=f"{self._name} of {account_id}")
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                self._drop(account_id, feed)

    def close(self) -> None:
        """Ends every feed, so that its watchers turn to the next server, and lets nobody join."""
        self._closed = True
        for account_id, feed in list(self._feeds.items()):
            feed.fail(self._shutting_down())
            self._drop(account_id, feed)

    def _drop(self, account_id: str, feed: Feed[NewsT]) -> None:
        if feed.task is not None:
            feed.task.cancel()
        if self._feeds.get(account_id) is feed:
            del self._feeds[account_id]

    async def _run(self, account_id: str, feed: Feed[NewsT]) -> None:
        try:
            await self._feed(account_id, feed)
        except Exception as error:
            feed.fail(error)

    def _shutting_down(self) -> FlowStackError:
        return FlowStackError(Reason.SHUTTING_DOWN, f"Billing is shutting down. {self._next_step}")
