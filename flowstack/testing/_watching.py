"""Streams of usage and of alerts: how many an account may have open, and how they wait for news."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from flowstack.testing._errors import FakeError

if TYPE_CHECKING:
    from flowstack.testing._calls import Call
    from flowstack.testing._world import World

STREAMS_MAX: Final = 1_000
"""Of an account, WatchUsage and WatchAlerts taken together."""

RETRY_AFTER: Final = timedelta(seconds=1)

LOOK_S: Final = 1.0
"""How often a stream looks whether its caller is still there."""


def begin(world: World, call: Call) -> None:
    """Counts a stream of the call's account, until the call is over.

    Raises:
        FakeError: CONCURRENCY_LIMIT_EXCEEDED.
    """
    with world.lock:
        if world.streams[call.account_id] >= STREAMS_MAX:
            raise FakeError(
                "CONCURRENCY_LIMIT_EXCEEDED",
                f"The account has {STREAMS_MAX} streams of usage and alerts open here, the most that it can. "
                "End one that is not needed, or try again later.",
                metadata={"limit": str(STREAMS_MAX)},
                retry_after=RETRY_AFTER,
            )
        world.streams[call.account_id] += 1

    def end() -> None:
        with world.lock:
            world.streams[call.account_id] -= 1

    call.when_over(end)


def goes_on(world: World, call: Call) -> bool:
    """Waits for news, or for a short while; False where nobody waits for them any more. The caller holds the lock.

    Raises:
        FakeError: SHUTTING_DOWN.
    """
    if world.stopping:
        raise FakeError("SHUTTING_DOWN", "The fake is shutting down. Watch again.")
    if not call.is_active():
        return False
    world.changed.wait(LOOK_S)
    return True
