"""A router on a real port, with a fake quota and a faulty provider behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from flowstack_protos.router.v1 import router_service_pb2 as pb
from flowstack_protos.router.v1 import router_service_pb2_grpc as pb_grpc
from flowstack_protos.type.v1 import type_pb2

from services.router.adapters.quota_client import QuotaClient
from services.router.catalog import Catalog, Model, ProviderEntry
from services.router.domain.request import OpenAiCredentials
from services.router.limits import SessionLimits
from services.router.lineup import Lineup
from services.router.providers.echo import EchoProvider
from services.router.providers.openai import OpenAiProvider, OpenAiSettings
from services.router.providers.port import Provider, Timeouts
from services.router.resolver import Resolver
from services.router.service import RouterService
from services.router.servicer import POLICIES, RouterServicer
from services.shared.auth import Authenticator, Caller, CallerKind
from services.shared.clock import SystemClock
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from services.shared.server import Port, Registration, ServiceHost
from services.shared.settings import CommonSettings, load
from services.shared.status import error_from_rpc
from tests.support.bedrock_dialect import REGION
from tests.support.dialects import Dialect
from tests.support.fake_quota import FakeQuota, channel_to
from tests.support.fault_server import FaultServer
from tests.support.keys import BYOK, MANAGED, byok_of

API_KEY = "fs_test_0123456789abcdef"
BYOK_KEY = BYOK["openai"][0]
MANAGED_KEY = MANAGED["openai"][0]
METADATA = (("authorization", f"Bearer {API_KEY}"),)
ACCOUNT = "acct_1"


@dataclass
class RouterUnderTest:
    """Everything that a test looks at."""

    service: RouterService
    quota: FakeQuota
    upstream: FaultServer
    stub: Any
    sleeps: Sleeps
    port: int

    def complete(self, request: pb.CompleteRequest) -> Any:
        """The running call."""
        return self.stub.Complete(request, metadata=METADATA, timeout=30)

    def chat(self) -> Any:
        """The running call."""
        return self.stub.Chat(metadata=METADATA, timeout=30)

    async def events(self, request: pb.CompleteRequest) -> list[pb.CompletionEvent]:
        """Every event of a stream that ends well."""
        return [event async for event in self.complete(request)]

    async def failure(self, request: pb.CompleteRequest) -> tuple[list[pb.CompletionEvent], FlowStackError]:
        """The events before a stream's error, and the error."""
        return await drained(self.complete(request))

    async def until_opened(self, count: int) -> None:
        """Waits until so many chats are open without a first message."""
        async with asyncio.timeout(20):
            while self.service.opened < count:
                await asyncio.sleep(0)

    async def settled(self) -> None:
        """Waits until no session runs and nothing is left to resolve."""
        async with asyncio.timeout(20):
            while self.service.running:
                await asyncio.wait(set(self.service._running))
        await self.service.resolver.idle(20)


