"""Invoices: reading, previewing, printing, paying and correcting. Issued are they by `open_account`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from services.billing.documents import Printer
from services.billing.domain.audit import NOTHING, Action, Actor
from services.billing.domain.entitlements import EntitlementStatus
from services.billing.domain.facts import facts_of_credit_note, facts_of_invoice
from services.billing.domain.invoices import (
    CreditNote,
    CreditNoteLine,
    Invoice,
    credit,
    draft_of_charge,
    pay,
    preview,
    void,
)
from services.billing.domain.payments import PaymentErrandKind
from services.billing.domain.renewal import Charge, ChargeKind, final_end_us, next_step_us, terms_at
from services.billing.invoice_store import InvoiceFilter
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.open_account import OpenAccount, by_system
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.service.requests import Request, answer_once
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.periods import period_at

_SERVICE: Final = "InvoiceService"


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice with its credit notes."""

    invoice: Invoice
    credit_notes: tuple[CreditNote, ...]


@dataclass(frozen=True, slots=True)
class InvoicePreview:
    """The next period's invoice as it would be, and when."""

    invoice: Invoice
    issue_us: int


@dataclass(frozen=True, slots=True)
class Document:
    """A printed document."""

    file_name: str
    content: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Correction:
    """Which invoice is to be paid, voided or credited, and by whom."""

    account_id: str
    invoice_id: str
    actor: Actor
    request_id: str


@dataclass(frozen=True, slots=True)
class CorrectedInvoice:
    """An invoice after its payment or correction, and how far the entitlement has come."""

    view: InvoiceView
    entitlement: EntitlementStatus


