"""Alerts: what an account is told of, decided from its period, and what it means to spend. Pure.

Times are microseconds since 1970 in UTC, 0 where unset; money is integer micro-dollars. The numbers of every
enumeration are the contract's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from services.billing.domain.entitlements import Block, BlockReason
from services.shared.periods import Period, time_from_us

THRESHOLDS_DEFAULT: Final = (75, 90, 95)
"""In percent of the limit, where an account has set none."""

MICRO: Final = 1_000_000


class AlertKind(IntEnum):
    """What an alert is about."""

    USAGE_THRESHOLD = 1
    BUDGET_EXCEEDED = 2
    CUSTOM = 3


class AlertSeverity(IntEnum):
    """How grave it is."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3


class BudgetAction(IntEnum):
    """What happens when a period's cost goes beyond the budget."""

    WARN = 1
    BLOCK = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a period may cost."""

    max_micro: int
    action: BudgetAction


@dataclass(frozen=True, slots=True)
class AlertSink:
    """A webhook that alerts go to."""

    webhook_id: str
    kinds: tuple[AlertKind, ...]
    """Empty for all."""

    def takes(self, kind: AlertKind) -> bool:
        """Whether alerts of the kind go there."""
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """What an account wants to be told, where, and what it means to spend."""

    account_id: str
    thresholds: tuple[int, ...] = THRESHOLDS_DEFAULT
    sinks: tuple[AlertSink, ...] = ()
    budget: Budget | None = None
    update_us: int = 0
    version: int = 0
    """Counts the changes; 0 where there was none."""

    @property
    def etag(self) -> str:
        """Changes with the settings."""
        return f"al{self.version}"


class PeriodSums(NamedTuple):
    """What an account's sessions of a period come to."""

    committed: int = 0
    byok_micro: int = 0
    """The provider cost of sessions on the caller's credentials, as far as it is known."""
    unpriced: int = 0
    """Sessions on the caller's credentials whose cost is not known."""


class BudgetStanding(NamedTuple):
    """How a period stands against the budget."""

    budget: Budget
    period: Period
    spent_micro: int
    unpriced: int
    exceed_us: int = 0

    @property
    def exceeded(self) -> bool:
        """Whether more was spent than the budget."""
        return self.spent_micro > self.budget.max_micro

    @property
    def blocking(self) -> bool:
        """Whether new sessions are refused for it."""
        return self.exceeded and self.budget.action is BudgetAction.BLOCK


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that an account was told."""

    alert_id: str
    account_id: str
    sequence: int
    """Its place among the account's alerts, from 1 without gaps: the order in which they were written."""
    once_key: str
    """What it is unique by within the account, for good."""
    kind: AlertKind
    severity: AlertSeverity
    create_us: int
    message: str
    period: Period | None = None
    threshold: int = 0
    sessions_used: int = 0
    sessions_limit: int = 0
    budget: BudgetStanding | None = None
    data_json: str = ""

    @property
    def sessions_remaining(self) -> int:
        """Units that were left."""
        return max(0, self.sessions_limit - self.sessions_used)

    @property
    def usage_percentage(self) -> float:
        """Of the limit."""
        return 100 * self.sessions_used / self.sessions_limit if self.sessions_limit else 0.0


class Firing(NamedTuple):
    """An alert before it is written: it has no id, place or time yet."""

    account_id: str
    once_key: str
    kind: AlertKind
    severity: AlertSeverity
    message: str
    period: Period
    threshold: int = 0
    sessions_used: int = 0
    sessions_limit: int = 0
    budget: BudgetStanding | None = None


def usage_firings(settings: AlertSettings, period: Period, limit: int, used: int) -> list[Firing]:
    """The alerts of every threshold that `used` sessions have reached; decided in integers, so that 75 % is 75 %.

    They are told apart by period, threshold and limit: each is written once, whoever comes to think that it is due.
    """
    return [
        Firing(
            settings.account_id,
            f"usage:{period.start_us}:{threshold}:{limit}",
            AlertKind.USAGE_THRESHOLD,
            AlertSeverity.CRITICAL if threshold >= 100 else AlertSeverity.WARNING,
            f"Sessions have reached {threshold} % of this period's limit: {used} of {limit} are used, "
            f"{max(0, limit - used)} are left until {_date(period.end_us)}.",
            period,
            threshold,
            used,
            limit,
        )
        for threshold in sorted(settings.thresholds)
        if limit > 0 and used * 100 >= limit * threshold
    ]


def budget_firing(account_id: str, standing: BudgetStanding) -> Firing | None:
    """The alert of a budget that was exceeded; once for each period, amount and action."""
    if not standing.exceeded:
        return None
    budget, period = standing.budget, standing.period
    blocks = budget.action is BudgetAction.BLOCK
    what = f"New sessions are refused until {_date(period.end_us)}." if blocks else "Sessions go on."
    return Firing(
        account_id,
        budget_key(budget, period),
        AlertKind.BUDGET_EXCEEDED,
        AlertSeverity.CRITICAL if blocks else AlertSeverity.WARNING,
        f"This period's cost of {dollars(standing.spent_micro)} is beyond the budget of "
        f"{dollars(budget.max_micro)}. {what}",
        period,
        budget=standing,
    )


def budget_key(budget: Budget, period: Period) -> str:
    """What the alert of an exceeded budget is unique by."""
    return f"budget:{period.start_us}:{budget.max_micro}:{int(budget.action)}"


def budget_block(standing: BudgetStanding | None) -> Block | None:
    """What refuses new sessions of an account beyond its budget: it ends by itself with the period.

    The message says nothing that changes from session to session, so that a block is put to quota once.
    """
    if standing is None or not standing.blocking:
        return None
    end_us = standing.period.end_us
    return Block(
        BlockReason.BUDGET_EXCEEDED,
        f"The period's cost is beyond the budget of {dollars(standing.budget.max_micro)}. Sessions start again on "
        f"{_date(end_us)}, or once the budget is raised or dropped in the alert settings.",
        end_us,
    )


def dollars(micro: int) -> str:
    """An amount for people: to the cent, or to the last digit where it has more."""
    units, rest = divmod(abs(micro), MICRO)
    digits = f"{rest:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${units:,}.{digits}"


def _date(time_us: int) -> str:
    return f"{time_from_us(time_us):%Y-%m-%d %H:%M} UTC"
