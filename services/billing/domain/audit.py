"""The audit log: who changed what, when, from what to what. Holds no secret, and no name or address of a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from services.billing.domain.ids import Randomness, base32, new_id


class ActorKind(IntEnum):
    """Who changes things. The numbers are the contract's."""

    CUSTOMER = 1
    ADMIN = 2
    SYSTEM = 3
    PAYMENT_PROVIDER = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Who made a change, and from where."""

    kind: ActorKind
    actor_id: str = ""
    """The API key or the job."""
    peer: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditChange:
    """One field that changed; JSON, empty where there was or is nothing."""

    field: str
    from_json: str
    to_json: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change that somebody made."""

    audit_event_id: str
    account_id: str
    event_us: int
    actor: Actor
    action: str
    resource_type: str
    resource_id: str
    changes: tuple[AuditChange, ...]
    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Action:
    """What an actor does, and why."""

    actor: Actor
    name: str
    """The method, such as `SubscriptionService.ChangePlan`, or the job."""
    request_id: str = ""
    reason: str = ""


Facts = Mapping[str, object]
"""A resource's fields as plain values, by path."""

NOTHING: Final[Facts] = {}


def audit_event(
    action: Action,
    account_id: str,
    resource_type: str,
    resource_id: str,
    *,
    before: Facts,
    after: Facts,
    now_us: int,
    place: int = 0,
    randomness: Randomness,
) -> AuditEvent:
    """The event of a change of one resource; only fields that differ are in it.

    Ids rise with time, and within a transaction with `place`, so that a list is in the order in which things were done.
    """
    return AuditEvent(
        new_id(f"aud_{base32(now_us, 12)}{base32(place, 3)}", randomness),
        account_id,
        now_us,
        action.actor,
        action.name,
        resource_type,
        resource_id,
        changes_between(before, after),
        action.request_id,
        action.reason,
    )


def changes_between(before: Facts, after: Facts) -> tuple[AuditChange, ...]:
    """The fields that differ, in the order in which they stand."""
    fields = dict.fromkeys((*before, *after))
    return tuple(
        AuditChange(field, _json(before, field), _json(after, field))
        for field in fields
        if before.get(field) != after.get(field)
    )


def _json(facts: Facts, field: str) -> str:
    value = facts.get(field)
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
