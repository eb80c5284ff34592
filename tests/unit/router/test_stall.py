from __future__ import annotations

import asyncio

import pytest

from services.router.domain.outcome import AttemptFailure
from services.router.providers.port import ProviderError
from services.router.providers.stall import StallGuard


async def test_a_wait_without_an_end_is_ended() -> None:
    guard = StallGuard(0.01)
    with pytest.raises(ProviderError) as caught, guard:
        await asyncio.Event().wait()
    guard.close()

    assert caught.value.failure is AttemptFailure.STALLED
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "nothing is left of it"


async def test_a_cancellation_from_outside_stays_one() -> None:
    guard = StallGuard(60)
    waiting = asyncio.Event()

    async def wait() -> None:
        with guard:
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    await asyncio.wait((task,))
    guard.close()

    assert task.cancelled()


async def test_a_cancellation_from_outside_at_the_same_moment_wins() -> None:
    guard = StallGuard(60)
    waiting = asyncio.Event()

    async def wait() -> None:
        with guard:
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    guard._last_s -= 61
    guard._look()
    task.cancel()
    await asyncio.wait((task,))
    guard.close()

    assert task.cancelled()


async def test_time_in_which_nobody_waits_does_not_count() -> None:
    guard = StallGuard(60)
    guard._last_s -= 61
    guard._look()

    with guard:
        await asyncio.sleep(0)
    guard.close()
