"""gRPC without a network: the channels and servers of simulated hosts, and what happens to messages between them.

Messages are really serialised, and the servicers run behind the real interceptor. Within a call messages keep their
order in each direction; calls overtake one another. A link can be slow, dead in one direction without an end, or cut;
what was on its way when it was cut is lost, arrives late, or arrives again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc

from tests.support.simulation_loop import Life, SimulatedLoop

Metadata = tuple[tuple[str, str | bytes], ...]
GHOSTS_KEPT: Final = 4
"""How many messages of a stream are sent again where a cut makes them arrive twice."""


class Status(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()

    def error(self) -> grpc.aio.AioRpcError:
        """What a client sees."""
        return grpc.aio.AioRpcError(self.code, (), self.trailing, self.details)  # type: ignore[arg-type]


OK: Final = Status(grpc.StatusCode.OK)
RESET: Final = Status(grpc.StatusCode.UNAVAILABLE, "the connection was reset")
REFUSED: Final = Status(grpc.StatusCode.UNAVAILABLE, "the connection was refused")
CANCELLED: Final = Status(grpc.StatusCode.CANCELLED, "cancelled by the client")
LATE: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")


@dataclass
class Link:
    """The way from one host to another."""

    latency_s: float = 0.0005
    slow: float = 0.0
    """How often a message takes long, 0 to 1."""
    dead: set[str] = field(default_factory=set)
    """Directions in which nothing arrives for now: `to server`, `to client`."""
    partitioned: bool = False
    """New connections are refused."""
    held: list[Callable[[], None]] = field(default_factory=list)
    calls: dict[int, Wire] = field(default_factory=dict)


class Network:
    """All links, and who listens."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.random = random.Random(f"network {seed}")
        self.links: dict[str, Link] = {}
        self.ghosts = 0.0
        """How often what was sent before a cut arrives again, 0 to 1."""
        self._server: Server | None = None
        self._arrivals: list[asyncio.Future[None]] = []
        self._number = 0

    def link(self, client: str) -> Link:
        """The link of a client to the server."""
        return self.links.setdefault(client, Link())

    def listen(self, server: Server) -> None:
        """The server takes calls until its process dies."""
        self._server = server
        server.life.on_end(lambda: self._died(server))
        arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            if not arrival.done():
                arrival.set_result(None)

    def server(self) -> Server | None:
        """Who listens now."""
        return self._server

    async def listening(self, link: Link) -> Server:
        """Waits until somebody listens and can be reached."""
        while True:
            if self._server is None:
                arrival = self.loop.create_future()
                self._arrivals.append(arrival)
                await arrival
            elif link.partitioned or link.dead:
                await asyncio.sleep(0.05 + self.random.random() * 0.1)
            else:
                return self._server

    def delay_s(self, link: Link) -> float:
        """How long a message takes."""
        if self.random.random() < link.slow:
            return self.random.random() * 4
        return link.latency_s * (0.5 + self.random.random())

    def number(self) -> int:
        """The next call's."""
        self._number += 1
        return self._number

    def cut(self, client: str) -> None:
        """Resets every connection of a client."""
        link = self.link(client)
        self.loop.note(f"cut of {client}, {len(link.calls)} calls")
        for wire in list(link.calls.values()):
            wire.cut()

    def kill_direction(self, client: str, direction: str) -> None:
        """Nothing arrives in this direction any more, and nobody is told."""
        self.loop.note(f"{client} is dead {direction}")
        self.link(client).dead.add(direction)

    def mend(self, client: str) -> None:
        """Everything arrives again, what was held back first."""
        link = self.link(client)
        link.dead.clear()
        link.partitioned = False
        held, link.held = link.held, []
        for deliver in held:
            self.loop.outside(self.delay_s(link), deliver)

    def _died(self, server: Server) -> None:
        if self._server is server:
            self._server = None
        for link in self.links.values():
            for wire in list(link.calls.values()):
                if wire.server_call is not None and wire.server_call.server is server:
                    wire.end_for_client(RESET)


class Pipe:
    """One direction of one call: in order, each message after its own delay."""

    def __init__(self, network: Network, link: Link, direction: str, deliver: Callable[[Any], None]) -> None:
        self._network = network
        self._link = link
        self._direction = direction
        self._deliver = deliver
        self._items: deque[Any] = deque()
        self.closed = False

    def send(self, item: Any) -> None:
        """Sends; it arrives later or, where the call breaks before, never."""
        self._items.append(item)
        self._network.loop.outside(self._network.delay_s(self._link), self._arrive)

    def _arrive(self) -> None:
        if self.closed or not self._items:
            return
        if self._direction in self._link.dead:
            self._link.held.append(self._arrive)
            return
        self._deliver(self._items.popleft())

    def flush(self) -> None:
        """Delivers all that is on its way, now."""
        while self._items:
            self._deliver(self._items.popleft())


