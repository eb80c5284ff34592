"""Work that goes on whatever fails in it."""

from __future__ import annotations

import asyncio

from services.shared.background import Backoff, keep_running
from services.shared.errors import FlowStackError, Reason


def test_delays_double_up_to_their_bound_with_jitter() -> None:
    plain = Backoff(0.5, 3.0, lambda: 1.0)
    assert [plain.delay_s(attempts) for attempts in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert Backoff(0.5, 3.0, lambda: 0.0).delay_s(1) == 0.5
    assert plain.delay_s(10_000) == 3.0


async def test_neither_errors_nor_defects_end_the_work() -> None:
    outcomes = iter([FlowStackError(Reason.QUOTA_UNAVAILABLE, "down"), ValueError("defect"), None])
    ran = asyncio.Event()

    async def work() -> bool:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        ran.set()
        await asyncio.Event().wait()
        return True

    task = asyncio.create_task(keep_running("test", work, Backoff(0.0, 0.0, lambda: 0.0)))
    await ran.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
