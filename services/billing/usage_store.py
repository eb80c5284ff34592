"""The part of the store's port that holds the ledger's rollups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from services.billing.domain.ledger import LedgerEntry
from services.billing.domain.prices import ProviderCost
from services.billing.domain.rollups import Sums
from services.billing.domain.usage_query import GroupKey, Totals, UsageQuery, UsageRow

Group = Literal["day", "provider", "model", "served_credential_mode"]
"""What sums are told apart by. Days are UTC's, by their starts in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class RollupFilter:
    """Which sums of an account are read. None lets everything through."""

    account_id: str
    period_start_us: int | None = None


class Span(NamedTuple):
    """Whole buckets of a query, in microseconds since 1970."""

    start_us: int
    end_us: int
    """Exclusive."""


class RollupRow(NamedTuple):
    """The sums of one group, by what its sessions count as."""

    group: tuple[int | str, ...]
    """In the order of the groups that were asked for."""
    credential_mode: int
    sums: Sums


class Rollups(Protocol):
    """Sums of the ledger, written in the transaction that appends to it and exact at every moment."""

    async def add(self, entries: Sequence[LedgerEntry]) -> None:
        """Adds entries that are new in the ledger; each must come once."""

    async def provider_cost(self, account_id: str, period_start_us: int) -> ProviderCost:
        """What providers have charged the caller for BYOK sessions of a period, as of this transaction.

        One read by key: it costs the same however many sessions there are, so that each booking can afford it.

        Args:
            account_id: the account.
            period_start_us: the start of the period, in microseconds since 1970.

        Returns:
            The known part in micro-dollars, and how many sessions are not in it because their cost is unknown.
        """
        ...

    async def committed_since(self, account_id: str, hour_us: int) -> int:
        """Counted sessions that were reserved in the hour that starts then, or later."""
        ...

    async def committed_by_day(self, account_id: str, period_start_us: int) -> Mapping[int, int]:
        """Counted sessions of a period by the start of their day of UTC, both in microseconds since 1970."""
        ...

    async def read(self, wanted: RollupFilter, groups: Sequence[Group]) -> Sequence[RollupRow]:
        """Sums by groups and credential mode, in no order."""
        ...

    async def totals(self, query: UsageQuery, span: Span, sums_max: int) -> Totals | None:
        """All that a query adds up, without its groups; None where that rests on more than `sums_max` stored sums."""
        ...

    async def reach(self, query: UsageQuery, span: Span, sums: int) -> int | None:
        """The hour up to which, excluding it, a query by groups rests on at most that many stored sums.

        None where that is so of the whole span. The hour is not before the span's start.
        """
        ...

    async def rows(self, query: UsageQuery, span: Span, after: GroupKey | None, limit: int) -> Sequence[UsageRow]:
        """The rows of a query by bucket and group, in that order; empty groups are left out.

        Args:
            query: what is added up.
            span: which buckets.
            after: of the first bucket only groups after this one; None for all of it.
            limit: how many rows at most.
        """
        ...
