from __future__ import annotations

import asyncio

import pytest

from services.router.buffer import EventBuffer, ReaderStalledError
from services.router.domain.events import TextDelta
from services.shared.errors import FlowStackError, Reason


def deltas(*texts: str) -> list[TextDelta]:
    return [TextDelta(text) for text in texts]


async def test_the_reader_gets_all_that_is_waiting() -> None:
    buffer = EventBuffer(events_max=8, bytes_max=1000, stall_s=10)
    await buffer.put(deltas("a"))
    await buffer.put(deltas("b", "c"))
    buffer.close(*deltas("d"))

    assert await buffer.take() == deltas("abcd")
    assert await buffer.take() == ()


async def test_an_error_comes_after_what_was_sent_before_it() -> None:
    buffer = EventBuffer(events_max=8, bytes_max=1000, stall_s=10)
    await buffer.put(deltas("a"))
    buffer.close(error=FlowStackError(Reason.INTERNAL, "broken"))

    assert await buffer.take() == deltas("a")
    with pytest.raises(FlowStackError):
        await buffer.take()


async def test_a_full_buffer_holds_the_writer_up_until_it_is_read() -> None:
    buffer = EventBuffer(events_max=2, bytes_max=1000, stall_s=10)
    writer = asyncio.create_task(buffer.put(deltas("a", "b", "c")))
    await asyncio.sleep(0)
    assert not writer.done()

    assert await buffer.take() == deltas("abc")
    await writer


async def test_bytes_make_it_full_as_well() -> None:
    buffer = EventBuffer(events_max=100, bytes_max=10, stall_s=10)
    await buffer.put(deltas("123456789"))
    writer = asyncio.create_task(buffer.put(deltas("0")))
    await asyncio.sleep(0)
    assert not writer.done()

    assert await buffer.take() == deltas("1234567890")
    await writer
    await buffer.put(deltas("a"))
    assert await buffer.take() == deltas("a"), "what was taken no longer counts"


async def test_a_writer_that_is_ahead_lets_others_run() -> None:
    buffer = EventBuffer(events_max=1000, bytes_max=1000, stall_s=10)
    ran: list[str] = []

    async def write() -> None:
        for letter in "abcd":
            await buffer.put(deltas(letter))
            ran.append(letter)

    async def other() -> None:
        for number in "12":
            ran.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(write(), other())
    # The first event has a reader to wait for it; from the second on the writer takes turns.
    assert ran == ["a", "1", "b", "2", "c", "d"]


async def test_a_waiting_reader_is_woken() -> None:
    buffer = EventBuffer(events_max=2, bytes_max=1000, stall_s=10)
    reader = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    await buffer.put(deltas("a"))

    assert await reader == deltas("a")


async def test_a_reader_that_takes_nothing_is_stalled() -> None:
    buffer = EventBuffer(events_max=1, bytes_max=1000, stall_s=0.01)
    with pytest.raises(ReaderStalledError):
        await buffer.put(deltas("a"))


async def test_an_abandoned_buffer_holds_nobody_up() -> None:
    buffer = EventBuffer(events_max=1, bytes_max=1000, stall_s=10)
    writer = asyncio.create_task(buffer.put(deltas("a")))
    await asyncio.sleep(0)
    buffer.abandon()
    await writer
    await buffer.put(deltas(*"bcdef"))
    buffer.close(*deltas("g"))

    assert await buffer.take() == ()
