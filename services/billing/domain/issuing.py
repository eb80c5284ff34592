"""How invoices come about: once, from what is charged and from what a period's sessions were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from services.billing.domain.catalogue import Catalogue
from services.billing.domain.ids import Randomness, new_id
from services.billing.domain.invoices import (
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceLineKind,
    InvoiceState,
    PaymentTerms,
    SessionCounts,
    StatedUsage,
    printed_number,
)
from services.billing.domain.model import Account, Terms
from services.billing.domain.renewal import Charge, ChargeKind
from services.billing.domain.usage import DAY_US, day_start_us
from services.shared.periods import Period, time_from_us


class Draft(NamedTuple):
    """An invoice before it has a number."""

    kind: InvoiceKind
    subscription_id: str
    period: Period
    cause: str
    lines: tuple[InvoiceLine, ...]
    usage: StatedUsage | None = None


def draft_of_charge(charge: Charge, catalogue: Catalogue) -> Draft:
    """The invoice of a fee or of an upgrade."""
    is_fee = charge.kind is ChargeKind.PERIOD_FEE
    name = name_of(charge.terms, catalogue)
    span = span_of(charge.start_us, charge.period.end_us)
    line = InvoiceLine(
        1,
        InvoiceLineKind.FEE if is_fee else InvoiceLineKind.UPGRADE_DIFFERENCE,
        f"{name}, {span}" if is_fee else f"Upgrade to {name}, {span}",
        1,
        charge.amount_micro,
        charge.start_us,
        charge.period.end_us,
        charge.terms.plan_id,
        charge.terms.plan_version,
        charge.terms.contract_id,
        charge.change_id,
    )
    # A period has one fee, whatever began it.
    cause = "" if is_fee else charge.change_id
    return Draft(InvoiceKind(charge.kind), charge.subscription_id, charge.period, cause, (line,))


def draft_of_statement(
    subscription_id: str,
    terms: Terms,
    period: Period,
    counts: SessionCounts,
    catalogue: Catalogue,
    *,
    by_day: Mapping[int, int],
) -> Draft:
    """A period's closing statement: its sessions, which the fee includes.

    Args:
        subscription_id: the subscription.
        terms: those in force at the period's end.
        period: the period.
        counts: its counted sessions.
        catalogue: the plans.
        by_day: the counted sessions by the start of their day of UTC, in microseconds since 1970.
    """
    span = span_of(*period)
    stated = [
        (InvoiceLineKind.MANAGED_SESSIONS, f"Sessions on managed providers, {span}", counts.managed),
        (InvoiceLineKind.BYOK_SESSIONS, f"Sessions on your own provider keys, {span}", counts.byok),
    ]
    lines = [
        InvoiceLine(
            0,
            kind,
            f"{text}, included in {name_of(terms, catalogue)}",
            quantity,
            0,
            *period,
            terms.plan_id,
            terms.plan_version,
            terms.contract_id,
            "",
        )
        for kind, text, quantity in stated
        if quantity
    ]
    numbered = tuple(replace(line, line_number=number) for number, line in enumerate(lines, 1))
    days = range(day_start_us(period.start_us), period.end_us, DAY_US)
    usage = StatedUsage(terms.session_limit, tuple(by_day.get(day_us, 0) for day_us in days))
    return Draft(InvoiceKind.USAGE_STATEMENT, subscription_id, period, "", numbered, usage)


def issue(
    draft: Draft, account: Account, sequence_number: int, payment: PaymentTerms, *, now_us: int, randomness: Randomness
) -> Invoice:
    """Makes an invoice under the account's next number. One with nothing to pay is PAID from the start."""
    total_micro = sum(line.amount_micro for line in draft.lines)
    return Invoice(
        new_id("inv_", randomness),
        account.account_id,
        printed_number("INV", account.account_id, sequence_number),
        sequence_number,
        draft.kind,
        InvoiceState.OPEN if total_micro else InvoiceState.PAID,
        draft.subscription_id,
        *draft.period,
        draft.cause,
        account.display_name,
        account.email,
        draft.lines,
        now_us,
        now_us + payment.term_us if total_micro else 0,
        draft.usage,
    )


def preview(draft: Draft, account: Account) -> Invoice:
    """The invoice as it would be: DRAFT, without id, number and times."""
    return Invoice(
        "",
        account.account_id,
        "",
        0,
        draft.kind,
        InvoiceState.DRAFT,
        draft.subscription_id,
        *draft.period,
        draft.cause,
        account.display_name,
        account.email,
        draft.lines,
        0,
        0,
    )


def name_of(terms: Terms, catalogue: Catalogue) -> str:
    """What the terms are called on an invoice."""
    name = catalogue.plan(terms.plan_id, terms.plan_version).display_name
    return f"{name} (contract)" if terms.contract_id else name


def span_of(start_us: int, end_us: int) -> str:
    """A half-open interval by its first and last day, such as `1 to 31 January 2026`."""
    first, last = time_from_us(start_us), time_from_us(end_us - 1)
    begin = str(first.day)
    if (first.year, first.month) != (last.year, last.month):
        begin += f" {first:%B}"
    if first.year != last.year:
        begin += f" {first.year}"
    return f"{begin} to {last.day} {last:%B} {last.year}"
