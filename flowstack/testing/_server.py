"""The fake's gRPC server: who calls, what may be called, and how errors are told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from flowstack_protos.billing.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    invoice_service_pb2,
    subscription_service_pb2,
    usage_service_pb2,
)
from flowstack_protos.router.v1 import router_service_pb2
from flowstack_protos.vault.v1 import vault_service_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from flowstack.testing._accounts import Accounts
from flowstack.testing._alerts import Alerts
from flowstack.testing._audit import AuditReader
from flowstack.testing._billing import Subscriptions
from flowstack.testing._calls import Call
from flowstack.testing._endings import Cause
from flowstack.testing._errors import FakeError, abort, invalid_field
from flowstack.testing._estimates import Estimates
from flowstack.testing._history import UsageHistory
from flowstack.testing._invoicing import Invoices
from flowstack.testing._router import Router
from flowstack.testing._rules import check
from flowstack.testing._session import Limits
from flowstack.testing._usage import UsageReader
from flowstack.testing._vault import Vault
from flowstack.testing._webhooks import Webhooks
from flowstack.testing._world import World

THREADS_MAX: Final = 2_000
"""Calls at once; each has a thread of its own, which is begun when it is needed."""

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # As the services: gRPC itself takes a client that asks every 20 s whether the server is there for an attacker.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Two fakes of one process must never share a port.
    ("grpc.so_reuseport", 0),
)

_ADMIN_ONLY: Final = frozenset(
    {
        "CreateAccount",
        "ListAccounts",
        "SuspendAccount",
        "DeleteAccount",
        "PutContract",
        "ReconcileUsage",
        "MarkInvoicePaid",
        "VoidInvoice",
        "CreateCreditNote",
    }
)
_ALL_ACCOUNTS: Final = frozenset({"ListAuditEvents", "ReconcileUsage"})
"""Where the operator who names no account means all of them."""

_INTERNAL: Final = frozenset({"AuthenticateApiKey"})

Behavior = Callable[[Call, Any], Any]


class Server:
    """Serves a world on a port of the loopback interface."""

    def __init__(self, world: World, limits: Limits) -> None:
        self._world = world
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="fake-flowstack")
        self._server = grpc.server(self._pool, options=OPTIONS)
        services: list[tuple[Any, str, tuple[object, ...]]] = [
            (router_service_pb2, "RouterService", (Router(world, limits),)),
            (account_service_pb2, "AccountService", (Accounts(world),)),
            (subscription_service_pb2, "SubscriptionService", (Subscriptions(world),)),
            (usage_service_pb2, "UsageService", (UsageReader(world), UsageHistory(world), Estimates(world))),
            (alert_service_pb2, "AlertService", (Alerts(world), Webhooks(world))),
            (invoice_service_pb2, "InvoiceService", (Invoices(world),)),
            (audit_service_pb2, "AuditService", (AuditReader(world),)),
            (vault_service_pb2, "VaultService", (Vault(world),)),
        ]
        for module, name, implementations in services:
            descriptor = module.DESCRIPTOR.services_by_name[name]
            handler = grpc.method_handlers_generic_handler(
                descriptor.full_name, self._handlers(descriptor, implementations)
            )
            self._server.add_generic_rpc_handlers((handler,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        """Ends every call and the server."""
        with self._world.lock:
            self._world.stopping = True
            self._world.changed.notify_all()
            running = list(self._world.conversations)
        for conversation in running:
            conversation.stop(Cause.SHUTTING_DOWN)
        self._server.stop(0.5).wait()
        self._pool.shutdown(wait=True)

    def _handlers(
        self, service: ServiceDescriptor, implementations: Sequence[object]
    ) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {method.name: self._handler(method, implementations) for method in service.methods}

    def _handler(self, method: MethodDescriptor, implementations: Sequence[object]) -> grpc.RpcMethodHandler[Any, Any]:
        behavior = _behavior_of(method, implementations)
        decode = GetMessageClass(method.input_type).FromString

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return behavior(self._admit(method, request, context), request)
            except FakeError as error:
                abort(context, error)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                checked = None if method.client_streaming else request
                yield from behavior(self._admit(method, checked, context), request)
            except FakeError as error:
                abort(context, error)

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, decode, _encode)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, decode, _encode)
        return grpc.unary_unary_rpc_method_handler(unary, decode, _encode)

    def _admit(self, method: MethodDescriptor, request: Any, context: grpc.ServicerContext) -> Call:
        """Who calls, after the request was checked.

        Raises:
            FakeError: API_KEY_…, ADMIN_REQUIRED, ACCOUNT_MISMATCH, INVALID_REQUEST.
        """
        token = _bearer(context)
        named = getattr(request, "account_id", "") if request is not None else ""
        is_admin = token == self._world.admin_token
        if method.name in _INTERNAL or (is_admin and method.containing_service.name == "RouterService"):
            raise FakeError("API_KEY_INVALID", "That token is not accepted here. Send an API key of the account, fs_….")
        account_id, api_key_id = (named, "") if is_admin else self._authenticate(token)
        if method.name in _ADMIN_ONLY and not is_admin:
            raise FakeError("ADMIN_REQUIRED", "This method is the operator's. Send the admin token.")
        if request is not None:
            check(request)
        if not is_admin and named and named != account_id:
            raise FakeError(
                "ACCOUNT_MISMATCH",
                "The API key belongs to another account than account_id names. "
                "Leave account_id out or use that account's key.",
            )
        if is_admin and not named and method.name not in _ALL_ACCOUNTS and hasattr(request, "account_id"):
            raise invalid_field("account_id", "must be set in a call with the admin token")
        return Call(
            account_id,
            api_key_id,
            is_admin,
            context,
            f"{method.containing_service.name}.{method.name}",
            getattr(request, "request_id", ""),
            getattr(request, "reason", ""),
        )

    def _authenticate(self, token: str) -> tuple[str, str]:
        with self._world.lock:
            key = self._world.keys.get(token)
            if key is None:
                raise FakeError("API_KEY_INVALID", "The API key is not known here. Check it, or create a new one.")
            now_us = self._world.clock.now_us()
            state = key.state_at(now_us)
        if state == account_service_pb2.API_KEY_STATE_REVOKED:
            raise FakeError("API_KEY_REVOKED", "The API key was revoked. Use another one.")
        if state == account_service_pb2.API_KEY_STATE_EXPIRED:
            raise FakeError("API_KEY_EXPIRED", "The API key has expired. Use another one.")
        key.last_use_us = now_us
        return key.account_id, key.api_key_id


def _behavior_of(method: MethodDescriptor, implementations: Sequence[object]) -> Behavior:
    """What serves a method; nobody is admitted to those that services call among themselves, so nothing does."""
    name = _snake(method.name)
    behaviors = [getattr(one, name) for one in implementations if hasattr(one, name)]
    if not behaviors and method.name not in _INTERNAL:
        raise AssertionError(f"the fake has no {method.full_name}")
    return behaviors[0] if behaviors else lambda *_: None


def _bearer(context: grpc.ServicerContext) -> str:
    for name, value in context.invocation_metadata():
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return token.strip()
            break
    raise FakeError("API_KEY_MISSING", "The call carries no API key. Send the metadata `authorization: Bearer fs_…`.")


def _encode(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
