"""However much is wrong, a page of ReconcileUsage is a message that every client takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from services.billing.convert.reconciliation import reconciliation_to_proto
from services.billing.domain.ledger import LedgerEntry, PeriodCounts
from services.billing.domain.reconciliation import Compared, Drift, DriftKind, drifts_of, stray_drift
from services.billing.domain.usage import QuotaReading
from services.billing.service.reconciliation import Reconciliation

PAGE_SIZE_MAX: Final = 1_000
MOST: Final = 2**31 - 1
LONG_AGO_US: Final = 253_402_300_799_999_999
"""The last time that a Timestamp takes, whose numbers are the longest."""
ACCOUNT: Final = f"acct_{'z' * 58}"


def reading() -> QuotaReading:
    fields = dict.fromkeys(QuotaReading.__annotations__, 0) | {
        "period_start_us": LONG_AGO_US,
        "entitlement_revision": MOST,
        "sessions_committed": MOST,
        "managed_sessions": MOST,
        "byok_sessions": MOST,
    }
    return QuotaReading(**fields)  # type: ignore[arg-type]  # the others are of no matter


def all_that_can_be_wrong() -> Sequence[Drift]:
    """Of one account; every number as long as it can be."""
    stored, rollup = PeriodCounts(MOST - 10**9, 0, 0), PeriodCounts(MOST, 0, 0)
    return drifts_of(
        Compared(ACCOUNT, reading(), PeriodCounts(0, 0, 0), reading(), stored, rollup, frozenset([MOST - 1]))
    )


def kept_aside() -> Sequence[Drift]:
    entry = LedgerEntry(
        ACCOUNT, f"ses_{'f' * 32}", 1, 1, 2, LONG_AGO_US, 1, 2, 1, 2, "", "", 0, None, None, None, None, None, False,
        0, 0, "", "", "{}", "{}", 1,
    )  # fmt: skip
    return [stray_drift(entry)]


def test_an_account_has_each_kind_of_difference_at_most_so_often() -> None:
    kinds = [drift.kind for drift in all_that_can_be_wrong()]
    assert sorted(kinds) == [
        DriftKind.COMMITTED_SESSIONS,
        DriftKind.CREDENTIAL_MODES,
        DriftKind.CREDENTIAL_MODES,
        DriftKind.ENTITLEMENT,
        DriftKind.ROLLUP,
    ]


@pytest.mark.parametrize("drifts", [all_that_can_be_wrong(), kept_aside()], ids=["accounts", "events kept aside"])
def test_a_page_on_which_everything_is_wrong_is_within_bounds(drifts: Sequence[Drift]) -> None:
    found = Reconciliation((*drifts,) * PAGE_SIZE_MAX, PAGE_SIZE_MAX, LONG_AGO_US, "t" * 2_048)
    response = reconciliation_to_proto(found)
    assert len(response.drifts) == len(drifts) * PAGE_SIZE_MAX
    assert response.ByteSize() < 1_500_000