class Sleeps:
    """The simulator's pauses, held until a test lets one pass."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(0)
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, _: float) -> None:
        self.begun.release()
        await self._gate.acquire()

    def pass_(self, count: int = 1) -> None:
        for _ in range(count):
            self._gate.release()


async def read_into(events: list[pb.CompletionEvent], call: Any) -> list[pb.CompletionEvent]:
    """Reads a call to its end, by `read`, which goes with the writes of a chat."""
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


async def drained(call: Any) -> tuple[list[pb.CompletionEvent], FlowStackError]:
    """Reads a call to its error."""
    events: list[pb.CompletionEvent] = []
    try:
        await read_into(events, call)
    except grpc.aio.AioRpcError as error:
        found = error_from_rpc(error)
        if found is None:
            raise
        return events, found
    raise AssertionError(f"the stream ended well: {events}")


async def authenticate(key: Secret) -> Caller:
    if key.reveal() != API_KEY:
        raise FlowStackError(Reason.API_KEY_INVALID, "Not a key.")
    return Caller(CallerKind.CUSTOMER, ACCOUNT, "key_1")


@asynccontextmanager
async def running_router(
    quota: FakeQuota,
    upstream: FaultServer,
    *,
    limits: SessionLimits | None = None,
    stall_s: float = 30.0,
    quota_answer_s: float = 2.0,
    openai_url: str | None = None,
    options: Sequence[tuple[str, int]] = (),
) -> AsyncIterator[RouterUnderTest]:
    """Starts a router, and checks afterwards that it leaves no task behind."""
    before = asyncio.all_tasks()
    channel = channel_to(quota.address)
    client = QuotaClient(channel, answer_s=quota_answer_s)
    await client.start()
    sleeps = Sleeps()
    timeouts = Timeouts(connect_s=5, stall_s=stall_s)
    managed = OpenAiCredentials(Secret(MANAGED_KEY))
    providers: dict[str, Provider] = {
        "echo": EchoProvider(sleeps),
        "openai": OpenAiProvider(
            OpenAiSettings(base_url=openai_url or upstream.url, managed=managed, timeouts=timeouts)
        ),
    }
    dialect = upstream.dialect
    providers["backup"] = dialect.provider(upstream.root, stall_s=stall_s)
    if dialect.name != "openai":
        providers[dialect.name] = dialect.provider(upstream.root, stall_s=stall_s)
    # One for which the operator has no credentials.
    providers["bare"] = OpenAiProvider(OpenAiSettings(base_url=upstream.url, timeouts=timeouts))
    catalog = Catalog(
        {
            "echo": ProviderEntry("echo", "echo", models={"echo-1": Model("echo-1")}),
            "openai": ProviderEntry(
                "openai",
                "openai",
                models={"gpt-4o": Model("gpt-4o", ("best",), max_output_tokens=16_384)},
                aliases={"best": "gpt-4o"},
            ),
            "backup": ProviderEntry("backup", dialect.name, any_model=True),
            "bare": ProviderEntry("bare", "openai", any_model=True),
            **({} if dialect.name == "openai" else {dialect.name: _speaks(dialect.name)}),
        }
    )
    clock = SystemClock()
    service = RouterService(
        quota=client,
        lineup=Lineup(catalog, providers, frozenset({"openai", "backup", dialect.name})),
        clock=clock,
        limits=limits or SessionLimits(),
        resolver=Resolver(client, clock),
    )
    registration = Registration(
        pb.DESCRIPTOR.services_by_name["RouterService"],
        pb_grpc.add_RouterServiceServicer_to_server,
        RouterServicer(service),
        POLICIES,
    )
    listening = Port(
        "127.0.0.1:0",
        "FLOWSTACK_ROUTER_ADDRESS",
        (registration,),
        lambda policies: Authenticator(policies, authenticate_key=authenticate),
        options=options,
    )
    host = ServiceHost("router", load(CommonSettings, admin_port_base=0), (listening,))
    await host.start()
    port = host.bound_ports[0]
    caller = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.use_local_subchannel_pool", 1),))
    router = RouterUnderTest(service, quota, upstream, pb_grpc.RouterServiceStub(caller), sleeps, port)
    try:
        yield router
        await router.settled()
    finally:
        await caller.close()
        await service.drain(0)
        await host.drain(0)
        await client.close()
        for provider in providers.values():
            await provider.aclose()
        await channel.close()
    await _no_tasks_left(before)


def _speaks(name: str) -> ProviderEntry:
    return ProviderEntry(name, name, any_model=True, regions=(REGION,) if name == "bedrock" else ())


async def _no_tasks_left(before: set[asyncio.Task[Any]]) -> None:
    """Only grpc's own poller may stay; the rest has to end by itself."""
    for _ in range(100):
        left = {task for task in asyncio.all_tasks() - before if "services" in repr(task.get_coro())}
        if not left:
            return
        await asyncio.wait(left, timeout=0.1)
    raise AssertionError(f"tasks left: {left}")


def user(text: str) -> pb.Message:
    return pb.Message(role=pb.MESSAGE_ROLE_USER, content=[pb.ContentPart(text=text)])


def echo_request(text: str = "one two three", **labels: str) -> pb.CompleteRequest:
    return pb.CompleteRequest(
        provider="echo",
        model="echo-1",
        messages=[user(text)],
        tools=[pb.Tool(name="look")] if "echo.tool" in labels else [],
        labels=labels,
    )


def openai_request(text: str = "hello", *, byok: bool = True, **fields: Any) -> pb.CompleteRequest:
    key = [pb.ByokCredentials(openai=pb.OpenAiCredentials(api_key=BYOK_KEY))] if byok else []
    return pb.CompleteRequest(provider="openai", model="gpt-4o", messages=[user(text)], byok=key, **fields)


def request_to(dialect: Dialect, text: str = "hello", *, byok: bool = True, **fields: Any) -> pb.CompleteRequest:
    """A request to the provider that the upstream speaks like."""
    key = [byok_of(dialect.name)] if byok else []
    return pb.CompleteRequest(provider=dialect.name, model=dialect.model, messages=[user(text)], byok=key, **fields)


def text_of(events: list[pb.CompletionEvent]) -> str:
    return "".join(event.text_delta for event in events)


def finished(events: list[pb.CompletionEvent]) -> pb.SessionFinished:
    assert events[-1].WhichOneof("event") == "session_finished"
    return events[-1].session_finished


def state_name(state: int) -> str:
    return type_pb2.SessionState.Name(state).removeprefix("SESSION_STATE_")
