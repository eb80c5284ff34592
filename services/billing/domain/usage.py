"""Where an account stands in its period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from services.billing.domain.prices import ProviderCost

DAY_US: Final = 24 * 3600 * 1_000_000
NEAR_LIMIT_PERCENT: Final = 80


class LedgerUsage(NamedTuple):
    """What the ledger knows of an account's current period."""

    committed_today: int
    """Counted sessions that were reserved since 00:00 UTC."""
    provider_cost: ProviderCost
    """Of the period's BYOK sessions so far."""
    projected_cost_micro: int
    """The same at the period's end, most likely; what is unknown left out."""


class QuotaReading(NamedTuple):
    """One read of quota: counts and refusal belong together."""

    plan_id: str
    period_start_us: int
    period_end_us: int
    session_limit: int
    sessions_committed: int
    managed_sessions: int
    byok_sessions: int
    sessions_reserved: int
    sessions_remaining: int
    managed_providers: tuple[str, ...]
    sessions_available: bool
    refusal_reason: str
    entitlement_revision: int


@dataclass(frozen=True, slots=True)
class Usage:
    """An account's usage of its current period. Money is micro-dollars."""

    account_id: str
    quota: QuotaReading
    sessions_used_today: int
    usage_percentage: float
    is_near_limit: bool
    can_use_managed: bool
    current_charges_micro: int
    estimated_monthly_cost_micro: int
    costs_as_of_us: int
    days_left: int
    unpriced_sessions: int


def day_start_us(now_us: int) -> int:
    """00:00 UTC of the day of `now_us`."""
    return now_us - now_us % DAY_US


def percentage(used: int, limit: int) -> float:
    """100 * used / limit; 0 when the limit is 0."""
    return 100 * used / limit if limit else 0.0


def is_near_limit(used: int, limit: int) -> bool:
    """True from 80 % on; decided in integers, so that exactly 80 % is near."""
    return limit > 0 and used * 100 >= limit * NEAR_LIMIT_PERCENT


def days_left(period_end_us: int, now_us: int) -> int:
    """Days until the period's end, rounded up; 0 after it."""
    return max(0, -((now_us - period_end_us) // DAY_US))


def usage_of(
    account_id: str, quota: QuotaReading, ledger: LedgerUsage, *, charges_micro: int, costs_as_of_us: int, now_us: int
) -> Usage:
    """Puts an account's usage together.

    A provider cost that is not known is left out of the estimate and counted as unpriced, never taken for 0.

    Args:
        account_id: the account.
        quota: one read of quota.
        ledger: what the ledger knows of the day and the period.
        charges_micro: what the period has been invoiced so far, in micro-dollars.
        costs_as_of_us: as of when the ledger is.
        now_us: the present.
    """
    return Usage(
        account_id,
        quota,
        ledger.committed_today,
        percentage(quota.sessions_committed, quota.session_limit),
        is_near_limit(quota.sessions_committed, quota.session_limit),
        bool(quota.managed_providers),
        charges_micro,
        charges_micro + ledger.projected_cost_micro,
        costs_as_of_us,
        days_left(quota.period_end_us, now_us),
        ledger.provider_cost.unpriced_sessions,
    )
