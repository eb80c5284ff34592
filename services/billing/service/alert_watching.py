"""Alerts, pushed as they fire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple

from services.billing.domain.alerts import AlertKind
from services.billing.service.alerts import AlertView, views_of
from services.billing.service.context import Context
from services.billing.store import Transaction
from services.shared.background import waited
from services.shared.errors import FlowStackError, Reason, invalid_request

LIFE_SIGN_S: Final = 30.0
"""How often a stream without alerts says that it is alive."""

RECHECK_S: Final = 1.0
"""How often a stream looks for alerts that another replica has written."""

ALERTS_AT_ONCE: Final = 100
"""How many alerts a stream reads from the store at a time."""


Wait = Callable[[asyncio.Event, float], Awaitable[bool]]
"""Waits for an event, or for so many seconds; True where the event came."""


class WatchedAlert(NamedTuple):
    """What a stream of alerts says: an alert, or a sign of life."""

    view: AlertView | None
    resume_token: str


class AlertWatchService:
    """Streams of alerts."""

    def __init__(self, context: Context, wait: Wait = waited) -> None:
        self._context = context
        self._wait = wait

    async def watch(
        self, account_id: str, kinds: Collection[AlertKind], resume_token: str
    ) -> AsyncIterator[WatchedAlert]:
        """Alerts as they fire, after those that the token has seen; a sign of life at first and every 30 s.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, SHUTTING_DOWN; INVALID_REQUEST: the token is not this account's.
        """
        signals, clock = self._context.signals, self._context.clock
        changed = signals.watch(account_id)
        try:
            seen = await self._begin(account_id, resume_token)
            yield WatchedAlert(None, self._token(account_id, seen))
            spoken_s = clock.monotonic_s()
            while True:
                changed.clear()
                if signals.draining.is_set():
                    raise FlowStackError(
                        Reason.SHUTTING_DOWN, "Billing is shutting down. Call again with the last resume_token."
                    )
                views = await self._after(account_id, seen)
                for view in views:
                    seen = view.alert.sequence
                    if not kinds or view.alert.kind in kinds:
                        yield WatchedAlert(view, self._token(account_id, seen))
                        spoken_s = clock.monotonic_s()
                if len(views) == ALERTS_AT_ONCE:
                    continue
                if clock.monotonic_s() - spoken_s >= LIFE_SIGN_S:
                    yield WatchedAlert(None, self._token(account_id, seen))
                    spoken_s = clock.monotonic_s()
                quiet_s = max(0.0, spoken_s + LIFE_SIGN_S - clock.monotonic_s())
                await self._wait(changed, min(RECHECK_S, quiet_s) if self._context.store.shared else quiet_s)
        finally:
            signals.unwatch(account_id, changed)

    async def _begin(self, account_id: str, resume_token: str) -> int:
        """The place after which a stream begins."""

        async def newest(transaction: Transaction) -> int:
            await transaction.accounts.get(account_id)
            return (await transaction.alerts.last_sequences([account_id])).get(account_id, 0)

        last = await self._context.store.transact(newest)
        if not resume_token:
            return last
        try:
            position = self._context.page_tokens.open(("WatchAlerts", account_id), resume_token)
        except FlowStackError:
            raise invalid_request("resume_token", "must be the last one of a stream of the same account") from None
        return last if position is None else position[0]

    def _token(self, account_id: str, sequence: int) -> str:
        return self._context.page_tokens.seal(("WatchAlerts", account_id), (sequence, ""))

    async def _after(self, account_id: str, sequence: int) -> Sequence[AlertView]:
        async def read(transaction: Transaction) -> Sequence[AlertView]:
            # Places are allotted under the lock of the account's partition: what is committed has no gaps.
            alerts = await transaction.alerts.since(account_id, sequence, ALERTS_AT_ONCE)
            return await views_of(transaction, account_id, alerts)

        return await self._context.store.transact(read)
