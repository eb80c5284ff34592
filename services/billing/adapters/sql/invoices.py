"""Invoices and credit notes in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import case, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.invoice_tables import CREDIT_NOTES, INVOICES
from services.billing.adapters.sql.tables import LEDGER, PARTITION_CURSORS
from services.billing.domain.invoices import (
    CreditNote,
    CreditNoteLine,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceState,
    SessionCounts,
    StatedUsage,
)
from services.billing.domain.ledger import CredentialMode, EventType
from services.billing.domain.paging import Position
from services.billing.invoice_store import InvoiceFilter
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import Period

_INVOICES = INVOICES.c
_STATE_COLUMNS: Final = (
    "state",
    "credited_micro",
    "paid_micro",
    "pay_us",
    "payment_reference",
    "void_us",
    "void_reason",
)
"""What of an invoice changes after its issue; `payment_url` is the payment provider's to set."""


class SqlInvoices:
    """Invoices and credit notes."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def next_number(self, account_id: str) -> int:
        """The account's next invoice number."""
        query = select(func.max(_INVOICES.sequence_number)).where(_INVOICES.account_id == account_id)
        return ((await self._connection.execute(query)).scalar_one() or 0) + 1

    async def next_credit_number(self, account_id: str) -> int:
        """The account's next credit note number."""
        query = select(func.max(CREDIT_NOTES.c.sequence_number)).where(CREDIT_NOTES.c.account_id == account_id)
        return ((await self._connection.execute(query)).scalar_one() or 0) + 1

    async def insert(self, invoice: Invoice) -> None:
        """Adds an invoice."""
        await self._connection.execute(insert(INVOICES), _to_row(invoice))

    async def update(self, invoice: Invoice) -> None:
        """Writes an invoice's state, payment and credits."""
        row = _to_row(invoice)
        statement = update(INVOICES).where(_INVOICES.invoice_id == invoice.invoice_id)
        await self._connection.execute(statement.values({name: row[name] for name in _STATE_COLUMNS}))

    async def get(self, account_id: str, invoice_id: str) -> Invoice:
        """Reads an invoice."""
        query = select(INVOICES).where(_INVOICES.invoice_id == invoice_id, _INVOICES.account_id == account_id)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise FlowStackError(
                Reason.INVOICE_NOT_FOUND, "The account has no such invoice. ListInvoices shows those that it has."
            )
        return _from_row(row)

    async def find_of(self, subscription_id: str, period_start_us: int, kind: InvoiceKind, cause: str) -> str:
        """The id of the invoice for that; empty for none."""
        query = select(_INVOICES.invoice_id).where(
            _INVOICES.subscription_id == subscription_id,
            _INVOICES.period_start_us == period_start_us,
            _INVOICES.kind == int(kind),
            _INVOICES.cause == cause,
        )
        return (await self._connection.execute(query)).scalar_one_or_none() or ""

    async def list(
        self, account_id: str, wanted: InvoiceFilter, after: Position | None, limit: int
    ) -> Sequence[Invoice]:
        """Invoices of an account, newest first."""
        query = select(INVOICES).where(_INVOICES.account_id == account_id)
        if wanted.states:
            query = query.where(_INVOICES.state.in_([int(state) for state in wanted.states]))
        if wanted.kinds:
            query = query.where(_INVOICES.kind.in_([int(kind) for kind in wanted.kinds]))
        if wanted.start_us:
            query = query.where(_INVOICES.issue_us >= wanted.start_us)
        if wanted.end_us:
            query = query.where(_INVOICES.issue_us < wanted.end_us)
        if after is not None:
            query = query.where(tuple_(_INVOICES.sequence_number, _INVOICES.invoice_id) < tuple_(*after))
        query = query.order_by(_INVOICES.sequence_number.desc()).limit(limit)
        return [_from_row(row) for row in await self._connection.execute(query)]

    async def oldest_due_us(self, account_id: str) -> int:
        """The due time of the account's open invoice that is due first; 0 for none."""
        query = select(func.min(_INVOICES.due_us)).where(
            _INVOICES.account_id == account_id, _INVOICES.state == int(InvoiceState.OPEN)
        )
        return (await self._connection.execute(query)).scalar_one() or 0

    async def charged_micro(self, account_id: str, period_start_us: int) -> int:
        """What the period that starts then has been invoiced so far."""
        query = select(func.coalesce(func.sum(_INVOICES.total_micro - _INVOICES.credited_micro), 0)).where(
            _INVOICES.account_id == account_id,
            _INVOICES.period_start_us == period_start_us,
            _INVOICES.state != int(InvoiceState.VOID),
        )
        return int((await self._connection.execute(query)).scalar_one())

    async def insert_credit_note(self, note: CreditNote) -> None:
        """Adds a credit note."""
        row = {
            "credit_note_id": note.credit_note_id,
            "account_id": note.account_id,
            "invoice_id": note.invoice_id,
            "number": note.number,
            "sequence_number": note.sequence_number,
            "lines": msgspec.json.encode(note.lines).decode(),
            "total_micro": note.total_micro,
            "refund_micro": note.refund_micro,
            "reason": note.reason,
            "issue_us": note.issue_us,
        }
        await self._connection.execute(insert(CREDIT_NOTES), row)

    async def credit_notes(self, invoice_ids: Collection[str]) -> Sequence[CreditNote]:
        """Credit notes of invoices, in the order in which they were issued."""
        if not invoice_ids:
            return []
        columns = CREDIT_NOTES.c
        query = select(CREDIT_NOTES).where(columns.invoice_id.in_(sorted(invoice_ids)))
        rows = await self._connection.execute(query.order_by(columns.sequence_number))
        return [
            CreditNote(
                row.credit_note_id,
                row.account_id,
                row.invoice_id,
                row.number,
                row.sequence_number,
                msgspec.json.decode(row.lines, type=tuple[CreditNoteLine, ...]),
                row.refund_micro,
                row.reason,
                row.issue_us,
            )
            for row in rows
        ]

    async def forget_customer(self, account_id: str) -> None:
        """Blanks the customer's name and address on every invoice of an account."""
        await self._connection.execute(
            update(INVOICES).where(_INVOICES.account_id == account_id).values(customer_name="", customer_email="")
        )

    async def session_counts(self, account_id: str, period: Period) -> SessionCounts:
        """Counted sessions of a period, from the ledger."""
        columns = LEDGER.c
        is_byok = columns.credential_mode == int(CredentialMode.BYOK)
        query = select(func.count(), func.coalesce(func.sum(case((is_byok, 1), else_=0)), 0)).where(
            columns.account_id == account_id,
            columns.reserve_us >= period.start_us,
            columns.reserve_us < period.end_us,
            columns.period_start_us == period.start_us,
            columns.event == int(EventType.COMMITTED),
        )
        total, byok = (await self._connection.execute(query)).one()
        return SessionCounts(int(total) - int(byok), int(byok))

    async def is_complete_until(self, partition: int, moment_us: int) -> bool:
        """Whether the ledger has the resolution of every session of the partition reserved before `moment_us`."""
        columns = PARTITION_CURSORS.c
        query = select(columns.watermark_us, columns.oldest_reserve_us).where(columns.partition == partition)
        watermark_us, oldest_us = (await self._connection.execute(query)).one()
        return bool(watermark_us >= moment_us and (not oldest_us or oldest_us >= moment_us))


