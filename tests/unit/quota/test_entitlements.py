"""Entitlements: which may be stored, and the quota that follows from them."""

from __future__ import annotations

import pytest

from services.quota.domain.entitlements import admit_entitlement, quota_of
from services.quota.domain.model import Account, Block, BlockReason, Counters, Entitlement, partition_of
from services.shared.errors import FlowStackError, Reason
from tests.support.clock import DAY_US, us
from tests.support.quota import ACCOUNT, ANCHOR_US, NEXT_PERIOD_US, entitlement, term

NOW_US = us(2026, 3, 10, 12)


def account_of(given: Entitlement, *, reserved: int = 0, managed: int = 0, byok: int = 0) -> Account:
    account = Account(ACCOUNT, partition_of(ACCOUNT), given)
    account.counters[ANCHOR_US] = Counters(reserved, managed, byok)
    account.running = reserved
    return account


def refusal(stored: Entitlement | None, offered: Entitlement) -> FlowStackError:
    with pytest.raises(FlowStackError) as caught:
        admit_entitlement(stored, offered)
    return caught.value


def test_the_first_entitlement_of_any_revision_is_stored() -> None:
    assert admit_entitlement(None, entitlement(revision=5))


def test_a_higher_revision_is_stored() -> None:
    assert admit_entitlement(entitlement(revision=5), entitlement(revision=9, limit=3))


def test_the_stored_revision_with_equal_content_is_a_repeat() -> None:
    assert not admit_entitlement(entitlement(revision=5), entitlement(revision=5))


@pytest.mark.parametrize("offered", [entitlement(revision=4), entitlement(revision=5, limit=11)])
def test_stale_revisions(offered: Entitlement) -> None:
    error = refusal(entitlement(revision=5), offered)
    assert error.reason is Reason.STALE_REVISION
    assert error.metadata == {"stored_revision": "5"}


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": (term(limit=11),)},
        {"terms": (term(managed_providers=()),)},
        {"terms": (term(), term(NEXT_PERIOD_US))},
        {"end_us": NEXT_PERIOD_US},
        {"block": Block(BlockReason.PAYMENT_OVERDUE, "", 0)},
        {"subscription_id": "sub_2"},
        {"period_anchor_us": ANCHOR_US + 1, "subscription_id": "sub_2"},
    ],
    ids="+".join,
)
def test_any_other_content_of_the_stored_revision_is_stale(changes: dict[str, object]) -> None:
    error = refusal(entitlement(), entitlement()._replace(**changes))
    assert error.reason is Reason.STALE_REVISION


@pytest.mark.parametrize("second_us", [ANCHOR_US, ANCHOR_US - 1])
def test_terms_have_to_rise(second_us: int) -> None:
    error = refusal(None, entitlement(ACCOUNT, term(ANCHOR_US), term(second_us)))
    assert error.reason is Reason.INVALID_REQUEST
    assert [v.field for v in error.violations] == ["entitlement.terms"]


def test_an_anchor_is_fixed_for_its_subscription() -> None:
    stored = entitlement(revision=1)
    error = refusal(stored, entitlement(revision=2, anchor_us=ANCHOR_US + DAY_US))
    assert error.reason is Reason.INVALID_REQUEST
    assert [v.field for v in error.violations] == ["entitlement.period_anchor_time"]
    assert admit_entitlement(stored, entitlement(revision=2, anchor_us=ANCHOR_US + DAY_US, subscription_id="sub_2"))
    assert admit_entitlement(stored, entitlement(revision=2, subscription_id="sub_2"))


