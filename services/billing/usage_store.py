"""The part of the store's port that holds the ledger's rollups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.billing.domain.ledger import LedgerEntry
from services.billing.domain.prices import ProviderCost
from services.billing.domain.rollups import Sums
from services.billing.domain.usage_query import CostItem, GroupKey, Totals, UsageQuery, UsageRow


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


class CostItems(NamedTuple):
    """The dearest of a period's items, and what the others come to."""

    items: Sequence[CostItem]
    others: int
    """How many more there are."""
    others_totals: Totals


class RollupRow(NamedTuple):
    """The sums of sessions that count as one mode."""

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

    async def read(self, wanted: RollupFilter) -> Sequence[RollupRow]:
        """Sums by credential mode, in no order."""
        ...

    async def costs(self, account_id: str, period_start_us: int, limit: int) -> CostItems:
        """A period by provider, model and credentials, the dearest first.

        Of those that cost the same, which is so of all managed ones, those of the most sessions come first.

        Args:
            account_id: the account.
            period_start_us: the start of the period, in microseconds since 1970.
            limit: how many items at most.
        """
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
