"""Invoices after their issue: paying, voiding and crediting, all by the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.billing.domain.audit import NOTHING, Action, Actor
from services.billing.domain.corrections import credit, pay, void
from services.billing.domain.entitlements import EntitlementStatus
from services.billing.domain.facts import facts_of_credit_note, facts_of_invoice
from services.billing.domain.invoices import CreditNote, CreditNoteLine, Invoice
from services.billing.domain.payments import PaymentErrandKind
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.invoices import InvoiceView, view_of
from services.billing.service.open_account import OpenAccount
from services.billing.service.requests import Request, answer_once
from services.billing.store import Transaction
from services.shared.errors import invalid_request


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


class CorrectionService:
    """Use cases of correcting invoices."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

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
        action = Action(correction.actor, f"InvoiceService.{method}", correction.request_id, reason)

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
                return await view_of(transaction, account_id, correction.invoice_id)

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
        action = Action(correction.actor, "InvoiceService.CreateCreditNote", correction.request_id, reason)

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
        view = await view_of(opened.transaction, account_id, invoice_id)
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
