"""Streams of alerts by a clock moved by hand: signs of life, and what another replica has written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.billing.adapters.sql.database import Database
from services.billing.domain.alerts import AlertKind, AlertSeverity
from services.billing.service.alert_watching import LIFE_SIGN_S, RECHECK_S, AlertWatchService, WatchedAlert
from services.billing.service.alerts import AlertService, OwnAlert
from tests.support.books import Books
from tests.support.clock import ManualClock


class Waits:
    """Waits that last until the event comes, or until the test says that their time is over."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._asked: asyncio.Queue[float] = asyncio.Queue()
        self._over = asyncio.Event()

    async def __call__(self, event: asyncio.Event, timeout_s: float) -> bool:
        self._over.clear()
        self._asked.put_nowait(timeout_s)
        waiting = [asyncio.ensure_future(one.wait()) for one in (event, self._over)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        return event.is_set()

    async def begun(self) -> float:
        """Waits until the stream has nothing more to say; answers for how many seconds it waits at most."""
        return await self._asked.get()

    async def pass_by(self, seconds: float) -> None:
        """Lets a wait of the stream's come to the end of its time."""
        self._clock.advance(seconds)
        self._over.set()


class Stream:
    """A stream, and those of its messages that were not read yet."""

    def __init__(self, messages: AsyncIterator[WatchedAlert]) -> None:
        self.messages: asyncio.Queue[WatchedAlert] = asyncio.Queue()
        self.reading = asyncio.create_task(self._read(messages))

    async def _read(self, messages: AsyncIterator[WatchedAlert]) -> None:
        async for message in messages:
            self.messages.put_nowait(message)

    async def is_sign_of_life(self) -> bool:
        return (await self.messages.get()).view is None


@asynccontextmanager
async def watching(
    service: AlertWatchService, account_id: str, *kinds: AlertKind, resume_token: str = ""
) -> AsyncIterator[Stream]:
    stream = Stream(service.watch(account_id, kinds, resume_token))
    try:
        yield stream
    finally:
        stream.reading.cancel()
        await asyncio.gather(stream.reading, return_exceptions=True)


async def send(books: Books, account_id: str, message: str = "m") -> None:
    await AlertService(books.context).send(OwnAlert(account_id, message, AlertSeverity.INFO, "", (), ""))


async def test_a_quiet_stream_says_every_30_s_that_it_is_alive(database: Database) -> None:
    clock = ManualClock()
    books, waits = Books(database, clock), Waits(clock)
    account_id = await books.open_account()
    longest_s = RECHECK_S if database.shared else LIFE_SIGN_S
    async with watching(AlertWatchService(books.context, waits), account_id) as stream:
        assert await stream.is_sign_of_life()
        for _ in range(2):
            passed_s = 0.0
            while passed_s < LIFE_SIGN_S:
                assert await waits.begun() == longest_s
                assert stream.messages.empty()
                await waits.pass_by(longest_s)
                passed_s += longest_s
            assert await stream.is_sign_of_life()


async def test_what_is_passed_over_does_not_put_a_sign_of_life_off(database: Database) -> None:
    clock = ManualClock()
    books, waits = Books(database, clock), Waits(clock)
    account_id = await books.open_account()
    service = AlertWatchService(books.context, waits)
    async with watching(service, account_id, AlertKind.USAGE_THRESHOLD) as stream:
        assert await stream.is_sign_of_life()
        await waits.begun()
        clock.advance(LIFE_SIGN_S - 0.5)
        await send(books, account_id)
        # Woken by an alert of another kind, it has nothing to say before its 30 s are over.
        assert await waits.begun() == 0.5
        assert stream.messages.empty()
        await waits.pass_by(0.5)
        sign = await stream.messages.get()
        assert sign.view is None
    async with watching(service, account_id, resume_token=sign.resume_token) as stream:
        assert await stream.is_sign_of_life()
        await waits.begun()
        assert stream.messages.empty(), "what was passed over is passed over for good"


async def test_an_alert_puts_the_next_sign_of_life_off(database: Database) -> None:
    clock = ManualClock()
    books, waits = Books(database, clock), Waits(clock)
    account_id = await books.open_account()
    async with watching(AlertWatchService(books.context, waits), account_id) as stream:
        assert await stream.is_sign_of_life()
        await waits.begun()
        clock.advance(LIFE_SIGN_S - 0.5)
        await send(books, account_id)
        assert not await stream.is_sign_of_life()
        await waits.begun()
        await waits.pass_by(0.5)
        await waits.begun()
        assert stream.messages.empty()


async def test_what_another_replica_has_written_is_found_without_being_told(database: Database) -> None:
    clock = ManualClock()
    books, other, waits = Books(database, clock), Books(database, clock), Waits(clock)
    account_id = await books.open_account()
    async with watching(AlertWatchService(books.context, waits), account_id) as stream:
        assert await stream.is_sign_of_life()
        wait_s = await waits.begun()
        await send(other, account_id, "from elsewhere")
        await waits.pass_by(wait_s)
        found: Any = (await stream.messages.get()).view
        assert found.alert.message == "from elsewhere"
