"""Streams of alerts: signs of life by a clock moved by hand, and that those of one account share what they read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final

import pytest

from services.billing.adapters.sql.database import Database
from services.billing.domain.alerts import Alert, AlertKind, AlertSeverity
from services.billing.service.alert_watching import LIFE_SIGN_S, RECENT_MAX, AlertWatchService, WatchedAlert
from services.billing.service.alerts import AlertService, OwnAlert
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason
from tests.support.books import Books
from tests.support.clock import ManualClock

STREAMS: Final = 20


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

    async def texts(self, count: int) -> list[str]:
        """The next alerts' messages."""
        messages = [await self.messages.get() for _ in range(count)]
        return [message.view.alert.message if message.view else "a sign of life" for message in messages]

    async def numbers_to(self, last: int) -> list[int]:
        """The numbers in the alerts' messages, up to a certain one."""
        numbers = list[int]()
        while not numbers or numbers[-1] != last:
            numbers += map(int, await self.texts(1))
        return numbers

    async def is_sign_of_life(self) -> bool:
        return (await self.messages.get()).view is None


class Counted:
    """A store that counts its transactions, and that can be made to fail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.shared = database.shared
        self.transactions = 0
        self.error: FlowStackError | None = None
        self._running = 0
        self._idle = asyncio.Event()

    async def transact(self, work: Callable[[Transaction], Awaitable[Any]], *, snapshot: bool = False) -> Any:
        self.transactions += 1
        if self.error:
            raise self.error
        self._running += 1
        try:
            return await self._database.transact(work, snapshot=snapshot)
        finally:
            self._running -= 1
            self._idle.set()

    async def settled(self) -> None:
        """Waits until no transaction runs."""
        while self._running:
            self._idle.clear()
            await self._idle.wait()


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


async def put_alerts(books: Books, account_id: str, numbers: Iterable[int]) -> None:
    """Several alerts in one transaction, as a batch of sessions fires them; nobody counts the calls of a minute."""

    async def work(transaction: Transaction) -> None:
        place = (await transaction.alerts.last_sequences([account_id])).get(account_id, 0)
        for sequence, number in enumerate(numbers, place + 1):
            alert_id = f"alert_{account_id}_{number}"
            alert = Alert(
                alert_id, account_id, sequence, alert_id, AlertKind.CUSTOM, AlertSeverity.INFO, 1, str(number)
            )
            await transaction.alerts.insert(alert)
        transaction.after_commit(lambda: books.context.signals.alerted([account_id]))

    await books.context.store.transact(work)


async def send(books: Books, account_id: str, message: str = "m") -> None:
    await AlertService(books.context).send(OwnAlert(account_id, message, AlertSeverity.INFO, "", (), ""))


async def test_a_quiet_stream_says_every_30_s_that_it_is_alive(database: Database) -> None:
    clock = ManualClock()
    books, waits = Books(database, clock), Waits(clock)
    account_id = await books.open_account()
    async with watching(AlertWatchService(books.context, waits), account_id) as stream:
        assert await stream.is_sign_of_life()
        for _ in range(2):
            assert await waits.begun() == LIFE_SIGN_S
            assert stream.messages.empty()
            await waits.pass_by(LIFE_SIGN_S)
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
    books, other = Books(database, clock), Books(database, clock)
    account_id = await books.open_account()
    service = AlertWatchService(books.context)
    async with watching(service, account_id) as stream:
        assert await stream.is_sign_of_life()
        await send(other, account_id, "from elsewhere")
        await service.poll()
        assert await stream.texts(1) == ["from elsewhere"]


async def test_streams_of_an_account_share_one_read_of_what_is_new(database: Database) -> None:
    books = Books(counted := Counted(database), ManualClock())
    account_id = await books.open_account()
    service = AlertWatchService(books.context)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watching(service, account_id)) for _ in range(STREAMS)]
        for stream in streams:
            assert await stream.is_sign_of_life()
        await counted.settled()
        for number in range(3):
            counted.transactions = 0
            await send(books, account_id, str(number))
            for stream in streams:
                assert await stream.texts(1) == [str(number)]
            # The alert's own, and one read for everybody.
            assert counted.transactions == 2
        counted.transactions = 0
        await service.poll()
        assert counted.transactions == 1, "one look for all, and nothing is new"


async def test_one_poll_looks_for_all_accounts(database: Database) -> None:
    clock = ManualClock()
    books, other = Books(counted := Counted(database), clock), Books(database, clock)
    accounts = [await books.open_account() for _ in range(5)]
    service = AlertWatchService(books.context)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watching(service, account_id)) for account_id in accounts]
        for stream in streams:
            assert await stream.is_sign_of_life()
        await counted.settled()
        await send(other, accounts[3], "from elsewhere")
        counted.transactions = 0
        await service.poll()
        assert await streams[3].texts(1) == ["from elsewhere"]
        # One look for all five, and one read of the account that has something new.
        assert counted.transactions == 2
    counted.transactions = 0
    await service.poll()
    assert counted.transactions == 0, "nobody watches"


async def test_streams_that_join_while_alerts_fire_miss_nothing_and_get_nothing_twice(database: Database) -> None:
    books = Books(database, ManualClock())
    account_id = await books.open_account()
    service = AlertWatchService(books.context)
    total = RECENT_MAX + 60
    async with AsyncExitStack() as stack:

        async def join(resume_token: str = "") -> Stream:
            return await stack.enter_async_context(watching(service, account_id, resume_token=resume_token))

        first = await join()
        token = (await first.messages.get()).resume_token
        # Those without a token get all from their first sign of life on, those with one all after it.
        newcomers, resumed, read = list[Stream](), list[tuple[int, Stream]](), list[str]()

        async def fire() -> None:
            for start in range(0, total, 20):
                await put_alerts(books, account_id, range(start, start + 20))

        async def come_and_go() -> None:
            for _ in range(12):
                newcomers.append(await join())
                resumed.append((0, await join(token)))
                seen = await first.messages.get()
                assert seen.view is not None
                resumed.append((int(seen.view.alert.message) + 1, await join(seen.resume_token)))
                read.append(seen.view.alert.message)

        await asyncio.gather(fire(), come_and_go())
        texts = [str(number) for number in range(total)]
        assert read + await first.texts(total - len(read)) == texts
        for start, stream in resumed:
            assert await stream.is_sign_of_life()
            assert await stream.texts(total - start) == texts[start:]
        for stream in newcomers:
            assert await stream.is_sign_of_life()
        await put_alerts(books, account_id, [total])
        for stream in [first, *(stream for _, stream in resumed)]:
            assert await stream.texts(1) == [str(total)]
        for stream in newcomers:
            numbers = await stream.numbers_to(total)
            assert numbers == list(range(numbers[0], total + 1))


async def test_a_stream_that_fell_behind_reads_the_store_and_joins_the_others(database: Database) -> None:
    books = Books(database, ManualClock())
    account_id = await books.open_account()
    service = AlertWatchService(books.context)
    async with watching(service, account_id) as quick, aclosing(service.watch(account_id, (), "")) as slow:
        assert (await anext(slow)).view is None
        assert await quick.is_sign_of_life()
        for start in range(0, 2 * RECENT_MAX, 50):
            await put_alerts(books, account_id, range(start, start + 50))
        texts = [str(number) for number in range(2 * RECENT_MAX)]
        assert await quick.texts(len(texts)) == texts
        read = [await anext(slow) for _ in texts]
        assert [message.view.alert.message for message in read if message.view] == texts
        await send(books, account_id, "last")
        last: Any = await anext(slow)
        assert last.view.alert.message == "last"


async def test_what_ends_the_feed_ends_its_streams_and_the_next_begins_anew(database: Database) -> None:
    books = Books(counted := Counted(database), ManualClock())
    account_id = await books.open_account()
    service = AlertWatchService(books.context)
    async with watching(service, account_id) as stream, watching(service, account_id) as other:
        sign = await stream.messages.get()
        await other.messages.get()
        await counted.settled()
        counted.error = FlowStackError(Reason.BILLING_UNAVAILABLE, "down")
        books.context.signals.alerted([account_id])
        for ended in (stream, other):
            with pytest.raises(FlowStackError, match="down"):
                await ended.reading
        counted.error = None
        await send(books, account_id, "meanwhile")
        async with watching(service, account_id, resume_token=sign.resume_token) as again:
            assert await again.is_sign_of_life()
            assert await again.texts(1) == ["meanwhile"]
