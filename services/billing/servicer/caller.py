"""Who makes a call."""

from __future__ import annotations

import re
from typing import Any, Final

import grpc

from services.billing.domain.audit import Actor, ActorKind
from services.shared.auth import CallerKind, current_caller

_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def actor_of_call(context: grpc.aio.ServicerContext[Any, Any]) -> Actor:
    """Who makes the call, for the audit log. An API key appears by its id, the admin token not at all."""
    caller = current_caller()
    kind = ActorKind.CUSTOMER if caller.kind is CallerKind.CUSTOMER else ActorKind.ADMIN
    metadata = dict(context.invocation_metadata() or ())
    match = _TRACEPARENT.fullmatch(str(metadata.get("traceparent", "")))
    return Actor(kind, caller.api_key_id, _address(context.peer()), match[1] if match else "")


def _address(peer: str) -> str:
    """GRPC's `ipv4:127.0.0.1:5000` without the scheme."""
    scheme, _, address = peer.partition(":")
    return address.replace("%5B", "[").replace("%5D", "]") if scheme in ("ipv4", "ipv6") else peer
