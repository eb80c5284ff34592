"""The audit log: reading."""

from __future__ import annotations

from services.billing.domain.audit import AuditEvent
from services.billing.invoice_store import AuditFilter
from services.billing.service.context import Context
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import Transaction


class AuditService:
    """Use cases of the audit log."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, wanted: AuditFilter, request: PageRequest) -> Page[AuditEvent]:
        """Lists audit events, newest first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND; INVALID_REQUEST: another call's page token.
        """
        scope = (
            "ListAuditEvents",
            wanted.account_id,
            str(wanted.start_us),
            str(wanted.end_us),
            *sorted(wanted.actions),
            ",".join(str(int(kind)) for kind in sorted(wanted.actor_kinds)),
            wanted.resource_id,
        )

        async def read(transaction: Transaction) -> Page[AuditEvent]:
            if wanted.account_id:
                await transaction.accounts.get(wanted.account_id)
            return await read_page(
                self._context.page_tokens,
                scope,
                request,
                lambda after, limit: transaction.audit.list(wanted, after, limit),
                lambda event: (event.event_us, event.audit_event_id),
            )

        return await self._context.store.transact(read)
