"""AuditService."""

from __future__ import annotations

from typing import Any

import grpc
from flowstack_protos.billing.v1 import audit_service_pb2 as pb
from flowstack_protos.billing.v1.audit_service_pb2_grpc import AuditServiceServicer

from services.billing.convert import audit as convert
from services.billing.service.audit import AuditService
from services.billing.service.paging import PageRequest
from services.shared.auth import account_or_all

Context = grpc.aio.ServicerContext


class AuditServicer(AuditServiceServicer):
    """The audit log."""

    def __init__(self, audit: AuditService) -> None:
        self._audit = audit

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context[Any, Any]
    ) -> pb.ListAuditEventsResponse:
        """See the contract."""
        page = await self._audit.list(
            convert.filter_from_proto(request, account_or_all(request.account_id)),
            PageRequest(request.page_size, request.page_token),
        )
        events = [convert.event_to_proto(event) for event in page.items]
        return pb.ListAuditEventsResponse(audit_events=events, next_page_token=page.next_token)
