"""Who calls, and what each RPC demands of its caller.

Every RPC has a policy; a server with an RPC that has none does not start. What is not allowed is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Final

import grpc

from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.secret import Secret

AUTHORIZATION: Final = "authorization"
API_KEY_PREFIX: Final = "fs_"
ALTERNATIVE_NAME: Final = "x509_subject_alternative_name"


class Policy(Enum):
    """What an RPC demands of its caller."""

    OPEN = "open"
    """Nothing: health and reflection."""
    CUSTOMER = "customer"
    """An API key. Acts on the key's account."""
    CUSTOMER_OR_ADMIN = "customer-or-admin"
    """An API key for its own account, or the admin token for any."""
    ADMIN = "admin"
    """The admin token."""
    INTERNAL = "internal"
    """The internal token, or a client certificate that names a service."""


class CallerKind(Enum):
    """What a caller proved to be."""

    ANONYMOUS = "anonymous"
    CUSTOMER = "customer"
    ADMIN = "admin"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    kind: CallerKind
    account_id: str = ""
    api_key_id: str = ""


ANONYMOUS: Final = Caller(CallerKind.ANONYMOUS)
ADMIN: Final = Caller(CallerKind.ADMIN)
SERVICE: Final = Caller(CallerKind.SERVICE)

_caller: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)


def current_caller() -> Caller:
    """The caller of the RPC that runs now."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Says who calls; done once for each RPC by the interceptor."""
    _caller.set(caller)


KeyAuthenticator = Callable[[Secret], Awaitable[Caller]]
"""Resolves an API key to its account. Raises FlowStackError API_KEY_INVALID, …REVOKED, …EXPIRED."""


async def _no_keys(_: Secret) -> Caller:
    raise FlowStackError(Reason.API_KEY_INVALID, "This port takes no API keys. Call the public address.")


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks the caller of each RPC against the RPC's policy."""

    policies: Mapping[str, Policy]
    """By full method name, `/flowstack.quota.v1.QuotaService/GetQuota`."""
    internal_tokens: Sequence[Secret] = ()
    admin_tokens: Sequence[Secret] = ()
    authenticate_key: KeyAuthenticator = _no_keys
    service_names: Collection[str] = ()
    """Subject alternative names, such as SPIFFE ids: a verified client certificate that has one proves a service.
    Any other certificate of the same authority proves nothing."""

    async def authenticate(self, policy: Policy, context: grpc.aio.ServicerContext) -> Caller:  # type: ignore[type-arg]
        """The caller of an RPC under `policy`.

        Raises:
            FlowStackError: API_KEY_MISSING, API_KEY_INVALID, API_KEY_REVOKED, API_KEY_EXPIRED, ADMIN_REQUIRED.
        """
        if policy is Policy.OPEN:
            return ANONYMOUS
        if policy is Policy.INTERNAL:
            return self.authenticate_service(context)
        token = _bearer(context)
        if _matches(token, self.admin_tokens):
            if policy is Policy.CUSTOMER:
                raise FlowStackError(
                    Reason.API_KEY_INVALID,
                    "The admin token is not accepted here. Send an API key of the account, fs_….",
                )
            return ADMIN
        if not token.reveal().startswith(API_KEY_PREFIX):
            raise FlowStackError(
                Reason.API_KEY_INVALID,
                "The authorization is neither an API key nor a known token. Send `authorization: Bearer fs_…`.",
            )
        caller = await self.authenticate_key(token)
        if policy is Policy.ADMIN:
            raise FlowStackError(Reason.ADMIN_REQUIRED, "This method is the operator's. Send the admin token.")
        return caller

    def authenticate_service(self, context: grpc.aio.ServicerContext) -> Caller:  # type: ignore[type-arg]
        """The caller of an RPC between services, who is known without waiting for anybody.

        Raises:
            FlowStackError: API_KEY_MISSING, API_KEY_INVALID.
        """
        if self.service_names and self._names_service(context):
            return SERVICE
        return self._service(_bearer(context))

    def _names_service(self, context: grpc.aio.ServicerContext) -> bool:  # type: ignore[type-arg]
        # Not peer_identities(): where a certificate has no alternative name, that is its common name.
        names: Iterable[bytes] = context.auth_context().get(ALTERNATIVE_NAME, ())
        return any(name.decode(errors="replace") in self.service_names for name in names)

    def _service(self, token: Secret) -> Caller:
        if _matches(token, self.internal_tokens):
            return SERVICE
        raise FlowStackError(
            Reason.API_KEY_INVALID,
            "This method is for FlowStack's own services. Send the internal token as `authorization: Bearer …`.",
        )


def _bearer(context: grpc.aio.ServicerContext) -> Secret:  # type: ignore[type-arg]
    for key, value in context.invocation_metadata() or ():
        if key == AUTHORIZATION and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return Secret(token.strip())
            break
    raise FlowStackError(
        Reason.API_KEY_MISSING, "The call carries no API key. Send the metadata `authorization: Bearer fs_…`."
    )


def _matches(token: Secret, accepted: Sequence[Secret]) -> bool:
    matched = False
    for candidate in accepted:
        # No early exit: the time must not tell which token was close.
        matched |= token == candidate
    return matched


def check_account(caller: Caller, account_id: str) -> None:
    """Refuses a customer who names another account than the key's.

    Raises:
        FlowStackError: ACCOUNT_MISMATCH.
    """
    if caller.kind is CallerKind.CUSTOMER and account_id and account_id != caller.account_id:
        raise FlowStackError(
            Reason.ACCOUNT_MISMATCH,
            "The API key belongs to another account than account_id names. "
            "Leave account_id out or use that account's key.",
        )


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
