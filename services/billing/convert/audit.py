"""Audit events."""

from __future__ import annotations

from flowstack_protos.billing.v1 import audit_service_pb2 as pb

from services.billing.domain.audit import ActorKind, AuditEvent
from services.billing.invoice_store import AuditFilter
from services.shared.times import time_to_proto, us_from_proto


def filter_from_proto(request: pb.ListAuditEventsRequest, account_id: str) -> AuditFilter:
    """The filters of a ListAuditEventsRequest, about `account_id`; empty for every account."""
    return AuditFilter(
        account_id,
        us_from_proto(request.start_time),
        us_from_proto(request.end_time),
        tuple(request.actions),
        tuple(ActorKind(kind) for kind in request.actor_kinds),
        request.resource_id,
    )


def event_to_proto(event: AuditEvent) -> pb.AuditEvent:
    """Domain to AuditEvent."""
    return pb.AuditEvent(
        audit_event_id=event.audit_event_id,
        account_id=event.account_id,
        event_time=time_to_proto(event.event_us),
        actor_kind=event.actor.kind.value,  # type: ignore[arg-type]  # the numbers are the contract's
        actor_id=event.actor.actor_id,
        peer=event.actor.peer,
        action=event.action,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        changes=[
            pb.AuditChange(field=change.field, from_json=change.from_json, to_json=change.to_json)
            for change in event.changes
        ],
        request_id=event.request_id,
        reason=event.reason,
        trace_id=event.actor.trace_id,
    )
