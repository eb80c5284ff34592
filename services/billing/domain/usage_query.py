"""Sums over time: buckets, groups, and how rows of the rollups make them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, NamedTuple

from services.billing.domain.ledger import CredentialMode
from services.billing.domain.rollups import HOUR_US, Sums
from services.billing.domain.usage import DAY_US
from services.shared.errors import invalid_request
from services.shared.periods import add_months, time_from_us, us_from_time

ADVANCED_ANALYTICS: Final = "advanced_analytics"
"""The feature that grouping needs."""


class Granularity(IntEnum):
    """The length of a bucket. The numbers are the contract's."""

    HOUR = 1
    DAY = 2
    MONTH = 3


class Dimension(IntEnum):
    """What rows are told apart by. The numbers are the contract's."""

    PROVIDER = 1
    MODEL = 2
    CREDENTIAL_MODE = 3
    LABEL = 4


DAYS_MAX: Final = {Granularity.HOUR: 93, Granularity.DAY: 1_100, Granularity.MONTH: 3_660}
"""How many days a range may have."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What is added up. Empty filters let everything through."""

    account_id: str
    start_us: int | None
    """None for the start of the current period."""
    end_us: int | None
    """None for now."""
    granularity: Granularity
    group_by: tuple[Dimension, ...] = ()
    label_key: str = ""
    label_value: str | None = None
    provider: str = ""
    model: str = ""
    credential_mode: int = 0

    @property
    def needs_labels(self) -> bool:
        """Whether it asks after a label at all."""
        return self.label_value is not None or Dimension.LABEL in self.group_by


class Totals(NamedTuple):
    """Sums, with what of the counted sessions is managed and BYOK."""

    managed: int = 0
    byok: int = 0
    sums: Sums = Sums()

    def plus(self, credential_mode: int, sums: Sums) -> Totals:
        """With the sums of sessions that count as one mode."""
        return Totals(
            self.managed + (sums.committed if credential_mode == CredentialMode.MANAGED else 0),
            self.byok + (sums.committed if credential_mode == CredentialMode.BYOK else 0),
            self.sums.plus(sums),
        )


class GroupKey(NamedTuple):
    """What a row is told apart by. None where the query does not ask, and a label where sessions have none."""

    provider: str | None = None
    model: str | None = None
    credential_mode: int | None = None
    label_value: str | None = None


class UsageRow(NamedTuple):
    """One bucket, or one group of a bucket."""

    start_us: int
    end_us: int
    group: GroupKey
    totals: Totals


class Piece(NamedTuple):
    """Sums that belong to one bucket and group."""

    time_us: int
    """Of an hour or a day."""
    group: GroupKey
    credential_mode: int
    sums: Sums


def bucket_start(granularity: Granularity, time_us: int) -> int:
    """The start of the bucket that a time is in."""
    if granularity is Granularity.MONTH:
        time = time_from_us(time_us)
        return us_from_time(datetime(time.year, time.month, 1, tzinfo=UTC))
    return time_us - time_us % (HOUR_US if granularity is Granularity.HOUR else DAY_US)


def bucket_end(granularity: Granularity, start_us: int) -> int:
    """The end of the bucket that begins then."""
    if granularity is Granularity.MONTH:
        return us_from_time(add_months(time_from_us(start_us), 1))
    return start_us + (HOUR_US if granularity is Granularity.HOUR else DAY_US)


def whole_range(query: UsageQuery, period_start_us: int, now_us: int) -> tuple[int, int]:
    """The query's range, in whole buckets.

    Raises:
        FlowStackError: INVALID_REQUEST: it ends before it starts, or is too long for its buckets.
    """
    start_us = period_start_us if query.start_us is None else query.start_us
    end_us = max(now_us, start_us + 1) if query.end_us is None else query.end_us
    if start_us >= end_us:
        raise invalid_request("end_time", "must be after start_time, which is the current period's start when left out")
    days = DAYS_MAX[query.granularity]
    if end_us - start_us > days * DAY_US:
        raise invalid_request("start_time", f"must be at most {days:,} days before end_time for buckets of this length")
    last_us = bucket_start(query.granularity, end_us - 1)
    return bucket_start(query.granularity, start_us), bucket_end(query.granularity, last_us)


def rows_of(query: UsageQuery, start_us: int, end_us: int, pieces: Iterable[Piece]) -> list[UsageRow]:
    """The rows of a range, by time, then by group. Without groups every bucket has one."""
    found: dict[tuple[int, GroupKey], Totals] = {}
    if not query.group_by:
        found = {(bucket_us, GroupKey()): Totals() for bucket_us in _buckets(query.granularity, start_us, end_us)}
    for time_us, group, mode, sums in pieces:
        key = (bucket_start(query.granularity, time_us), group)
        found[key] = found.get(key, Totals()).plus(mode, sums)
    return [
        UsageRow(bucket_us, bucket_end(query.granularity, bucket_us), group, totals)
        for (bucket_us, group), totals in sorted(found.items(), key=lambda item: (item[0][0], order_of(item[0][1])))
        if not query.group_by or any(totals.sums)
    ]


def total_of(rows: Sequence[UsageRow]) -> Totals:
    """All rows together."""
    total = Totals()
    for row in rows:
        managed, byok, sums = row.totals
        total = Totals(total.managed + managed, total.byok + byok, total.sums.plus(sums))
    return total


def order_of(group: GroupKey) -> tuple[tuple[bool, str | int], ...]:
    """Groups in order; what is unset comes before what is empty."""
    return tuple((value is not None, value if value is not None else "") for value in group)


def group_text(group: GroupKey) -> str:
    """A group as text, for page tokens."""
    return json.dumps(group)


def group_from_text(text: str) -> GroupKey:
    """The inverse of `group_text`."""
    return GroupKey(*json.loads(text))


def label_of(labels: str, key: str) -> str | None:
    """The value of a label in a JSON object of labels; None where it is not there."""
    value: str | None = json.loads(labels).get(key)
    return value


def without(all_of: Iterable[Piece], some: Iterable[Piece]) -> list[Piece]:
    """What is left of sums when others that are part of them are taken off."""
    left: dict[tuple[int, GroupKey, int], Sums] = {}
    for time_us, group, mode, sums in all_of:
        left[time_us, group, mode] = sums
    for time_us, group, mode, sums in some:
        key = (time_us, group._replace(label_value=None), mode)
        left[key] = Sums(*map(int.__sub__, left[key], sums))
    return [Piece(*key, sums) for key, sums in left.items() if any(sums)]


def _buckets(granularity: Granularity, start_us: int, end_us: int) -> Iterator[int]:
    while start_us < end_us:
        yield start_us
        start_us = bucket_end(granularity, start_us)
