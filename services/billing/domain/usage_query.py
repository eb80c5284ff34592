"""Sums over time: buckets, groups, and how rows of the rollups make them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, NamedTuple

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

    def minus(self, other: Totals) -> Totals:
        """Without what others add."""
        left = Sums(*map(int.__sub__, self.sums, other.sums))
        return Totals(self.managed - other.managed, self.byok - other.byok, left)


@dataclass(frozen=True, slots=True)
class CostItem:
    """What one provider and model cost in a period."""

    provider: str
    model: str
    credential_mode: int
    totals: Totals


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


def buckets(granularity: Granularity, start_us: int, end_us: int, limit: int) -> list[int]:
    """The starts of the buckets of a range of whole ones, at most so many."""
    found: list[int] = []
    while start_us < end_us and len(found) < limit:
        found.append(start_us)
        start_us = bucket_end(granularity, start_us)
    return found


def filled(query: UsageQuery, starts: Iterable[int], rows: Iterable[UsageRow]) -> list[UsageRow]:
    """One row for each bucket of a query without groups: those without sessions have one too."""
    found = {row.start_us: row for row in rows}
    return [
        found.get(start_us) or UsageRow(start_us, bucket_end(query.granularity, start_us), GroupKey(), Totals())
        for start_us in starts
    ]


def group_text(group: GroupKey) -> str:
    """A group as text, for page tokens: no longer than its values came, whatever characters are in them."""
    # U+0000 is stored as U+FFFD, which is three bytes.
    texts = ["-" if value is None else f"{len(str(value))}:{value}" for value in group]
    return "".join(texts).replace("\ufffd", "\0")


def group_from_text(text: str) -> GroupKey:
    """The inverse of `group_text`."""
    left = text.replace("\0", "\ufffd")
    values: list[str | None] = []
    while left:
        if left[0] == "-":
            value, left = None, left[1:]
        else:
            length, _, left = left.partition(":")
            value, left = left[: int(length)], left[int(length) :]
        values.append(value)
    provider, model, mode, label_value = values
    return GroupKey(provider, model, None if mode is None else int(mode), label_value)
