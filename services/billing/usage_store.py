"""The part of the store's port that holds the ledger's rollups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from services.billing.domain.ledger import LedgerEntry
from services.billing.domain.prices import ProviderCost
from services.billing.domain.rollups import Sums

Group = Literal["hour", "day", "provider", "model", "served_credential_mode", "labels"]
"""What sums are told apart by. Days and hours are UTC's, by their starts in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class RollupFilter:
    """Which sums of an account are read. None lets everything through."""

    account_id: str
    start_us: int | None = None
    """Of an hour."""
    end_us: int | None = None
    """Of an hour, exclusive."""
    period_start_us: int | None = None
    provider: str | None = None
    model: str | None = None
    served_credential_mode: int | None = None


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
        """Sums by groups and credential mode, in no order. By labels, only of sessions that have any."""
        ...
