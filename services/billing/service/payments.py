"""Brings invoices from the outbox to the payment provider, in their order, again and again where it is down."""

from __future__ import annotations

import asyncio
from typing import Final

from services.billing.domain.invoices import Invoice
from services.billing.domain.model import Account
from services.billing.domain.payments import PaymentErrandKind
from services.billing.invoice_store import PaymentErrand
from services.billing.payments import PaymentProvider
from services.billing.service.context import Context
from services.billing.store import Transaction
from services.shared.background import Backoff
from services.shared.errors import FlowStackError, Reason
from services.shared.log import get_logger

BATCH: Final = 16
IDLE_S: Final = 1.0
"""How often the outbox is looked at where nothing is due."""


class PaymentDispatcher:
    """The one way by which invoices reach the payment provider.

    An errand is done after its transaction has committed, and is in the outbox until the provider has answered. The
    provider takes a repeat for what it is, so that replicas need not agree on who sends, and a crash between its
    answer and our note of it does no harm.
    """

    def __init__(self, context: Context, provider: PaymentProvider, backoff: Backoff) -> None:
        self._context = context
        self._provider = provider
        self._backoff = backoff
        self._log = get_logger()

    async def run_once(self) -> bool:
        """Does what is due, or waits a moment. Always True: each errand has its own backoff."""
        now_us = self._context.clock.now_us()
        due = await self._context.store.transact(lambda transaction: transaction.payments.due(now_us, BATCH))
        if not due:
            await asyncio.sleep(IDLE_S)
        for errand in due:
            await self._try(errand)
        return True

    async def _try(self, errand: PaymentErrand) -> None:
        try:
            await self._run(errand)
        except FlowStackError as error:
            if error.reason is not Reason.PAYMENT_PROVIDER_UNAVAILABLE:
                raise
            delay_s = self._backoff.delay_s(errand.attempts)
            self._log.warning(
                "payment_errand_failed",
                account_id=errand.account_id,
                detail=f"{errand.kind.name} {errand.invoice_id}",
                attempt=errand.attempts + 1,
                delay_s=round(delay_s, 3),
            )
            next_us = self._context.clock.now_us() + int(delay_s * 1e6)
            await self._context.store.transact(lambda transaction: transaction.payments.postpone(errand, next_us))

    async def _run(self, errand: PaymentErrand) -> None:
        async def read(transaction: Transaction) -> tuple[Account, Invoice, str]:
            account = await transaction.accounts.get(errand.account_id)
            invoice = await transaction.invoices.get(errand.account_id, errand.invoice_id)
            return account, invoice, await transaction.payments.provider_id(errand.invoice_id)

        account, invoice, provider_id = await self._context.store.transact(read)
        if errand.kind is PaymentErrandKind.PUBLISH:
            await self._publish(account, invoice)
        # What was issued before the provider was switched on is not there, and nothing is to be done about it.
        elif provider_id and errand.kind is PaymentErrandKind.PAID:
            await self._provider.mark_paid(invoice, provider_id)
        elif provider_id and errand.kind is PaymentErrandKind.VOID:
            await self._provider.void(invoice, provider_id)
        elif provider_id:
            await self._credit(errand, provider_id)
        now_us = self._context.clock.now_us()
        await self._context.store.transact(lambda transaction: transaction.payments.finish(errand, now_us))

    async def _publish(self, account: Account, invoice: Invoice) -> None:
        account_id = account.account_id
        store = self._context.store
        customer_id = await store.transact(lambda transaction: transaction.payments.provider_id(account_id))
        if not customer_id:
            made = await self._provider.create_customer(account_id, account.display_name, account.email)
            await store.transact(lambda transaction: transaction.payments.put_provider_id(account_id, made))
            customer_id = made
        published = await self._provider.publish(invoice, customer_id)

        async def remember(transaction: Transaction) -> None:
            await transaction.payments.put_provider_id(invoice.invoice_id, published.provider_id)
            await transaction.payments.put_payment_url(invoice.invoice_id, published.payment_url)

        await store.transact(remember)

    async def _credit(self, errand: PaymentErrand, provider_id: str) -> None:
        notes = await self._context.store.transact(
            lambda transaction: transaction.invoices.credit_notes([errand.invoice_id])
        )
        (note,) = [note for note in notes if note.credit_note_id == errand.credit_note_id]
        await self._provider.credit(note, provider_id)
