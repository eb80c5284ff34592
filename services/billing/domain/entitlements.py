"""Entitlements: what a subscription becomes at quota."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.model import Account, AccountState, Subscription, Terms
from services.billing.domain.renewal import final_end_us, timeline

MESSAGE_BYTES_MAX: Final = 512
"""Of a block's message, by quota's contract."""


class BlockReason(IntEnum):
    """Why new sessions of an account are refused. The numbers are the contract's."""

    BUDGET_EXCEEDED = 1
    PAYMENT_OVERDUE = 2
    ACCOUNT_SUSPENDED = 3


@dataclass(frozen=True, slots=True)
class Block:
    """Refuses new sessions, until `until_us` where that is not 0."""

    reason: BlockReason
    message: str
    until_us: int


@dataclass(frozen=True, slots=True)
class EntitlementTerm:
    """What an account may use from `effective_us` on."""

    effective_us: int
    plan_id: str
    session_limit: int
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int
    max_output_tokens: int
    max_tool_rounds: int
    upgrade_plan_id: str


@dataclass(frozen=True, slots=True)
class Entitlement:
    """Everything that quota has to know of an account; quota rolls into later periods and terms by itself."""

    account_id: str
    revision: int
    subscription_id: str
    period_anchor_us: int
    terms: tuple[EntitlementTerm, ...]
    end_us: int
    block: Block | None


@dataclass(frozen=True, slots=True)
class EntitlementStatus:
    """How far an account's newest entitlement has come."""

    revision: int
    applied: bool
    """Quota has acknowledged the revision."""


def entitlement_of(
    subscription: Subscription, catalogue: Catalogue, revision: int, block: Block | None = None
) -> Entitlement:
    """The entitlement that `subscription` becomes, under the revision allotted to it.

    Scheduled terms are in it, so that quota comes to them by itself. Those that begin a new subscription are not:
    they come with that subscription's own entitlement.
    """
    dated = [(subscription.anchor_us, subscription.terms)]
    dated += [
        (entry.effective_us, entry.item.terms)
        for entry in timeline(subscription)
        if entry.item.terms is not None and not entry.starts_anew
    ]
    return Entitlement(
        subscription.account_id,
        revision,
        subscription.subscription_id,
        subscription.anchor_us,
        tuple(_term(effective_us, terms, catalogue) for effective_us, terms in dated),
        final_end_us(subscription),
        block,
    )


def block_of(account: Account, *, payment_overdue: bool) -> Block | None:
    """What refuses an account's new sessions beside its subscription; a suspension before an overdue payment."""
    if account.state is AccountState.SUSPENDED:
        message = f"The account is suspended: {account.suspend_reason}".encode()[:MESSAGE_BYTES_MAX]
        return Block(BlockReason.ACCOUNT_SUSPENDED, message.decode(errors="ignore"), account.suspend_until_us)
    if payment_overdue:
        return Block(
            BlockReason.PAYMENT_OVERDUE,
            "An invoice is unpaid past its grace. ListInvoices shows it; sessions start again once it is paid.",
            0,
        )
    return None


def _term(effective_us: int, terms: Terms, catalogue: Catalogue) -> EntitlementTerm:
    return EntitlementTerm(
        effective_us,
        terms.plan_id,
        terms.session_limit,
        terms.managed_providers,
        terms.max_concurrent_sessions,
        terms.max_output_tokens,
        terms.max_tool_rounds,
        catalogue.plan(terms.plan_id, terms.plan_version).upgrade_plan_id,
    )
