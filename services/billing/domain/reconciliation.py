"""Does the ledger equal quota's counters? Decided so that nothing that happens meanwhile looks like a difference.

Quota is read before and after the ledger. Counters of a period only rise, every session of the first reading is in the
ledger or among the events that quota has yet to deliver, and none of these is missing in the second reading. So what
the ledger has with those events lies between the readings, or there is a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from services.billing.domain.ledger import CredentialMode, EventType, LedgerEntry, PeriodCounts
from services.billing.domain.usage import QuotaReading


class DriftKind(IntEnum):
    """How the ledger and quota differ. The numbers are the contract's."""

    COMMITTED_SESSIONS = 1
    CREDENTIAL_MODES = 2
    UNKNOWN_ACCOUNT = 3
    ENTITLEMENT = 4
    ROLLUP = 5


class Drift(NamedTuple):
    """One difference. Times in microseconds since 1970, 0 where there is none."""

    account_id: str
    kind: DriftKind
    period_start_us: int
    ledger_value: int
    compared_value: int
    session_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Compared:
    """What was read of one account."""

    account_id: str
    before: QuotaReading | None
    """Quota before the ledger was read; None where it has no entitlement."""
    ledger: PeriodCounts
    """The ledger with what quota had yet to deliver, in the period of `before`."""
    after: QuotaReading | None
    stored: PeriodCounts
    """The ledger's rows alone."""
    rollup: PeriodCounts
    """Their sums, as they are kept."""
    revisions: frozenset[int]
    """The revisions that billing's entitlement had meanwhile."""

    @property
    def period_turned(self) -> bool:
        """A new period began in between, so that the readings are not of one counter: read again."""
        starts = {reading.period_start_us for reading in (self.before, self.after) if reading is not None}
        return len(starts) > 1


def with_pending(counts: PeriodCounts, account_id: str, period_us: int, pending: Iterator[LedgerEntry]) -> PeriodCounts:
    """The counts of an account's period with entries that the ledger does not have yet."""
    managed, byok, other = counts
    for entry in pending:
        if (entry.account_id, entry.period_start_us, entry.event) == (account_id, period_us, EventType.COMMITTED):
            managed += entry.credential_mode == CredentialMode.MANAGED
            byok += entry.credential_mode == CredentialMode.BYOK
            other += entry.credential_mode not in (CredentialMode.MANAGED, CredentialMode.BYOK)
    return PeriodCounts(managed, byok, other)


def drifts_of(compared: Compared) -> list[Drift]:
    """The differences of one account."""
    return [*_entitlement_drift(compared), *_count_drifts(compared), *_rollup_drift(compared)]


def _entitlement_drift(compared: Compared) -> Iterator[Drift]:
    at_quota = 0 if compared.after is None else compared.after.entitlement_revision
    if at_quota in compared.revisions:
        return
    ours = max(compared.revisions)
    if not at_quota:
        message = f"Quota has no entitlement of the account; billing has revision {ours}."
    elif at_quota > ours:
        message = f"Quota has revision {at_quota}, which billing never allotted: its database is older than quota's."
    else:
        message = f"Quota has revision {at_quota}; billing's revision {ours} has not reached it yet."
    yield Drift(compared.account_id, DriftKind.ENTITLEMENT, 0, ours, at_quota, "", message)


def _count_drifts(compared: Compared) -> Iterator[Drift]:
    before, after, ledger = compared.before, compared.after, compared.ledger
    if before is None or after is None:
        return
    bounds = (
        (
            DriftKind.COMMITTED_SESSIONS,
            "sessions",
            ledger.committed,
            before.sessions_committed,
            after.sessions_committed,
        ),
        (
            DriftKind.CREDENTIAL_MODES,
            "managed sessions",
            ledger.managed,
            before.managed_sessions,
            after.managed_sessions,
        ),
        (DriftKind.CREDENTIAL_MODES, "BYOK sessions", ledger.byok, before.byok_sessions, after.byok_sessions),
    )
    for kind, what, value, least, most in bounds:
        if least <= value <= most:
            continue
        compared_value = least if value < least else most
        lack = f"lacks {least - value}" if value < least else f"has {value - most} more"
        yield Drift(
            compared.account_id,
            kind,
            before.period_start_us,
            value,
            compared_value,
            "",
            f"Quota counted {compared_value} {what} in the period; the ledger {lack}.",
        )


def _rollup_drift(compared: Compared) -> Iterator[Drift]:
    if compared.before is None or compared.stored == compared.rollup:
        return
    stored, rollup = compared.stored.committed, compared.rollup.committed
    message = f"The ledger has {stored} counted sessions in the period; its sums say {rollup}, or other modes of them."
    period_us = compared.before.period_start_us
    yield Drift(compared.account_id, DriftKind.ROLLUP, period_us, stored, rollup, "", message)


def stray_drift(entry: LedgerEntry) -> Drift:
    """An event that is kept aside, because billing does not know its account."""
    return Drift(
        entry.account_id,
        DriftKind.UNKNOWN_ACCOUNT,
        entry.period_start_us,
        0,
        1,
        entry.session_id,
        "The event is kept aside until the account is known to billing. Restore the account, or find out who made it.",
    )
