"""The audit log, and when something is next due in each account, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.dialect import insert_unless_there
from services.billing.adapters.sql.invoice_tables import AUDIT_EVENTS, DUE_ACCOUNTS
from services.billing.domain.audit import Actor, ActorKind, AuditChange, AuditEvent
from services.billing.domain.paging import Position
from services.billing.invoice_store import AuditFilter

_EVENTS = AUDIT_EVENTS.c


class SqlAudit:
    """The audit log."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, event: AuditEvent) -> None:
        """Adds an event."""
        row = {
            "audit_event_id": event.audit_event_id,
            "account_id": event.account_id,
            "event_us": event.event_us,
            "actor_kind": int(event.actor.kind),
            "actor_id": event.actor.actor_id,
            "peer": event.actor.peer,
            "trace_id": event.actor.trace_id,
            "action": event.action,
            "resource_type": event.resource_type,
            "resource_id": event.resource_id,
            "changes": msgspec.json.encode(event.changes).decode(),
            "request_id": event.request_id,
            "reason": event.reason,
        }
        await self._connection.execute(insert(AUDIT_EVENTS), row)

    async def list(self, wanted: AuditFilter, after: Position | None, limit: int) -> Sequence[AuditEvent]:
        """Events, newest first."""
        query = select(AUDIT_EVENTS)
        if wanted.account_id:
            query = query.where(_EVENTS.account_id == wanted.account_id)
        if wanted.start_us:
            query = query.where(_EVENTS.event_us >= wanted.start_us)
        if wanted.end_us:
            query = query.where(_EVENTS.event_us < wanted.end_us)
        if wanted.actions:
            query = query.where(_EVENTS.action.in_(wanted.actions))
        if wanted.actor_kinds:
            query = query.where(_EVENTS.actor_kind.in_([int(kind) for kind in wanted.actor_kinds]))
        if wanted.resource_id:
            query = query.where(_EVENTS.resource_id == wanted.resource_id)
        if after is not None:
            query = query.where(tuple_(_EVENTS.event_us, _EVENTS.audit_event_id) < tuple_(*after))
        query = query.order_by(_EVENTS.event_us.desc(), _EVENTS.audit_event_id.desc()).limit(limit)
        return [
            AuditEvent(
                row.audit_event_id,
                row.account_id,
                row.event_us,
                Actor(ActorKind(row.actor_kind), row.actor_id, row.peer, row.trace_id),
                row.action,
                row.resource_type,
                row.resource_id,
                msgspec.json.decode(row.changes, type=tuple[AuditChange, ...]),
                row.request_id,
                row.reason,
            )
            for row in await self._connection.execute(query)
        ]


class SqlDueAccounts:
    """When something is next due in each account."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def due(self, now_us: int, limit: int) -> Sequence[str]:
        """Accounts in which something is due by now, the longest due first."""
        query = select(DUE_ACCOUNTS.c.account_id).where(DUE_ACCOUNTS.c.due_us <= now_us)
        return (await self._connection.execute(query.order_by(DUE_ACCOUNTS.c.due_us).limit(limit))).scalars().all()

    async def next_us(self) -> int | None:
        """When something is next due in any account; None for never."""
        next_us: int | None = (await self._connection.execute(select(func.min(DUE_ACCOUNTS.c.due_us)))).scalar_one()
        return next_us

    async def put(self, account_id: str, due_us: int) -> None:
        """Sets when something is next due in an account."""
        row = {"account_id": account_id, "due_us": due_us}
        is_there = DUE_ACCOUNTS.c.account_id == account_id
        changed = await self._connection.execute(update(DUE_ACCOUNTS).where(is_there).values(due_us=due_us))
        if not changed.rowcount:
            await self._connection.execute(insert_unless_there(self._connection, DUE_ACCOUNTS), row)
