"""Whose account a call is about, and who makes it."""

from __future__ import annotations

import re
from typing import Any, Final

import grpc

from services.billing.domain.audit import Actor, ActorKind
from services.shared.auth import CallerKind, current_caller
from services.shared.errors import invalid_request

_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def account_of_call(account_id: str) -> str:
    """The account that a call acts on: a customer's is the key's, and an admin has to name it.

    The interceptor has refused a customer who names another account already.

    Raises:
        FlowStackError: INVALID_REQUEST for an admin who names none.
    """
    account_id = account_or_all(account_id)
    if not account_id:
        raise invalid_request("account_id", "must be set in a call with the admin token")
    return account_id


def account_or_all(account_id: str) -> str:
    """The same, where an admin who names none means every account: empty then."""
    caller = current_caller()
    return caller.account_id if caller.kind is CallerKind.CUSTOMER else account_id


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
