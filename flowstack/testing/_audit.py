"""The audit log: who changed what, when, from what to what. Holds no secret, no name or address of a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from flowstack_protos.billing.v1 import audit_service_pb2 as pb

from flowstack.testing._calls import Call, page_of
from flowstack.testing._ids import new_id
from flowstack.testing._time import timestamp

if TYPE_CHECKING:
    from flowstack.testing._world import World

Facts = Mapping[str, object]
"""A resource's fields as plain values, by path."""

NOTHING: Final[Facts] = {}


class Action(NamedTuple):
    """What somebody does, and why."""

    name: str
    """The method, such as `SubscriptionService.ChangePlan`, or the job."""
    kind: pb.ActorKind.ValueType
    actor_id: str = ""
    peer: str = ""
    request_id: str = ""
    reason: str = ""


def action_of(call: Call) -> Action:
    """What a call does."""
    kind = pb.ACTOR_KIND_ADMIN if call.is_admin else pb.ACTOR_KIND_CUSTOMER
    return Action(call.method, kind, call.api_key_id, call.peer, call.request_id, call.reason)


def by_system(job: str) -> Action:
    """What the fake does by itself, as billing would."""
    return Action(job, pb.ACTOR_KIND_SYSTEM, job)


class AuditLog:
    """All events, oldest first."""

    def __init__(self) -> None:
        self.events: list[pb.AuditEvent] = []

    def note(  # noqa: PLR0917  # an event's columns
        self,
        action: Action,
        account_id: str,
        resource_type: str,
        resource_id: str,
        before: Facts,
        after: Facts,
        now_us: int,
    ) -> None:
        """Adds the event of a change of one resource, where anything differs."""
        fields = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
        if not fields:
            return
        event = pb.AuditEvent(
            audit_event_id=new_id("aud_"),
            account_id=account_id,
            event_time=timestamp(now_us),
            actor_kind=action.kind,
            actor_id=action.actor_id,
            peer=action.peer,
            action=action.name,
            resource_type=resource_type,
            resource_id=resource_id,
            request_id=action.request_id,
            reason=action.reason,
        )
        for name in fields:
            event.changes.add(field=name, from_json=_json(before.get(name)), to_json=_json(after.get(name)))
        self.events.append(event)


def _json(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class AuditReader:
    """The method of AuditService."""

    def __init__(self, world: World) -> None:
        self._world = world

    def list_audit_events(self, call: Call, request: pb.ListAuditEventsRequest) -> pb.ListAuditEventsResponse:
        """Lists events, newest first; every account's to the operator who names none."""
        with self._world.lock:
            if call.account_id:
                self._world.account(call.account_id)
            events = list(reversed(self._world.log.events))
        begin, end = request.start_time.ToMicroseconds(), request.end_time.ToMicroseconds()
        found = [
            event
            for event in events
            if call.account_id in ("", event.account_id)
            and (not begin or event.event_time.ToMicroseconds() >= begin)
            and (not end or event.event_time.ToMicroseconds() < end)
            and (not request.actions or event.action in request.actions)
            and (not request.actor_kinds or event.actor_kind in request.actor_kinds)
            and request.resource_id in ("", event.resource_id)
        ]
        page, token = page_of(found, call, request)
        return pb.ListAuditEventsResponse(audit_events=page, next_page_token=token)
