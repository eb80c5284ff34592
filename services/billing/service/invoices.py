"""Invoices: reading, previewing and printing. Issued are they by `open_account`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from services.billing.documents import Printer
from services.billing.domain.invoices import CreditNote, Invoice
from services.billing.domain.issuing import draft_of_charge, preview
from services.billing.domain.renewal import next_fee, next_step_us
from services.billing.invoice_store import InvoiceFilter
from services.billing.service.context import Context
from services.billing.service.open_account import OpenAccount, by_system
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason


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


class InvoiceService:
    """Use cases of reading invoices."""

    def __init__(self, context: Context, printer: Printer) -> None:
        self._context = context
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
            return await view_of(transaction, account_id, invoice_id)

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
            fee = next_fee(subscription, self._context.randomness)
            if fee is None:
                raise FlowStackError(
                    Reason.SUBSCRIPTION_ENDED, "The subscription ends before another period, so no fee will follow."
                )
            if plan_id:
                catalogue = self._context.catalogue
                plan = catalogue.plan(plan_id, plan_version) if plan_version else catalogue.newest(plan_id, now_us)
                terms = plan.terms()
                fee = fee._replace(terms=terms, amount_micro=terms.price_micro, change_id="")
            if fee.subscription_id != subscription.subscription_id:
                # One that is to come has no id yet.
                fee = fee._replace(subscription_id="")
            return InvoicePreview(preview(draft_of_charge(fee, self._context.catalogue), account), fee.start_us)

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


async def view_of(transaction: Transaction, account_id: str, invoice_id: str) -> InvoiceView:
    """An invoice with its credit notes."""
    invoice = await transaction.invoices.get(account_id, invoice_id)
    return InvoiceView(invoice, tuple(await transaction.invoices.credit_notes([invoice_id])))


async def _with_credit_notes(transaction: Transaction, invoices: Sequence[Invoice]) -> tuple[InvoiceView, ...]:
    notes = await transaction.invoices.credit_notes([invoice.invoice_id for invoice in invoices])
    return tuple(
        InvoiceView(invoice, tuple(note for note in notes if note.invoice_id == invoice.invoice_id))
        for invoice in invoices
    )
