"""How replicas of billing share quota's partitions.

A partition is leased to one replica at a time. A replica that is alive says so again and again, and at each such time
gives up what is beyond its share and takes what is free up to it: so shares even out within two rounds after a replica
came or went, and what need not move stays where it is.

The end of a lease says when others may take the partition, no more. That two never write is the fence's business: it
rises whenever a partition changes hands, and a write with an older one is refused. So clocks that differ between
machines cost idle time or a hand-over, never an event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

ROUNDS_IN_LEASE: Final = 3
"""How often a replica says within the time of a lease that it is alive: two such messages may fail."""

LOOKS_IN_ROUND: Final = 8
"""How often at most it looks at the leases in the time of such a round, where it lacks some or waits for an end."""


class Lacking(NamedTuple):
    """What a replica lacks, and when others may leave it more."""

    missing: int
    """How many partitions it is short of its share."""
    others_end_us: int
    """When the first lease of another replica ends, a partition's or the one that says that it is alive. 0 for none."""


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


def lacking(states: Sequence[LeaseState], alive: Mapping[str, int], replica: str, now_us: int, *, held: int) -> Lacking:
    """What `replica` lacks after its move.

    Args:
        states: every partition's lease, before the move or after it.
        alive: the replicas that have said so of late, with the end of what they said, in microseconds since 1970.
        replica: whose move it was.
        now_us: the time, in microseconds since 1970.
        held: how many partitions it holds after the move.
    """
    ends = [state.end_us for state in states if state.owner not in ("", replica)]
    ends += [end_us for name, end_us in alive.items() if name != replica]
    return Lacking(
        max(0, fair_share(len(states), replica, alive) - held), min((end for end in ends if end > now_us), default=0)
    )


def next_look_us(lack: Lacking, now_us: int, lease_us: int, looks: int) -> int:
    """How long until a replica looks again, in microseconds.

    A third of a lease, as a rule. Sooner where a lease of another replica ends before that, which one that is alive
    never lets happen; and where a part of the own share is missing, at first soon, then after twice the time and so on:
    others give it up at a time of theirs.

    Args:
        lack: what it lacks.
        now_us: the time, in microseconds since 1970.
        lease_us: the time of a lease.
        looks: how often it has looked in vain since it last got or gave up anything.
    """
    longest_us = lease_us // ROUNDS_IN_LEASE
    shortest_us = max(1, longest_us // LOOKS_IN_ROUND)
    wait_us = min(longest_us, shortest_us << min(looks, LOOKS_IN_ROUND)) if lack.missing else longest_us
    if lack.others_end_us:
        wait_us = min(wait_us, max(shortest_us, lack.others_end_us - now_us))
    return wait_us
