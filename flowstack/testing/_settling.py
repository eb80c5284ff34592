"""How accounts change: what a call has decided, and what time does by itself, however far the clock has jumped.

settle   renewals, payments, the end of suspensions, closing statements, purges: each at its own moment
apply    what became of a subscription: its history, its invoices, the audit log
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from flowstack_protos.billing.v1 import audit_service_pb2 as audit
from flowstack_protos.billing.v1 import invoice_pb2
from flowstack_protos.billing.v1 import subscription_service_pb2 as pb

from flowstack.testing._audit import NOTHING, Action, by_system
from flowstack.testing._documents import Documents
from flowstack.testing._facts import facts_of_account, facts_of_invoice, facts_of_subscription
from flowstack.testing._invoices import draft_of_charge, draft_of_statement, forgotten, issued, oldest_due_us, paid
from flowstack.testing._records import Account, Stating
from flowstack.testing._renewal import Outcome, advance
from flowstack.testing._subscriptions import FOREVER_US, Change, Subscription, next_step_us, placements
from flowstack.testing._terms import Terms
from flowstack.testing._time import Period, period_at

_PAYMENT = Action("payment", audit.ACTOR_KIND_PAYMENT_PROVIDER)
PAYMENT_REFERENCE = "fake-payment"
"""Of invoices that accounts pay by themselves."""


def settle(account: Account, now_us: int) -> None:
    """Brings an account up to date."""
    while True:
        moment_us, step = min(_steps(account), key=lambda one: one[0])
        if moment_us > now_us:
            break
        step(account, moment_us)
    note_payments(account, by_system("end of grace"), now_us)


def _steps(account: Account) -> list[tuple[int, Callable[[Account, int], None]]]:
    """What comes next of each kind, with its moment; of several at once, the first."""
    due_us = oldest_due_us(account.invoices) if account.pays else 0
    purge_us = account.purge_us if account.display_name else 0
    return [
        (next_step_us(account.subscription), _renew),
        (account.suspend_until_us or FOREVER_US, _end_suspension),
        (due_us or FOREVER_US, _pay),
        (purge_us or FOREVER_US, _purge),
        *((_statement_us(account, one), partial(_state_usage, stating=one)) for one in account.stating),
    ]


def _renew(account: Account, moment_us: int) -> None:
    apply(account, advance(account.subscription, moment_us), by_system("renewal"), moment_us)


def _end_suspension(account: Account, moment_us: int) -> None:
    with changing(account, by_system("end of suspension"), moment_us):
        lift(account)


def _pay(account: Account, moment_us: int) -> None:
    for invoice in account.invoices:
        if invoice.due_time.ToMicroseconds() == moment_us and invoice.state == invoice_pb2.INVOICE_STATE_OPEN:
            put_invoice(account, paid(invoice, PAYMENT_REFERENCE, moment_us), _PAYMENT, moment_us)


def _purge(account: Account, moment_us: int) -> None:
    """Nobody's name and address stay, on invoices neither, nor documents and webhooks."""
    account.display_name = account.email = ""
    account.documents, account.webhooks = Documents(), []
    account.invoices = [forgotten(invoice) for invoice in account.invoices]
    account.version, account.update_us = account.version + 1, moment_us
    account.log.note(
        by_system("purge"), account.account_id, "account", account.account_id, NOTHING, {"purged": True}, moment_us
    )


def _statement_us(account: Account, stating: Stating) -> int:
    """When a subscription's next closing statement is made; FOREVER_US for not yet, and for never."""
    subscription = stating.subscription
    period = period_at(subscription.anchor_us, stating.stated_us)
    is_over = subscription.end_us and stating.stated_us >= subscription.end_us
    return FOREVER_US if is_over or account.book.counts(period).reserved else period.end_us


def _state_usage(account: Account, moment_us: int, stating: Stating) -> None:
    """A period without a counted session gets no statement: there is nothing to state."""
    subscription = stating.subscription
    period = period_at(subscription.anchor_us, stating.stated_us)
    stating.stated_us = period.end_us
    counts = account.book.counts(period)
    if counts.managed or counts.byok:
        terms = _terms_of(account, subscription, period)
        draft = draft_of_statement(subscription.subscription_id, terms, period, counts.managed, counts.byok)
        _issue(account, draft, by_system("closing statement"), moment_us)


