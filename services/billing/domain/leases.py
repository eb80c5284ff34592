"""How replicas of billing share quota's partitions.

A partition is leased to one replica at a time. A replica that is alive says so again and again, and at each such time
gives up what is beyond its share and takes what is free up to it: so shares even out within two rounds after a replica
came or went, and what need not move stays where it is.

The end of a lease says when others may take the partition, no more. That two never write is the fence's business: it
rises whenever a partition changes hands, and a write with an older one is refused. So clocks that differ between
machines cost idle time or a hand-over, never an event.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class LeaseState(NamedTuple):
    """Who holds a partition."""

    partition: int
    owner: str
    """The replica; empty for none."""
    fence: int
    end_us: int
    """When others may take it, in microseconds since 1970."""


class Shares(NamedTuple):
    """What a replica does at one time. Partitions in rising order."""

    keep: tuple[int, ...]
    take: tuple[int, ...]
    give: tuple[int, ...]


def fair_share(partitions: int, replica: str, alive: Collection[str]) -> int:
    """How many of `partitions` the replica is to have among those `alive`; over all of them it adds up to each one."""
    everybody = sorted({*alive, replica})
    share, rest = divmod(partitions, len(everybody))
    return share + (everybody.index(replica) < rest)


def share(states: Sequence[LeaseState], alive: Collection[str], replica: str, now_us: int) -> Shares:
    """What `replica` keeps, takes and gives up.

    Args:
        states: every partition's lease.
        alive: the replicas that have said so of late.
        replica: whose move it is.
        now_us: the time, in microseconds since 1970.
    """
    target = fair_share(len(states), replica, alive)
    held = sorted(state.partition for state in states if state.owner == replica)
    if len(held) >= target:
        return Shares(tuple(held[:target]), (), tuple(held[target:]))
    free = sorted(
        state.partition for state in states if state.owner != replica and (not state.owner or state.end_us <= now_us)
    )
    return Shares(tuple(held), tuple(free[: target - len(held)]), ())
