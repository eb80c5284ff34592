"""Alerts, pushed as they fire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple

from services.billing.domain.alerts import AlertKind
from services.billing.service.alerts import AlertView, views_of
from services.billing.service.context import Context
from services.billing.service.feeds import Feed, Feeds
from services.billing.store import Transaction
from services.shared.background import waited
from services.shared.errors import FlowStackError, invalid_request

LIFE_SIGN_S: Final = 30.0
"""How often a stream without alerts says that it is alive."""

RECHECK_S: Final = 1.0
"""How often it is looked for alerts that another replica has written."""

ALERTS_AT_ONCE: Final = 100
"""How many alerts are read from the store at a time."""

RECENT_MAX: Final = 100
"""How many alerts of an account are kept at hand for its streams; who is further behind reads the store."""

CATCHING_UP_MAX: Final = 4
"""How many streams of an account read the store at the same time."""


Wait = Callable[[asyncio.Event, float], Awaitable[bool]]
"""Waits for an event, or for so many seconds; True where the event came."""


class WatchedAlert(NamedTuple):
    """What a stream of alerts says: an alert, or a sign of life."""

    view: AlertView | None
    resume_token: str


class _Recent:
    """One account's newest alerts, at hand for all who watch it."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        """The place of the newest alert that was read."""
        self.oldest = newest
        """What comes after this place, up to the newest, is at hand."""
        self.stale = asyncio.Event()
        """There may be newer alerts in the store."""
        self.catching_up = asyncio.Semaphore(CATCHING_UP_MAX)
        self._alerts: deque[WatchedAlert] = deque()

    def put(self, alerts: Sequence[WatchedAlert]) -> None:
        """Takes in what has come after the newest, in order."""
        for alert in alerts:
            self._alerts.append(alert)
            self.newest = _place(alert)
        while len(self._alerts) > RECENT_MAX:
            self.oldest = _place(self._alerts.popleft())

    def after(self, place: int) -> Sequence[WatchedAlert] | None:
        """What is at hand after a place, in order; None where something between is not."""
        if place < self.oldest:
            return None
        # Almost always it is the last one or two that are new.
        found = list[WatchedAlert]()
        for alert in reversed(self._alerts):
            if _place(alert) <= place:
                break
            found.append(alert)
        return found[::-1]


def _place(alert: WatchedAlert) -> int:
    return alert.view.alert.sequence if alert.view else 0


class AlertWatchService:
    """Streams of alerts. Those of one account share one read of what is new."""

    def __init__(self, context: Context, wait: Wait = waited) -> None:
        self._context = context
        self._wait = wait
        self._feeds = Feeds("alerts", self._feed, "Call again with the last resume_token.")

    async def watch(
        self, account_id: str, kinds: Collection[AlertKind], resume_token: str
    ) -> AsyncGenerator[WatchedAlert, None]:
        """Alerts as they fire, after those that the token has seen; a sign of life at first and every 30 s.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, SHUTTING_DOWN; INVALID_REQUEST: the token is not this account's.
        """
        clock = self._context.clock
        newest, seen = await self._begin(account_id, resume_token)
        with self._feeds.joined(account_id, lambda: _Recent(newest)) as feed:
            yield self._life_sign(account_id, seen)
            spoken_s = clock.monotonic_s()
            while True:
                changed = feed.changed
                if feed.error is not None:
                    raise feed.error
                alerts = feed.news.after(seen)
                if alerts is None:
                    async with feed.news.catching_up:
                        alerts = await self._read(account_id, seen)
                for alert in alerts:
                    seen = _place(alert)
                    if alert.view and (not kinds or alert.view.alert.kind in kinds):
                        yield alert
                        spoken_s = clock.monotonic_s()
                if alerts:
                    continue
                if clock.monotonic_s() - spoken_s >= LIFE_SIGN_S:
                    yield self._life_sign(account_id, seen)
                    spoken_s = clock.monotonic_s()
                await self._wait(changed, max(0.0, spoken_s + LIFE_SIGN_S - clock.monotonic_s()))

    async def poll(self) -> None:
        """Has what other replicas have written read, for all watched accounts at once.

        Raises:
            FlowStackError: BILLING_UNAVAILABLE.
        """
        watched = list(self._feeds.accounts)
        if not watched:
            return
        newest = await self._context.store.transact(lambda transaction: transaction.alerts.last_sequences(watched))
        for account_id, place in newest.items():
            feed = self._feeds.get(account_id)
            if feed is not None and place > feed.news.newest:
                feed.news.stale.set()

    async def close(self) -> None:
        """Ends every stream, so that its reader turns to the next server."""
        self._feeds.close()

    async def _begin(self, account_id: str, resume_token: str) -> tuple[int, int]:
        """The place of the newest alert, and the place after which a stream begins."""

        async def read(transaction: Transaction) -> int:
            await transaction.accounts.get(account_id)
            return (await transaction.alerts.last_sequences([account_id])).get(account_id, 0)

        newest = await self._context.store.transact(read)
        if not resume_token:
            return newest, newest
        try:
            position = self._context.page_tokens.open(("WatchAlerts", account_id), resume_token)
        except FlowStackError:
            raise invalid_request("resume_token", "must be the last one of a stream of the same account") from None
        return newest, newest if position is None else position[0]

    async def _feed(self, account_id: str, feed: Feed[_Recent]) -> None:
        """Reads what is new whenever there may be something, once for all streams of the account."""
        recent = feed.news
        with self._context.signals.alerts.watched(account_id, recent.stale):
            # At first as well: what was written since the newest was read has told nobody.
            while True:
                recent.stale.clear()
                alerts = await self._read(account_id, recent.newest)
                if alerts:
                    recent.put(alerts)
                    feed.wake()
                if len(alerts) < ALERTS_AT_ONCE:
                    await recent.stale.wait()

    async def _read(self, account_id: str, place: int) -> Sequence[WatchedAlert]:
        async def read(transaction: Transaction) -> Sequence[AlertView]:
            # Places are allotted under the lock of the account's partition: what is committed has no gaps.
            alerts = await transaction.alerts.since(account_id, place, ALERTS_AT_ONCE)
            return await views_of(transaction, account_id, alerts)

        views = await self._context.store.transact(read)
        return [WatchedAlert(view, self._token(account_id, view.alert.sequence)) for view in views]

    def _life_sign(self, account_id: str, seen: int) -> WatchedAlert:
        return WatchedAlert(None, self._token(account_id, seen))

    def _token(self, account_id: str, sequence: int) -> str:
        return self._context.page_tokens.seal(("WatchAlerts", account_id), (sequence, ""))
