"""The outbox to the payment provider in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.dialect import insert_unless_there
from services.billing.adapters.sql.invoice_tables import INVOICES, PAYMENT_ERRANDS, PROVIDER_IDS
from services.billing.domain.payments import PaymentErrandKind
from services.billing.invoice_store import PaymentErrand

_ERRANDS = PAYMENT_ERRANDS.c
_EARLIER = PAYMENT_ERRANDS.alias("earlier")


class SqlPayments:
    """The outbox to the payment provider, and what things are called there."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, errand: PaymentErrand, now_us: int) -> None:
        """Adds an errand, to be done at once."""
        place = select(func.count()).where(_ERRANDS.invoice_id == errand.invoice_id)
        row = {
            "invoice_id": errand.invoice_id,
            "kind": int(errand.kind),
            "credit_note_id": errand.credit_note_id,
            "account_id": errand.account_id,
            "pending": True,
            "place": (await self._connection.execute(place)).scalar_one(),
            "attempts": 0,
            "next_attempt_us": now_us,
            "update_us": now_us,
        }
        await self._connection.execute(insert(PAYMENT_ERRANDS), row)

    async def due(self, now_us: int, limit: int) -> Sequence[PaymentErrand]:
        """Errands to be done by now, of each invoice the first one only."""
        earlier = exists().where(
            _EARLIER.c.invoice_id == _ERRANDS.invoice_id,
            _EARLIER.c.pending.is_(True),
            _EARLIER.c.place < _ERRANDS.place,
        )
        query = (
            select(PAYMENT_ERRANDS)
            .where(_ERRANDS.pending.is_(True), _ERRANDS.next_attempt_us <= now_us, ~earlier)
            .order_by(_ERRANDS.next_attempt_us)
            .limit(limit)
        )
        return [
            PaymentErrand(row.account_id, row.invoice_id, PaymentErrandKind(row.kind), row.credit_note_id, row.attempts)
            for row in await self._connection.execute(query)
        ]

    async def finish(self, errand: PaymentErrand, now_us: int) -> None:
        """The errand is done."""
        statement = update(PAYMENT_ERRANDS).where(_is(errand)).values(pending=False, update_us=now_us)
        await self._connection.execute(statement)

    async def postpone(self, errand: PaymentErrand, next_attempt_us: int) -> None:
        """The errand was in vain, and is to be tried again then."""
        values = {"attempts": errand.attempts + 1, "next_attempt_us": next_attempt_us}
        await self._connection.execute(update(PAYMENT_ERRANDS).where(_is(errand)).values(values))

    async def provider_id(self, resource_id: str) -> str:
        """What an account or an invoice is called at the provider."""
        query = select(PROVIDER_IDS.c.provider_id).where(PROVIDER_IDS.c.resource_id == resource_id)
        return (await self._connection.execute(query)).scalar_one_or_none() or ""

    async def put_provider_id(self, resource_id: str, provider_id: str) -> None:
        """Remembers what an account or an invoice is called at the provider."""
        row = {"resource_id": resource_id, "provider_id": provider_id}
        await self._connection.execute(insert_unless_there(self._connection, PROVIDER_IDS), row)

    async def put_payment_url(self, invoice_id: str, payment_url: str) -> None:
        """Remembers where an invoice can be paid."""
        statement = update(INVOICES).where(INVOICES.c.invoice_id == invoice_id)
        await self._connection.execute(statement.values(payment_url=payment_url))


def _is(errand: PaymentErrand) -> Any:
    return and_(
        _ERRANDS.invoice_id == errand.invoice_id,
        _ERRANDS.kind == int(errand.kind),
        _ERRANDS.credit_note_id == errand.credit_note_id,
    )