def test_quota() -> None:
    quota = quota_of(account_of(entitlement(revision=3), reserved=2, managed=3, byok=1), NOW_US)
    assert quota is not None
    assert quota._asdict() == {
        "account_id": ACCOUNT,
        "term": entitlement().terms[0],
        "period_start_us": ANCHOR_US,
        "period_end_us": NEXT_PERIOD_US,
        "managed_sessions": 3,
        "byok_sessions": 1,
        "sessions_reserved": 2,
        "refusal_reason": "",
        "entitlement_revision": 3,
    }


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (account_of(entitlement()), ""),
        (account_of(entitlement(), byok=10), "SESSION_QUOTA_EXCEEDED"),
        (account_of(entitlement(), reserved=10), "SESSION_QUOTA_EXCEEDED"),
        (account_of(entitlement(concurrent=2), reserved=2), "CONCURRENCY_LIMIT_EXCEEDED"),
        (account_of(entitlement(concurrent=2), reserved=2, byok=8), "SESSION_QUOTA_EXCEEDED"),
        (account_of(entitlement(block=Block(BlockReason.BUDGET_EXCEEDED, "", 0)), byok=10), "BUDGET_EXCEEDED"),
        (account_of(entitlement(block=Block(BlockReason.PAYMENT_OVERDUE, "", NOW_US))), ""),
        (account_of(entitlement(block=Block(BlockReason.PAYMENT_OVERDUE, "", NOW_US + 1))), "PAYMENT_OVERDUE"),
        (account_of(entitlement(block=Block(BlockReason.ACCOUNT_SUSPENDED, "", 0))), "ACCOUNT_SUSPENDED"),
        (
            account_of(entitlement(end_us=NOW_US, block=Block(BlockReason.ACCOUNT_SUSPENDED, "", 0))),
            "SUBSCRIPTION_ENDED",
        ),
    ],
)
def test_the_refusal_shown_is_the_one_that_a_reserve_would_get(account: Account, reason: str) -> None:
    quota = quota_of(account, NOW_US)
    assert quota is not None
    assert quota.refusal_reason == reason


def test_no_quota_before_anything_is_in_force() -> None:
    assert quota_of(Account(ACCOUNT, 0), NOW_US) is None
    assert quota_of(account_of(entitlement(ACCOUNT, term(NOW_US + 1))), NOW_US) is None
    assert quota_of(account_of(entitlement(anchor_us=NOW_US + 1)), NOW_US) is None


def test_after_the_end_the_last_period_is_shown() -> None:
    end_us = us(2026, 3, 20)
    account = account_of(entitlement(end_us=end_us), byok=4)
    for moment_us in (end_us, end_us + 200 * DAY_US):
        quota = quota_of(account, moment_us)
        assert quota is not None
        assert (quota.period_start_us, quota.period_end_us) == (ANCHOR_US, NEXT_PERIOD_US)
        assert quota.byok_sessions == 4
        assert quota.refusal_reason == "SUBSCRIPTION_ENDED"


def test_an_end_at_a_periods_end_shows_that_period_not_an_empty_new_one() -> None:
    quota = quota_of(account_of(entitlement(end_us=NEXT_PERIOD_US), byok=4), NEXT_PERIOD_US)
    assert quota is not None
    assert (quota.period_start_us, quota.byok_sessions) == (ANCHOR_US, 4)


def test_what_was_worked_out_once_holds_no_longer_than_it_is_true() -> None:
    block = Block(BlockReason.PAYMENT_OVERDUE, "", us(2026, 3, 12))
    given = entitlement(
        ACCOUNT,
        term(limit=5),
        term(us(2026, 3, 20), limit=8, plan_id="professional"),
        end_us=us(2026, 4, 15),
        block=block,
    )
    account = account_of(given, byok=5)
    seen = []
    for moment_us in (
        us(2026, 3, 11),
        us(2026, 3, 12),
        us(2026, 3, 20),
        us(2026, 4, 1),
        us(2026, 4, 15),
        us(2026, 3, 11),
    ):
        quota = quota_of(account, moment_us)
        assert quota is not None
        seen.append((quota.term.session_limit, quota.byok_sessions, quota.refusal_reason))
    assert seen == [
        (5, 5, "PAYMENT_OVERDUE"),
        (5, 5, "SESSION_QUOTA_EXCEEDED"),
        (8, 5, ""),
        (8, 0, ""),
        (8, 0, "SUBSCRIPTION_ENDED"),
        (5, 5, "PAYMENT_OVERDUE"),
    ]


def test_the_day_of_the_anchor_is_clamped_in_a_short_month() -> None:
    anchor_us = us(2026, 1, 31)
    quota = quota_of(Account(ACCOUNT, 0, entitlement(anchor_us=anchor_us)), us(2026, 2, 28))
    assert quota is not None
    assert (quota.period_start_us, quota.period_end_us) == (us(2026, 2, 28), us(2026, 3, 31))