class InvoiceService:
    """Use cases of invoices."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher, printer: Printer) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._printer = printer

    async def list(self, account_id: str, wanted: InvoiceFilter, request: PageRequest) -> Page[InvoiceView]:
        """Lists an account's invoices, newest first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND; INVALID_REQUEST: another call's page token.
        """
        states = ",".join(str(int(state)) for state in sorted(wanted.states))
        kinds = ",".join(str(int(kind)) for kind in sorted(wanted.kinds))
        scope = ("ListInvoices", account_id, states, kinds, str(wanted.start_us), str(wanted.end_us))

        async def read(transaction: Transaction) -> Page[InvoiceView]:
            await transaction.accounts.get(account_id)
            page = await read_page(
                self._context.page_tokens,
                scope,
                request,
                lambda after, limit: transaction.invoices.list(account_id, wanted, after, limit),
                lambda invoice: (invoice.sequence_number, invoice.invoice_id),
            )
            return Page(await _with_credit_notes(transaction, page.items), page.next_token)

        return await self._context.store.transact(read)

    async def get(self, account_id: str, invoice_id: str) -> InvoiceView:
        """Reads an invoice with its credit notes.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, INVOICE_NOT_FOUND.
        """

        async def read(transaction: Transaction) -> InvoiceView:
            await transaction.accounts.get(account_id)
            return await _view(transaction, account_id, invoice_id)

        return await self._context.store.transact(read)

    async def preview(self, account_id: str, plan_id: str, plan_version: int) -> InvoicePreview:
        """Shows the next period's fee as it would be invoiced.

        Args:
            account_id: the account.
            plan_id: the plan to assume; empty for what the subscription will have then.
            plan_version: its version; 0 for the newest on sale.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, PLAN_NOT_FOUND, CONTRACT_REQUIRED; SUBSCRIPTION_ENDED where nothing
                will be invoiced any more.
        """

        async def read(transaction: Transaction) -> InvoicePreview:
            account = await transaction.accounts.get(account_id)
            subscription = await transaction.subscriptions.get(account.subscription_id)
            now_us = self._context.clock.now_us()
            if next_step_us(subscription) <= now_us:
                opened = await OpenAccount.open(self._context, transaction, account_id)
                await opened.close(by_system("renewal"))
                account, subscription = opened.account, opened.subscription
            issue_us, end_us = subscription.billed_us, final_end_us(subscription)
            if 0 < end_us <= issue_us:
                raise FlowStackError(
                    Reason.SUBSCRIPTION_ENDED, "The subscription ends before another period, so no fee will follow."
                )
            terms = terms_at(subscription, issue_us)
            if plan_id:
                catalogue = self._context.catalogue
                plan = catalogue.plan(plan_id, plan_version) if plan_version else catalogue.newest(plan_id, now_us)
                terms = plan.terms()
            charge = Charge(
                ChargeKind.PERIOD_FEE,
                subscription.subscription_id,
                period_at(subscription.anchor_us, issue_us),
                issue_us,
                terms,
                terms.price_micro,
                "",
            )
            return InvoicePreview(preview(draft_of_charge(charge, self._context.catalogue), account), issue_us)

        return await self._context.store.transact(read)

    async def download(self, account_id: str, invoice_id: str, credit_note_id: str) -> Document:
        """Prints an invoice, or one of its credit notes; the same bytes while the invoice's state is the same.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, INVOICE_NOT_FOUND, CREDIT_NOTE_NOT_FOUND.
        """
        view = await self.get(account_id, invoice_id)
        note = None
        if credit_note_id:
            found = [note for note in view.credit_notes if note.credit_note_id == credit_note_id]
            if not found:
                raise FlowStackError(
                    Reason.CREDIT_NOTE_NOT_FOUND,
                    "The invoice has no such credit note. GetInvoice shows those that it has.",
                )
            note = found[0]
        # Setting type is work for the processor alone: other calls go on meanwhile.
        content = await asyncio.to_thread(self._printer.print, view.invoice, view.credit_notes, note)
        number = note.number if note else view.invoice.number
        return Document(f"{number}.pdf", content, hashlib.sha256(content).hexdigest())

    async def mark_paid(self, correction: Correction, reference: str, pay_us: int) -> CorrectedInvoice:
        """Records that an invoice was paid in full.

        Args:
            correction: which one, and by whom.
            reference: the payment's name in the operator's books.
            pay_us: when; 0 for now.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, DUPLICATE_REQUEST, INVOICE_NOT_FOUND, INVOICE_NOT_OPEN;
                INVALID_REQUEST for a time in the future.
        """

        def decide(invoice: Invoice, now_us: int) -> Invoice:
            if pay_us > now_us:
                raise invalid_request("pay_time", "must not be in the future")
            return pay(invoice, reference, pay_us or now_us)

        content = (correction.invoice_id, reference, pay_us)
        return await self._correct(correction, "MarkInvoicePaid", content, decide, errand=PaymentErrandKind.PAID)

    async def void(self, correction: Correction, reason: str) -> CorrectedInvoice:
        """Voids an invoice.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, DUPLICATE_REQUEST, INVOICE_NOT_FOUND, INVOICE_NOT_OPEN.
        """
        return await self._correct(
            correction,
            "VoidInvoice",
            (correction.invoice_id, reason),
            lambda invoice, now_us: void(invoice, reason, now_us),
            errand=PaymentErrandKind.VOID,
            reason=reason,
        )

    async def _correct(
        self,
        correction: Correction,
        method: str,
        content: tuple[object, ...],
        decide: Callable[[Invoice, int], Invoice],
        *,
        errand: PaymentErrandKind,
        reason: str = "",
    ) -> CorrectedInvoice:
        account_id = correction.account_id
        request = Request(method, account_id, correction.request_id, content)
        action = Action(correction.actor, f"{_SERVICE}.{method}", correction.request_id, reason)

        async def work(transaction: Transaction) -> InvoiceView:
            opened = await OpenAccount.open(self._context, transaction, account_id)

            async def correct() -> InvoiceView:
                before = await transaction.invoices.get(account_id, correction.invoice_id)
                after = decide(before, opened.now_us)
                if after != before:
                    await transaction.invoices.update(after)
                    await opened.send(after, errand)
                    facts = facts_of_invoice(before), facts_of_invoice(after)
                    await opened.audit(action, "invoice", after.invoice_id, *facts)
                return await _view(transaction, account_id, correction.invoice_id)

            view = await answer_once(transaction, request, opened.now_us, InvoiceView, correct)
            await opened.close(action)
            return view

        view = await self._context.store.transact(work)
        return CorrectedInvoice(view, await self._dispatcher.apply(account_id))

    async def credit(
        self, correction: Correction, lines: Sequence[CreditNoteLine], reason: str
    ) -> tuple[CreditNote, CorrectedInvoice]:
        """Credits part or all of an invoice, line by line.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, DUPLICATE_REQUEST, INVOICE_NOT_FOUND, INVOICE_NOT_OPEN;
                INVALID_REQUEST for an unknown line or for more than what is left of one.
        """
        account_id = correction.account_id
        content = (
            correction.invoice_id,
            reason,
            [(line.line_number, line.amount_micro, line.description) for line in lines],
        )
        request = Request("CreateCreditNote", account_id, correction.request_id, content)
        action = Action(correction.actor, f"{_SERVICE}.CreateCreditNote", correction.request_id, reason)

        async def work(transaction: Transaction) -> InvoiceView:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            view = await answer_once(
                transaction,
                request,
                opened.now_us,
                InvoiceView,
                lambda: self._credit(opened, correction.invoice_id, lines, action),
            )
            await opened.close(action)
            return view

        view = await self._context.store.transact(work)
        return view.credit_notes[-1], CorrectedInvoice(view, await self._dispatcher.apply(account_id))

    async def _credit(
        self, opened: OpenAccount, invoice_id: str, lines: Sequence[CreditNoteLine], action: Action
    ) -> InvoiceView:
        invoices, account_id = opened.transaction.invoices, opened.account.account_id
        view = await _view(opened.transaction, account_id, invoice_id)
        number = await invoices.next_credit_number(account_id)
        note, credited = credit(
            view.invoice,
            view.credit_notes,
            lines,
            reason=action.reason,
            sequence_number=number,
            now_us=opened.now_us,
            randomness=self._context.randomness,
        )
        await invoices.insert_credit_note(note)
        await invoices.update(credited)
        await opened.send(credited, PaymentErrandKind.CREDIT, note.credit_note_id)
        await opened.audit(action, "credit_note", note.credit_note_id, NOTHING, facts_of_credit_note(note))
        facts = facts_of_invoice(view.invoice), facts_of_invoice(credited)
        await opened.audit(action, "invoice", invoice_id, *facts)
        return InvoiceView(credited, (*view.credit_notes, note))


async def _view(transaction: Transaction, account_id: str, invoice_id: str) -> InvoiceView:
    invoice = await transaction.invoices.get(account_id, invoice_id)
    return InvoiceView(invoice, tuple(await transaction.invoices.credit_notes([invoice_id])))


async def _with_credit_notes(transaction: Transaction, invoices: Sequence[Invoice]) -> tuple[InvoiceView, ...]:
    notes = await transaction.invoices.credit_notes([invoice.invoice_id for invoice in invoices])
    return tuple(
        InvoiceView(invoice, tuple(note for note in notes if note.invoice_id == invoice.invoice_id))
        for invoice in invoices
    )