def _to_row(invoice: Invoice) -> dict[str, Any]:
    return {
        "invoice_id": invoice.invoice_id,
        "account_id": invoice.account_id,
        "number": invoice.number,
        "sequence_number": invoice.sequence_number,
        "kind": int(invoice.kind),
        "state": int(invoice.state),
        "subscription_id": invoice.subscription_id,
        "period_start_us": invoice.period_start_us,
        "period_end_us": invoice.period_end_us,
        "cause": invoice.cause,
        "customer_name": invoice.customer_name,
        "customer_email": invoice.customer_email,
        "lines": msgspec.json.encode(invoice.lines).decode(),
        "total_micro": invoice.total_micro,
        "issue_us": invoice.issue_us,
        "due_us": invoice.due_us,
        "credited_micro": invoice.credited_micro,
        "paid_micro": invoice.paid_micro,
        "pay_us": invoice.pay_us,
        "payment_reference": invoice.payment_reference,
        "payment_url": invoice.payment_url,
        "void_us": invoice.void_us,
        "void_reason": invoice.void_reason,
        "usage": msgspec.json.encode(invoice.usage).decode() if invoice.usage else "",
    }


def _from_row(row: Any) -> Invoice:
    return Invoice(
        row.invoice_id,
        row.account_id,
        row.number,
        row.sequence_number,
        InvoiceKind(row.kind),
        InvoiceState(row.state),
        row.subscription_id,
        row.period_start_us,
        row.period_end_us,
        row.cause,
        row.customer_name,
        row.customer_email,
        msgspec.json.decode(row.lines, type=tuple[InvoiceLine, ...]),
        row.issue_us,
        row.due_us,
        msgspec.json.decode(row.usage, type=StatedUsage) if row.usage else None,
        row.credited_micro,
        row.paid_micro,
        row.pay_us,
        row.payment_reference,
        row.payment_url,
        row.void_us,
        row.void_reason,
    )
