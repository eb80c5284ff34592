"""Entitlements: which one may be stored, what is in force at a moment, and the quota that follows."""

from __future__ import annotations

import itertools
from typing import Final

from services.quota.domain.model import Account, BlockReason, Counters, Entitlement, InForce, Quota
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.periods import period_at

FOREVER_US: Final = 2**62

BLOCKS: Final = {
    BlockReason.BUDGET_EXCEEDED: (
        Reason.BUDGET_EXCEEDED,
        "The account's budget for this period is used up. Raise the budget or wait for the next period.",
    ),
    BlockReason.PAYMENT_OVERDUE: (
        Reason.PAYMENT_OVERDUE,
        "An invoice of the account is overdue. Pay it to start new sessions.",
    ),
    BlockReason.ACCOUNT_SUSPENDED: (
        Reason.ACCOUNT_SUSPENDED,
        "The account is suspended. Ask the operator to lift the suspension.",
    ),
}
"""The error of each block, and the sentence where the block brings none."""


def admit_entitlement(stored: Entitlement | None, offered: Entitlement) -> bool:
    """Whether `offered` is to be stored: False for a repeat of the stored one.

    Raises:
        FlowStackError: INVALID_REQUEST (terms out of order, a moved anchor), STALE_REVISION.
    """
    effective = [term.effective_us for term in offered.terms]
    if any(later <= earlier for earlier, later in itertools.pairwise(effective)):
        raise invalid_request("entitlement.terms", "must be in strictly rising order of effective_time")
    if stored is None:
        return True
    if offered.revision < stored.revision or (offered.revision == stored.revision and offered != stored):
        raise FlowStackError(
            Reason.STALE_REVISION,
            f"Revision {offered.revision} is not newer than the stored one, {stored.revision}. "
            "Read the entitlement and allot a higher revision.",
            metadata={"stored_revision": str(stored.revision)},
        )
    if offered.revision == stored.revision:
        return False
    moved = offered.period_anchor_us != stored.period_anchor_us
    if moved and offered.subscription_id == stored.subscription_id:
        raise invalid_request("entitlement.period_anchor_time", "must stay what it was for this subscription_id")
    return True


def in_force(account: Account, now_us: int) -> InForce | None:
    """What the account's entitlement means at `now_us`; None before its anchor or its first term, or without one.

    After its end it is what was in force last, with `has_ended` set. The answer is kept with the account for as long
    as it holds.
    """
    known = account.in_force
    if known is not None and known.from_us <= now_us < known.until_us:
        return known
    account.in_force = None if account.entitlement is None else _in_force(account.entitlement, now_us)
    return account.in_force


def _in_force(entitlement: Entitlement, now_us: int) -> InForce | None:
    has_ended = bool(entitlement.end_us) and now_us >= entitlement.end_us
    moment_us = entitlement.end_us - 1 if has_ended else now_us
    begun = [term for term in entitlement.terms if term.effective_us <= moment_us]
    if not begun or moment_us < entitlement.period_anchor_us:
        return None
    period = period_at(entitlement.period_anchor_us, moment_us)
    if has_ended:
        return InForce(begun[-1], period.start_us, period.end_us, True, entitlement.end_us, FOREVER_US)
    next_term_us = entitlement.terms[len(begun)].effective_us if len(begun) < len(entitlement.terms) else FOREVER_US
    return InForce(
        begun[-1],
        period.start_us,
        period.end_us,
        False,
        max(period.start_us, begun[-1].effective_us),
        min(period.end_us, next_term_us, entitlement.end_us or FOREVER_US),
    )


def block_error(entitlement: Entitlement, now_us: int) -> FlowStackError | None:
    """The error of the block that refuses new sessions now; None where there is none."""
    block = entitlement.block
    if block is None or (block.until_us and now_us >= block.until_us):
        return None
    reason, sentence = BLOCKS[block.reason]
    return FlowStackError(reason, block.message or sentence)


def quota_of(account: Account, now_us: int) -> Quota | None:
    """The account's quota at `now_us`; None where no entitlement is in force."""
    entitlement = account.entitlement
    force = in_force(account, now_us)
    if entitlement is None or force is None:
        return None
    counters = account.counters.get(force.period_start_us) or Counters()
    return Quota(
        account.account_id,
        force.term,
        force.period_start_us,
        force.period_end_us,
        counters.managed,
        counters.byok,
        counters.reserved,
        _refusal_reason(account, entitlement, force, counters, now_us),
        entitlement.revision,
    )


def _refusal_reason(account: Account, entitlement: Entitlement, force: InForce, counters: Counters, now_us: int) -> str:
    """Why a reservation that brings its own keys would be refused; empty where it would be granted."""
    if force.has_ended:
        return Reason.SUBSCRIPTION_ENDED.value
    blocked = block_error(entitlement, now_us) if entitlement.block else None
    if blocked is not None:
        return blocked.reason.value
    if counters.managed + counters.byok + counters.reserved >= force.term.session_limit:
        return Reason.SESSION_QUOTA_EXCEEDED.value
    if account.running >= force.term.max_concurrent_sessions:
        return Reason.CONCURRENCY_LIMIT_EXCEEDED.value
    return ""
