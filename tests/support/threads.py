"""Servers in a thread with a loop of its own, for blocking clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_thread(serve: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enters what `serve` answers in another thread's loop, and leaves it there at the block's end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()

    async def hold(stop: asyncio.Event, ready: asyncio.Future[T]) -> None:
        try:
            async with serve() as served:
                ready.set_result(served)
                await stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    async def begin() -> tuple[asyncio.Event, asyncio.Task[None], T]:
        stop, ready = asyncio.Event(), loop.create_future()
        task = asyncio.create_task(hold(stop, ready))
        return stop, task, await ready

    try:
        stop, task, served = asyncio.run_coroutine_threadsafe(begin(), loop).result()
        try:
            yield served
        finally:
            loop.call_soon_threadsafe(stop.set)
            asyncio.run_coroutine_threadsafe(_ended(task), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended(task: asyncio.Task[None]) -> None:
    await task
