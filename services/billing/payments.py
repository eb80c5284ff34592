"""The port to the payment provider, where the operator has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.billing.domain.invoices import CreditNote, Invoice


@dataclass(frozen=True, slots=True)
class PublishedInvoice:
    """An invoice as it stands at the provider."""

    provider_id: str
    payment_url: str
    """Where the customer can pay it; empty for nowhere."""


class PaymentProvider(Protocol):
    """Sends invoices to customers and takes their payments.

    Each method may be called again with the same arguments, and does what it does once. Every one raises
    FlowStackError PAYMENT_PROVIDER_UNAVAILABLE where the provider does not answer or refuses.
    """

    async def create_customer(self, account_id: str, name: str, email: str) -> str:
        """Makes a customer there; answers its id."""
        ...

    async def publish(self, invoice: Invoice, customer_id: str) -> PublishedInvoice:
        """Issues the invoice to a customer there."""
        ...

    async def mark_paid(self, invoice: Invoice, provider_id: str) -> None:
        """Says that the invoice was paid elsewhere."""

    async def void(self, invoice: Invoice, provider_id: str) -> None:
        """Voids the invoice there."""

    async def credit(self, note: CreditNote, provider_id: str) -> None:
        """Issues the credit note there."""