class Wire:
    """One call between a client and a server."""

    def __init__(self, network: Network, link: Link, method: str, call: ClientCall) -> None:
        self.network = network
        self.link = link
        self.method = method
        self.call = call
        self.number = network.number()
        self.server_call: ServerCall | None = None
        self.sent: deque[bytes] = deque(maxlen=GHOSTS_KEPT)
        self.to_server = Pipe(network, link, "to server", self._at_server)
        self.to_client = Pipe(network, link, "to client", self._at_client)
        link.calls[self.number] = self

    def _at_server(self, item: Any) -> None:
        if self.server_call is None:
            server = self.network.server()
            if server is None or not server.life.alive:
                self.end_for_client(REFUSED)
                return
            self.server_call = ServerCall(server, self.method, self.to_client.send, self.call.metadata)
        self.server_call.receive(item)

    def _at_client(self, item: Any) -> None:
        self.call.receive(item)
        if isinstance(item, Status):
            self.close()

    def end_for_client(self, status: Status) -> None:
        """The client learns that the call broke: after what was on its way to it, or in its place."""
        self.link.calls.pop(self.number, None)
        if self.network.random.random() < 0.5:
            self.to_client.send(status)
            return
        self.to_client.closed = True
        Pipe(self.network, self.link, "to client", self._at_client).send(status)

    def cut(self) -> None:
        """Breaks the call at both ends, each at its own time; what was on its way may still arrive, or arrive twice."""
        random = self.network.random
        self.end_for_client(RESET)
        if random.random() < 0.5:
            self.to_server.closed = True
        if self.sent and random.random() < self.network.ghosts:
            self.network.loop.outside(random.random() * 8, self._haunt, list(self.sent))
        self.network.loop.outside(random.random() * 0.5, self._end_for_server)

    def _end_for_server(self) -> None:
        self.to_server.closed = True
        if self.server_call is not None:
            self.server_call.end()

    def _haunt(self, messages: list[bytes]) -> None:
        """What was sent before the cut reaches the server once more, on a connection that nobody listens to."""
        server = self.network.server()
        if server is not None and server.life.alive:
            self.network.loop.note(f"{len(messages)} messages of {self.method.rpartition('/')[2]} arrive again")
            ghost = ServerCall(server, self.method, lambda _: None, self.call.metadata)
            for message in messages:
                ghost.receive(message)
            ghost.receive(None)

    def close(self) -> None:
        """The client has its answer, or wants none."""
        self.link.calls.pop(self.number, None)

    def client_died(self) -> None:
        """The client's process is gone; the server learns of it later."""
        self.close()
        self.to_client.closed = True
        self.network.loop.outside(self.network.delay_s(self.link), self._end_for_server)


