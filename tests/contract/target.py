"""What the contract tests call: the public services at some address, told apart by nothing but that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from flowstack_protos.billing.v1.account_service_pb2_grpc import AccountServiceStub
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceStub
from flowstack_protos.billing.v1.audit_service_pb2_grpc import AuditServiceStub
from flowstack_protos.billing.v1.invoice_service_pb2_grpc import InvoiceServiceStub
from flowstack_protos.billing.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from flowstack_protos.billing.v1.usage_service_pb2_grpc import UsageServiceStub
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.router.v1.router_service_pb2_grpc import RouterServiceStub
from flowstack_protos.vault.v1.vault_service_pb2_grpc import VaultServiceStub
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from flowstack.testing import FakeFlowStack
from tests.support.suite import CALL_SECONDS, Metadata, bearer, completion, running_suite
from tests.support.threads import in_thread


@dataclass(frozen=True)
class Customer:
    """An account, called with its key."""

    target: Target
    account_id: str
    secret: str

    @property
    def metadata(self) -> Metadata:
        """What each call carries."""
        return bearer(self.secret)

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Calls a method of one of the target's stubs."""
        return method(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def complete(self, text: str = "Hello there", **fields: Any) -> Any:
        """A completion's stream."""
        return self.call(self.target.router.Complete, completion(text, **fields))

    def chat(self, requests: Iterable[router.ChatRequest]) -> Any:
        """A chat's stream."""
        return self.call(self.target.router.Chat, iter(requests))

    def usage(self) -> usage.Usage:
        """Where the account stands."""
        return self.call(self.target.usage.GetUsage, usage.GetUsageRequest()).usage

    def usage_once(self, is_there: Callable[[usage.Usage], bool]) -> usage.Usage:
        """The usage once it is as expected; each read is answered anew, and the test's own time limit ends it."""
        while not is_there(found := self.usage()):
            pass
        return found


class Target:
    """The public services."""

    def __init__(self, *, router: grpc.Channel, billing: grpc.Channel, vault: grpc.Channel, admin_token: str) -> None:
        self.router = RouterServiceStub(router)
        self.accounts = AccountServiceStub(billing)
        self.subscriptions = SubscriptionServiceStub(billing)
        self.usage = UsageServiceStub(billing)
        self.invoices = InvoiceServiceStub(billing)
        self.audit = AuditServiceStub(billing)
        self.alerts = AlertServiceStub(billing)
        self.vault = VaultServiceStub(vault)
        self.admin = bearer(admin_token)

    def operate(self, method: Callable[..., Any], request: Any) -> Any:
        """Calls a method as the operator."""
        return method(request, metadata=self.admin, timeout=CALL_SECONDS)

    def open_account(self, plan_id: str = "free") -> Customer:
        """A new account with a key."""
        request = accounts.CreateAccountRequest(display_name="C", email="c@example.com", plan_id=plan_id)
        created = self.operate(self.accounts.CreateAccount, request)
        assert created.entitlement_applied
        account_id = created.account.account_id
        wanted = accounts.CreateApiKeyRequest(account_id=account_id, display_name="c")
        key = self.operate(self.accounts.CreateApiKey, wanted)
        return Customer(self, account_id, key.secret)


ECHO_USD = (2, 10)
"""What the simulator costs here, dollars for a million input tokens and for a million output tokens."""


@contextmanager
def fake_target(_: Path) -> Iterator[Target]:
    """The fake."""
    with FakeFlowStack(prices={("echo", "default"): ECHO_USD}) as fake, grpc.insecure_channel(fake.endpoint) as channel:
        yield Target(router=channel, billing=channel, vault=channel, admin_token=fake.admin_token)


@contextmanager
def services_target(folder: Path) -> Iterator[Target]:
    """The services, each a process of its own."""
    prices = folder / "prices.toml"
    prices.write_text(
        'version = "contract-1"\n[[prices]]\nprovider = "echo"\nmodel = "echo-1"\n'
        f'input_usd_per_million_tokens = "{ECHO_USD[0]}"\noutput_usd_per_million_tokens = "{ECHO_USD[1]}"\n'
    )
    with in_thread(lambda: running_suite(folder, FLOWSTACK_BILLING_PRICES_FILE=str(prices))) as suite:
        settings = suite.settings
        with (
            grpc.insecure_channel(settings.router_address) as router,
            grpc.insecure_channel(settings.billing_address) as billing,
            grpc.insecure_channel(settings.vault_address) as vault,
        ):
            token = settings.admin_tokens()[0].reveal()
            yield Target(router=router, billing=billing, vault=vault, admin_token=token)


TARGETS = {"fake": fake_target, "services": services_target}


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    """The code and the ErrorInfo of a call that has to fail; a stream fails while it is read."""
    try:
        answered = call()
        if isinstance(answered, grpc.RpcContext):
            list(answered)  # type: ignore[call-overload]  # a stream
    except grpc.RpcError as error:
        return error.code(), info_of(error)  # type: ignore[attr-defined]  # a call, as every error of a stub is
    raise AssertionError(f"the call was answered: {answered}")


def details_of(error: Any) -> list[Any]:
    """The details of an error, each unpacked."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    found = []
    for packed in status.details:
        message = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(message)
        found.append(message)
    return found


def info_of(error: Any) -> error_details_pb2.ErrorInfo:
    """The error's ErrorInfo."""
    info = details_of(error)[0]
    assert info.domain == "flowstack"
    return info


def kinds(events: Iterable[router.CompletionEvent]) -> list[str]:
    """What kinds of events these are."""
    return [str(event.WhichOneof("event")) for event in events]


def text_of(events: Iterable[router.CompletionEvent]) -> str:
    """The text of a stream."""
    return "".join(event.text_delta for event in events)
