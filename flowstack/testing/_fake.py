"""The fake itself: a gRPC server on loopback, in a thread of the user's process."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from flowstack_protos.router.v1 import router_service_pb2

from flowstack import _methods
from flowstack._methods import BidiStream, Method, RouterService, ServerStream
from flowstack.testing._billing import FakeAlerts, FakeSubscriptions, FakeUsage
from flowstack.testing._quota import PLANS, Account, open_account
from flowstack.testing._refusal import Refusal, invalid
from flowstack.testing._router import FakeRouter
from flowstack.testing._vault import FakeVault

if TYPE_CHECKING:
    from flowstack._agent import Agent

T = TypeVar("T")


class FakeFlowStack:
    """FlowStack in the process of a test. A context manager.

    Quotas, concurrent sessions, cancellation, request_ids, tools and the vault follow the rules of the real services;
    one test suite runs over both. Providers say what was scripted with `say`, else they echo the last user message,
    and take the simulator's labels `echo.words`, `echo.delay_ms`, `echo.tool` and `echo.fail_after`. Methods that no
    agent calls answer NotSupportedError, and no webhook is ever called.

    Args:
        plan: of the account that it begins with.

    Attributes:
        endpoint: for `Agent(endpoint=…)` or FLOWSTACK_ENDPOINT.
        api_key: the first account's key.

    Raises:
        ValueError: no plan of that name.
    """

    def __init__(self, plan: str = "starter") -> None:
        self._accounts: dict[str, Account] = {}
        self._router = FakeRouter()
        self._servicers: dict[str, Any] = {
            "RouterService": self._router,
            "VaultService": FakeVault(),
            "UsageService": FakeUsage(),
            "SubscriptionService": FakeSubscriptions(),
            "AlertService": FakeAlerts(),
        }
        account = open_account(plan)
        self.api_key = _new_key()
        self._accounts[self.api_key] = account
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flowstack-fake", daemon=True)
        self._thread.start()
        self._server, port = self._run(self._start())
        self.endpoint = f"127.0.0.1:{port}"

    def account(self, plan: str) -> str:
        """Opens another account; answers its key.

        Raises:
            ValueError: no plan of that name.
        """
        key = _new_key()
        account = open_account(plan)
        self._do(lambda: self._accounts.__setitem__(key, account))
        return key

    def agent(self, name: str = "test-agent", **options: Any) -> Agent:
        """An agent of the first account; `options` are Agent's."""
        from flowstack._agent import Agent

        return Agent(name, self.api_key, endpoint=self.endpoint, **options)

    def say(self, *answers: str) -> None:
        """Scripts what the next sessions answer, in order, whatever they ask."""
        self._do(lambda: self._router.scripted.extend(answers))

    @property
    def requests(self) -> list[router_service_pb2.CompleteRequest]:
        """The requests that reserved a session so far, oldest first, without credentials."""
        return self._do(lambda: list(self._router.requests))

    def change_plan(self, plan: str, api_key: str | None = None) -> None:
        """Changes an account's plan: an upgrade at once, a downgrade with the next period."""
        self._do(lambda: self._accounts[api_key or self.api_key].change_plan(PLANS[plan]))

    def next_period(self, api_key: str | None = None) -> None:
        """Begins an account's next period: counts start at zero."""
        self._do(self._accounts[api_key or self.api_key].next_period)

    def close(self) -> None:
        """Stops. Running sessions are cancelled. Repeatable."""
        if self._loop.is_closed():
            return
        self._run(self._server.stop(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> FakeFlowStack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, action: Callable[[], T]) -> T:
        """Does something in the loop, which owns all state."""

        async def run() -> T:
            return action()

        return self._run(run())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    async def _start(self) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 16 * 1024 * 1024),
                ("grpc.max_send_message_length", 16 * 1024 * 1024),
            ]
        )
        for service in _services():
            handlers = {name: self._handler(method) for name, method in vars(service).items() if _is_method(method)}
            path = next(method.path for method in vars(service).values() if _is_method(method))
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(path.split("/")[1], handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    def _handler(self, method: Method[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        options = {"request_deserializer": method.request.FromString, "response_serializer": method.serialize}
        if isinstance(method, BidiStream):
            return grpc.stream_stream_rpc_method_handler(self._chat, **options)
        if isinstance(method, ServerStream):
            serve = self._complete if method is RouterService.Complete else _unsupported_stream
            return grpc.unary_stream_rpc_method_handler(serve, **options)
        return grpc.unary_unary_rpc_method_handler(self._unary(method), **options)

    def _unary(self, method: Method[Any, Any]) -> Any:
        _, service, name = method.path.split("/")
        servicer = self._servicers.get(service.rsplit(".", 1)[1])
        action = getattr(servicer, name, None)

        async def serve(request: Any, context: Any) -> Any:
            try:
                account = self._authenticate(context)
                if action is None:
                    raise _unsupported()
                return await action(account, request)
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.message, refusal.trailing())

        return serve

    async def _complete(self, request: router_service_pb2.CompleteRequest, context: Any) -> AsyncIterator[Any]:
        async for event in self._session(context, request, None):
            yield event

    async def _chat(self, messages: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        first = await anext(aiter(messages), None)
        if first is None or not first.HasField("start"):
            refusal = invalid("start", "the first message has to be start")
            await context.abort(refusal.code, refusal.message, refusal.trailing())
        async for event in self._session(context, first.start, aiter(messages)):  # type: ignore[union-attr]
            yield event

    async def _session(
        self, context: Any, request: router_service_pb2.CompleteRequest, messages: AsyncIterator[Any] | None
    ) -> AsyncIterator[Any]:
        events = None
        try:
            events = self._router.complete(self._authenticate(context), request, messages)
            async for event in events:
                yield event
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.message, refusal.trailing())
        finally:
            if events is not None:
                await events.aclose()  # type: ignore[attr-defined]  # a generator: its session ends now

    def _authenticate(self, context: Any) -> Account:
        header = dict(context.invocation_metadata()).get("authorization", "")
        account = self._accounts.get(str(header).removeprefix("Bearer "))
        if account is None:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID", "The API key is not known to this fake.")
        return account


def _new_key() -> str:
    return f"fs_{uuid.uuid4().hex}{uuid.uuid4().hex}"[:78]


def _services() -> list[type]:
    return [one for name, one in vars(_methods).items() if name.endswith("Service") and isinstance(one, type)]


def _is_method(value: object) -> bool:
    return isinstance(value, Method)


def _unsupported() -> Refusal:
    return Refusal(grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_AVAILABLE", "The fake does not offer this method.")


async def _unsupported_stream(_request: Any, context: Any) -> AsyncIterator[Any]:
    refusal = _unsupported()
    await context.abort(refusal.code, refusal.message, refusal.trailing())
    yield  # makes it a stream