class ServerCall:
    """A call at the server: its handler runs in a task of the server's process."""

    def __init__(self, server: Server, method: str, reply: Callable[[Any], None], metadata: Metadata) -> None:
        self.server = server
        self._reply = reply
        self._requests: deque[bytes | None] = deque()
        self._wake: asyncio.Future[None] | None = None
        self.metadata = metadata
        self.aborted: Status | None = None
        self._task = server.life.start(self._run(server.handlers[method]))

    def receive(self, item: bytes | None) -> None:
        """A message, or None for the client's half-close."""
        self._requests.append(item)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def end(self) -> None:
        """The client is gone: the request stream ends and the handler is cancelled, as grpc.aio does."""
        self.receive(None)
        if self.server.life.alive:
            self.server.life.run(self._task.cancel)

    async def _next(self) -> bytes | None:
        while not self._requests:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._requests.popleft()

    async def _stream(self, decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while (message := await self._next()) is not None:
            yield decode(message)

    async def _run(self, handler: Any) -> None:
        try:
            await self._handle(handler)
        except grpc.aio.AbortError:
            assert self.aborted is not None
            self._reply(self.aborted)
        except Exception as error:
            self._reply(Status(grpc.StatusCode.UNKNOWN, type(error).__name__))
        else:
            self._reply(OK)

    async def _handle(self, handler: Any) -> None:
        context, encode = Context(self), handler.response_serializer
        request: Any = self._stream(handler.request_deserializer)
        if not handler.request_streaming:
            message = await self._next()
            if message is None:
                return
            request = handler.request_deserializer(message)
        if not handler.response_streaming:
            self._reply(encode(await handler.unary_unary(request, context)))
            return
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        async for response in behaviour(request, context):
            self._reply(encode(response))


class Context:
    """What a handler is told of its call."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def time_remaining(self) -> float | None:
        """A deadline ends the call at the client here, which cancels the handler."""
        return 60.0

    def invocation_metadata(self) -> Metadata:
        """What came with the call."""
        return self._call.metadata

    def peer_identities(self) -> None:
        """Nobody shows a certificate."""

    async def abort_with_status(self, status: Any) -> None:
        """Ends the call with an error."""
        self._call.aborted = Status(status.code, status.details, tuple(status.trailing_metadata))
        raise grpc.aio.AbortError


class Server:
    """Takes handlers as grpc.aio.Server does."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """The registered ones are used."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """A service's methods by name."""
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


class FakeChannel:
    """A channel of one host, whose stubs are the generated ones."""

    def __init__(self, network: Network, life: Life, client: str) -> None:
        self._network = network
        self._life = life
        self._link = network.link(client)

    def unary_unary(self, method: str, **codec: Any) -> Callable[..., UnaryCall]:
        """A method with one request and one response."""

        def call(request: Any, **options: Any) -> UnaryCall:
            return UnaryCall(self._call(method, codec, **options), request)

        return call

    def unary_stream(self, method: str, **codec: Any) -> Callable[..., StreamCall]:
        """A method that streams responses."""

        def call(request: Any, **options: Any) -> StreamCall:
            stream = StreamCall(self._call(method, codec, **options))
            stream.inner.send(request)
            stream.inner.half_close()
            return stream

        return call

    def stream_stream(self, method: str, **codec: Any) -> Callable[..., StreamCall]:
        """A method that streams both ways."""
        return lambda **options: StreamCall(self._call(method, codec, **options))

    def stream_unary(self, method: str, **_: Any) -> None:
        """Quota has none."""

    def _call(self, method: str, codec: Mapping[str, Any], **options: Any) -> ClientCall:
        return ClientCall(self._network, self._link, self._life, method, codec, **options)

    async def close(self) -> None:
        """Nothing is held."""


class ClientCall:
    """A call at the client, under every kind of method."""

    def __init__(
        self,
        network: Network,
        link: Link,
        life: Life,
        method: str,
        codec: Mapping[str, Any],
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
        wait_for_ready: bool = False,
    ) -> None:
        self.metadata = metadata
        self.status: Status | None = None
        self._encode, self._decode = codec["request_serializer"], codec["response_deserializer"]
        self._received: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._outbox: list[bytes | None] = []
        self._wire: Wire | None = None
        self.connected = asyncio.Event()
        loop = network.loop
        self._connecting = loop.create_task(self._connect(network, link, method, wait_for_ready))
        self._life = life
        life.on_end(self._died)
        if timeout is not None:
            loop.call_later(timeout, self._finish, LATE)

    async def _connect(self, network: Network, link: Link, method: str, wait_for_ready: bool) -> None:
        await asyncio.sleep(network.delay_s(link))
        if wait_for_ready:
            await network.listening(link)
        elif network.server() is None or link.partitioned:
            self._finish(REFUSED)
            return
        self._wire = Wire(network, link, method, self)
        for item in self._outbox:
            self._put(self._wire, item)
        self.connected.set()

    def _put(self, wire: Wire, item: bytes | None) -> None:
        if item is not None:
            wire.sent.append(item)
        wire.to_server.send(item)

    def send(self, message: Any) -> None:
        """Sends a message, once there is a connection."""
        self._push(self._encode(message))

    def half_close(self) -> None:
        """Sends nothing more."""
        self._push(None)

    def _push(self, item: bytes | None) -> None:
        if self._wire is None:
            self._outbox.append(item)
        else:
            self._put(self._wire, item)

    def receive(self, item: bytes | Status) -> None:
        """From the wire: a message, or the end."""
        if isinstance(item, Status):
            self._finish(item)
        elif self.status is None:
            self._received.append(item)
            self._wake_up()

    def cancel(self) -> bool:
        """Ends the call here and now; the server learns of it later."""
        if self.status is not None:
            return False
        self._finish(CANCELLED)
        return True

    def _finish(self, status: Status) -> None:
        if self.status is not None:
            return
        self.status = status
        self._life.off_end(self._died)
        self._connecting.cancel()
        self.connected.set()
        if self._wire is not None and status in (CANCELLED, LATE):
            self._wire.client_died()
        self._wake_up()

    def _died(self) -> None:
        if self._wire is not None:
            self._wire.client_died()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def read(self) -> Any:
        """The next message; None at the end of a call that ended well.

        Raises:
            AioRpcError: it ended otherwise.
            CancelledError: it was cancelled here.
        """
        while not self._received:
            if self.status is not None:
                self.raise_for_status()
                return None
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._decode(self._received.popleft())

    def raise_for_status(self) -> None:
        """Raises what the call ended with, unless it ended well."""
        assert self.status is not None
        if self.status is CANCELLED:
            raise asyncio.CancelledError
        if self.status.code is not grpc.StatusCode.OK:
            raise self.status.error()


class UnaryCall:
    """As grpc.aio.UnaryUnaryCall, as far as the clients use it."""

    def __init__(self, inner: ClientCall, request: Any) -> None:
        self._inner = inner
        inner.send(request)
        inner.half_close()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            answer = await self._inner.read()
            await self._inner.read()
        except asyncio.CancelledError:
            self._inner.cancel()
            raise
        return answer

    def cancel(self) -> bool:
        """Ends the call."""
        return self._inner.cancel()


class StreamCall:
    """As grpc.aio's streaming calls, as far as the clients use them."""

    def __init__(self, inner: ClientCall) -> None:
        self.inner = inner

    async def wait_for_connection(self) -> None:
        """Waits until the call is on its way."""
        await self.inner.connected.wait()
        if self.inner.status is not None:
            self.inner.raise_for_status()

    async def write(self, message: Any) -> None:
        """Sends a message."""
        if self.inner.status is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        self.inner.send(message)
        await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.inner.read()) is not None:
            yield message

    def cancel(self) -> bool:
        """Ends the call."""
        return self.inner.cancel()