def _terms_of(account: Account, subscription: Subscription, period: Period) -> Terms:
    """The terms that held at a period's end."""
    for change in reversed(account.changes):
        is_applied = change.state == pb.CHANGE_STATE_APPLIED and change.effective_us < period.end_us
        if is_applied and change.after is not None and change.subscription_id == subscription.subscription_id:
            return change.after
    return subscription.terms


@contextmanager
def changing(account: Account, action: Action, now_us: int) -> Iterator[None]:
    """Counts and audits what its block changes of an account."""
    before = facts_of_account(account)
    yield
    after = facts_of_account(account)
    if before != after:
        account.version, account.update_us = account.version + 1, now_us
        account.log.note(action, account.account_id, "account", account.account_id, before, after, now_us)


def lift(account: Account) -> None:
    """Ends a suspension."""
    account.suspend_reason, account.suspend_us, account.suspend_until_us = "", 0, 0


def apply(
    account: Account, outcome: Outcome, action: Action, now_us: int, change: Change | None = None
) -> invoice_pb2.Invoice | None:
    """Writes what became of the account's subscription.

    Returns:
        The invoice that `change` caused; None for none.
    """
    before, after = account.subscription, outcome.subscription
    account.changes += [*outcome.unasked, *([] if change is None else [change])]
    by_id = {one.change_id: one for one in account.changes}
    for change_id, kind, terms, effective_us in (*outcome.begun, *placements(after)):
        placed = by_id[change_id]
        placed.kind, placed.before, placed.effective_us = kind, terms, effective_us
    for change_id in outcome.applied:
        by_id[change_id].state = pb.CHANGE_STATE_APPLIED
    for change_id in outcome.dropped:
        by_id[change_id].state, by_id[change_id].drop_us = pb.CHANGE_STATE_DROPPED, now_us
    for change_id, subscription_id in outcome.started.items():
        by_id[change_id].subscription_id = subscription_id
    for subscription in (*outcome.retired, after):
        was = subscription.subscription_id == before.subscription_id
        facts = facts_of_subscription(before) if was else NOTHING
        account.log.note(
            action,
            account.account_id,
            "subscription",
            subscription.subscription_id,
            facts,
            facts_of_subscription(subscription),
            now_us,
        )
        _keep_stating(account, subscription)
    with changing(account, action, now_us):
        account.subscription = after
    caused = None
    for charge in outcome.charges:
        if charge.amount_micro:
            invoice = _issue(account, draft_of_charge(charge), action, now_us)
            if charge.change_id:
                by_id[charge.change_id].invoice_id = invoice.invoice_id
                by_id[charge.change_id].amount_micro = charge.amount_micro
            caused = invoice if change is not None and charge.change_id == change.change_id else caused
    return caused


def _keep_stating(account: Account, subscription: Subscription) -> None:
    for stating in account.stating:
        if stating.subscription.subscription_id == subscription.subscription_id:
            stating.subscription = subscription
            return
    account.stating.append(Stating(subscription, subscription.anchor_us))


def _issue(account: Account, draft: invoice_pb2.Invoice, action: Action, now_us: int) -> invoice_pb2.Invoice:
    invoice = issued(addressed(draft, account), len(account.invoices) + 1, now_us)
    account.invoices.append(invoice)
    facts = facts_of_invoice(invoice)
    account.log.note(action, account.account_id, "invoice", invoice.invoice_id, NOTHING, facts, now_us)
    return invoice


def addressed(draft: invoice_pb2.Invoice, account: Account) -> invoice_pb2.Invoice:
    """The draft with whom it is for."""
    draft.account_id, draft.customer_name = account.account_id, account.display_name
    draft.customer_email = account.email
    return draft


def put_invoice(account: Account, invoice: invoice_pb2.Invoice, action: Action, now_us: int) -> None:
    """Puts an invoice that was paid or corrected in the place of what it was."""
    place = invoice.sequence_number - 1
    before, account.invoices[place] = account.invoices[place], invoice
    facts = facts_of_invoice(before), facts_of_invoice(invoice)
    account.log.note(action, account.account_id, "invoice", invoice.invoice_id, *facts, now_us)


def note_payments(account: Account, action: Action, now_us: int) -> None:
    """Audits that the account's payments have become overdue, or are no longer."""
    overdue = account.is_overdue(now_us)
    facts = {"payment_overdue": account.was_overdue}, {"payment_overdue": overdue}
    account.log.note(action, account.account_id, "account", account.account_id, *facts, now_us)
    account.was_overdue = overdue
