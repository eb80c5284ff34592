"""Feeds that those who watch an account share: when one begins, how it ends, and who hears of it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from services.billing.service.feeds import Feed, Feeds
from services.shared.errors import FlowStackError, Reason

News = list[str]


class Source:
    """Feeds accounts' feeds; each waits until the test has it fail, or nobody watches it any more."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.over: asyncio.Queue[str] = asyncio.Queue()
        self.broken = asyncio.Event()
        self.feeds = Feeds[News]("news", self._feed, "Watch again.")

    async def _feed(self, account_id: str, feed: Feed[News]) -> None:
        self.begun.append(account_id)
        feed.news.append("first")
        feed.wake()
        try:
            await self.broken.wait()
            raise FlowStackError(Reason.QUOTA_UNAVAILABLE, "broken")
        finally:
            self.over.put_nowait(account_id)


async def test_all_who_watch_an_account_share_one_feed_which_ends_with_the_last_of_them() -> None:
    source = Source()
    with ExitStack() as first:
        feed = first.enter_context(source.feeds.joined("acct_1", list))
        with source.feeds.joined("acct_1", list) as other, source.feeds.joined("acct_2", list) as another:
            assert other is feed
            assert another is not feed
            await feed.changed.wait()
            assert feed.news == ["first"]
            assert sorted(source.begun) == sorted(source.feeds.accounts) == ["acct_1", "acct_2"]
        assert await source.over.get() == "acct_2"
        assert list(source.feeds.accounts) == ["acct_1"]
        assert source.feeds.get("acct_1") is feed
        assert source.feeds.get("acct_2") is None
    assert await source.over.get() == "acct_1"
    assert not source.feeds.accounts
    assert feed.error is None, "nobody is left to be told"


async def test_a_feed_that_failed_wakes_its_watchers_and_stays_failed_beside_the_next_one() -> None:
    source = Source()
    with source.feeds.joined("acct_1", list) as failed:
        await failed.changed.wait()
        changed = failed.changed
        source.broken.set()
        await changed.wait()
        assert isinstance(failed.error, FlowStackError)
        source.broken.clear()
        with source.feeds.joined("acct_1", list) as next_one:
            assert next_one is not failed
            assert next_one.error is None
            await next_one.changed.wait()
        assert await source.over.get() == "acct_1"
        with source.feeds.joined("acct_1", list) as next_one:
            pass
    assert source.feeds.get("acct_1") is None


async def test_who_leaves_a_failed_feed_leaves_the_next_one_alone() -> None:
    source = Source()
    with ExitStack() as old:
        failed = old.enter_context(source.feeds.joined("acct_1", list))
        failed.fail(RuntimeError("a defect"))
        with source.feeds.joined("acct_1", list) as next_one:
            old.close()
            assert source.feeds.get("acct_1") is next_one


async def test_closing_ends_the_feeds_and_lets_nobody_join() -> None:
    source = Source()
    with source.feeds.joined("acct_1", list) as feed:
        await feed.changed.wait()
        source.feeds.close()
        assert isinstance(feed.error, FlowStackError)
        assert feed.error.reason is Reason.SHUTTING_DOWN
        assert str(feed.error) == "Billing is shutting down. Watch again."
        assert await source.over.get() == "acct_1"
        assert not source.feeds.accounts
        with pytest.raises(FlowStackError, match="shutting down"), source.feeds.joined("acct_1", list):
            pass
