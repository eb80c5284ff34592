"""Stripe as the payment provider.

An invoice is issued there under our number, with our lines, and sent by Stripe. Stripe forgets idempotency keys after a
day, so before something is made that an outage may have left half done, it is looked for by our id in its metadata.
"""

from __future__ import annotations

from collections.abc import Awaitable
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, TypeVar

import stripe
from stripe._base_address import BaseAddresses
from stripe.params import InvoiceCreateParams

from services.billing.domain.invoices import DAY_US, CreditNote, Invoice
from services.billing.payments import PublishedInvoice
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret

TIMEOUT_S: Final = 20.0
CURRENCY: Final = "usd"
OUR_ID: Final = "flowstack_id"
"""The metadata that carries our id."""
LISTED_MAX: Final = 100
"""How many of a customer's newest invoices are looked through; a half-made one is among the newest."""

_MICRO_PER_CENT: Final = 10_000
ResultT = TypeVar("ResultT")


class StripeClient:
    """Calls Stripe. Whatever it refuses or does not answer is PAYMENT_PROVIDER_UNAVAILABLE: the outbox tries again."""

    def __init__(self, api_key: Secret, base_url: str) -> None:
        """Takes the key, and another server's address than Stripe's own where that is not empty."""
        stripe.enable_telemetry = False
        self._http = stripe.AIOHTTPClient(timeout=TIMEOUT_S)
        addresses: BaseAddresses | None = {"api": base_url} if base_url else None
        # Without retries of its own: the outbox has a backoff already.
        self._stripe = stripe.StripeClient(
            api_key.reveal(), base_addresses=addresses, http_client=self._http, max_network_retries=0
        ).v1

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def create_customer(self, account_id: str, name: str, email: str) -> str:
        """Makes a customer; a crash before its id is noted leaves one that is never used."""
        customer = await _answer(
            self._stripe.customers.create_async(
                {"name": name, "email": email, "metadata": {OUR_ID: account_id}},
                {"idempotency_key": f"{account_id}:customer"},
            )
        )
        return customer.id

    async def publish(self, invoice: Invoice, customer_id: str) -> PublishedInvoice:
        """Issues the invoice to a customer."""
        found = await self._find(invoice, customer_id)
        issued = found or await self._draft(invoice, customer_id)
        if issued.status == "draft":
            for line in invoice.lines[len(found.lines.data) if found else 0 :]:
                await _answer(
                    self._stripe.invoice_items.create_async(
                        {
                            "customer": customer_id,
                            "invoice": issued.id,
                            "currency": CURRENCY,
                            "description": line.description,
                            "quantity": line.quantity,
                            "unit_amount_decimal": Decimal(line.unit_price_micro) / _MICRO_PER_CENT,
                            "period": {"start": line.start_us // 1_000_000, "end": line.end_us // 1_000_000},
                        },
                        {"idempotency_key": f"{invoice.invoice_id}:line:{line.line_number}"},
                    )
                )
            issued = await _answer(
                self._stripe.invoices.finalize_invoice_async(
                    issued.id, {"auto_advance": True}, {"idempotency_key": f"{invoice.invoice_id}:finalize"}
                )
            )
        return PublishedInvoice(issued.id, issued.hosted_invoice_url or "")

    async def _find(self, invoice: Invoice, customer_id: str) -> stripe.Invoice | None:
        listed = await _answer(self._stripe.invoices.list_async({"customer": customer_id, "limit": LISTED_MAX}))
        found = [one for one in listed.data if _our_id(one) == invoice.invoice_id]
        return found[0] if found else None

    async def _draft(self, invoice: Invoice, customer_id: str) -> stripe.Invoice:
        parameters: InvoiceCreateParams = {
            "customer": customer_id,
            "collection_method": "send_invoice",
            # From its finalization there: after an outage a customer has no less time to pay.
            "days_until_due": max(0, -((invoice.issue_us - invoice.due_us) // DAY_US)),
            "currency": CURRENCY,
            "number": invoice.number,
            "auto_advance": False,
            "pending_invoice_items_behavior": "exclude",
            "metadata": {OUR_ID: invoice.invoice_id},
        }
        options: stripe.RequestOptions = {"idempotency_key": f"{invoice.invoice_id}:invoice"}
        return await _answer(self._stripe.invoices.create_async(parameters, options))

    async def mark_paid(self, invoice: Invoice, provider_id: str) -> None:
        """Says that the invoice was paid elsewhere."""
        if await self._status(provider_id) != "paid":
            await _answer(
                self._stripe.invoices.pay_async(
                    provider_id, {"paid_out_of_band": True}, {"idempotency_key": f"{invoice.invoice_id}:paid"}
                )
            )

    async def void(self, invoice: Invoice, provider_id: str) -> None:
        """Voids the invoice."""
        if await self._status(provider_id) != "void":
            await _answer(
                self._stripe.invoices.void_invoice_async(
                    provider_id, {}, {"idempotency_key": f"{invoice.invoice_id}:void"}
                )
            )

    async def _status(self, provider_id: str) -> str:
        return (await _answer(self._stripe.invoices.retrieve_async(provider_id))).status or ""

    async def credit(self, note: CreditNote, provider_id: str) -> None:
        """Issues the credit note; a refund is made outside of Stripe."""
        listed = await _answer(self._stripe.credit_notes.list_async({"invoice": provider_id, "limit": LISTED_MAX}))
        if any(_our_id(one) == note.credit_note_id for one in listed.data):
            return
        await _answer(
            self._stripe.credit_notes.create_async(
                {
                    "invoice": provider_id,
                    "amount": _cents(note.total_micro),
                    "out_of_band_amount": _cents(note.refund_micro),
                    "memo": note.reason,
                    "metadata": {OUR_ID: note.credit_note_id},
                },
                {"idempotency_key": f"{note.credit_note_id}:credit"},
            )
        )


def _our_id(thing: stripe.Invoice | stripe.CreditNote) -> str:
    """What a thing at Stripe is called here; empty where it is not ours."""
    metadata = thing.metadata
    return str(metadata[OUR_ID]) if metadata and OUR_ID in metadata else ""


def _cents(micro: int) -> int:
    """Stripe knows no part of a cent."""
    return int((Decimal(micro) / _MICRO_PER_CENT).quantize(Decimal(1), ROUND_HALF_UP))


async def _answer(call: Awaitable[ResultT]) -> ResultT:
    try:
        return await call
    except stripe.StripeError as error:
        # Its own message may quote what was sent.
        raise FlowStackError(
            Reason.PAYMENT_PROVIDER_UNAVAILABLE,
            f"Stripe did not take the call ({type(error).__name__}). It is repeated until it does.",
        ) from error
