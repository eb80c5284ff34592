"""Starts, serves and drains one service: its ports, health, reflection and the admin port."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import uvloop
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1._async import ChannelzServicer
from grpc_channelz.v1.channelz_pb2_grpc import add_ChannelzServicer_to_server
from grpc_health.v1 import health_pb2_grpc

from services.shared import health, log
from services.shared.addresses import UNIX, listening_problem, other_port
from services.shared.auth import Authenticator, Policy
from services.shared.interceptor import TRANSPORT_BYTES_MAX, Plain, RpcInterceptor, policies_without_rpc
from services.shared.reflection import METHODS as REFLECTION_METHODS
from services.shared.reflection import add_reflection
from services.shared.settings import CommonSettings, StartupError, is_loopback
from services.shared.tls import server_credentials

EXIT_STARTUP_FAILED: Final = 78
"""EX_CONFIG of sysexits.h: a supervisor must not try again."""

PARENT_PIPE_VARIABLE: Final = "FLOWSTACK_PARENT_PIPE"
"""Names a pipe's descriptor that a supervisor holds open; the service drains when it closes."""

PEERS_PIPE_VARIABLE: Final = "FLOWSTACK_PEERS_PIPE"
"""Names a pipe's descriptor that the supervisor and the services that need this one hold open. Where it is set, the
service outlives its supervisor until those have ended too."""

WORKER_VARIABLE: Final = "FLOWSTACK_WORKER"
"""The number of this process among the workers that share a port, from 0; not set for a process that is alone."""

READY_PIPE_VARIABLE: Final = "FLOWSTACK_READY_PIPE"
"""Names a pipe's descriptor to which a worker writes a byte once it serves."""

ORPHAN_SECONDS: Final = 30.0
"""How long a service whose supervisor is gone waits for those that need it."""

SERVICES: Final = ("router", "quota", "billing", "vault")
"""In the order of their admin ports, from FLOWSTACK_ADMIN_PORT_BASE up."""

DRAIN_GRACE_SECONDS: Final = 10.0
"""How long calls may run on after SIGTERM, where FLOWSTACK_DRAIN_GRACE_SECONDS and the service say nothing else."""

FLUSH_SECONDS: Final = 3.0
"""How long calls may run on once a service's own work has ended: enough to send what is left of them. A call that
never does anything must not hold a server for longer."""

GC_YOUNG_OBJECTS: Final = 20_000
SWITCH_SECONDS: Final = 0.001

_COMMON_OPTIONS: Final = (
    ("grpc.max_receive_message_length", TRANSPORT_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

# Without this a second server would bind a taken port and silently take half of its calls.
OPTIONS: Final = (*_COMMON_OPTIONS, ("grpc.so_reuseport", 0))
SHARED_OPTIONS: Final = (*_COMMON_OPTIONS, ("grpc.so_reuseport", 1))
"""Of a worker, which shares its port with the others."""

OPEN_POLICIES: Final = dict.fromkeys((*health.METHODS, *REFLECTION_METHODS), Policy.OPEN)
"""Of what stands on every port."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A service on a port."""

    descriptor: ServiceDescriptor
    add_to_server: Callable[[Any, Any], None]
    servicer: Any
    policies: Mapping[str, Policy]
    """By method name, `ReserveSession`: one for each method."""
    plain: Mapping[str, Plain] = field(default_factory=dict)
    """By method name, where there is one: a quick look that saves the rule engine; see interceptor.Plain."""

    def full_policies(self) -> dict[str, Policy]:
        """The policies by full method name.

        Raises:
            StartupError: a method without a policy, or a policy without a method.
        """
        methods = {method.name for method in self.descriptor.methods}
        missing, unknown = policies_without_rpc(self.policies, methods)
        if missing or unknown:
            raise StartupError(
                f"{self.descriptor.full_name}: no policy for {sorted(missing)}, no method for {sorted(unknown)}. "
                "Declare one policy for each RPC."
            )
        return {f"/{self.descriptor.full_name}/{name}": policy for name, policy in self.policies.items()}


@dataclass(frozen=True, slots=True)
class Port:
    """One listening address."""

    address: str
    setting: str
    """The variable that sets the address, for messages."""
    registrations: Sequence[Registration]
    authenticator: Callable[[Mapping[str, Policy]], Authenticator]
    """Makes the authenticator from the policies of all methods of the port."""
    internal: bool = False
    """Demands client certificates where TLS is configured."""
    options: Sequence[tuple[str, int]] = ()
    """gRPC's, beside those of every port."""


def worker_number() -> int | None:
    """Which of several workers this process is; None where it is alone."""
    number = os.environ.get(WORKER_VARIABLE)
    return None if number is None else int(number)


class ServiceHost:
    """One service's servers, from start to drain."""

    def __init__(
        self,
        name: str,
        settings: CommonSettings,
        ports: Sequence[Port],
        *,
        worker: int | None = None,
        on_drain: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Prepares to serve.

        Args:
            name: the service, one of SERVICES.
            settings: the service's.
            ports: what to listen on.
            worker: its number among the processes that share these ports; None where it is alone.
            on_drain: ends streams of the service's that would not end by themselves.
        """
        self._name = name
        self._worker = worker
        self._settings = settings
        self._ports = ports
        self._on_drain = on_drain
        self._servers: list[grpc.aio.Server] = []
        self._admin: grpc.aio.Server | None = None
        self._health = health.Health()
        self._closing = asyncio.Event()
        self._log = log.get_logger()
        self.bound_ports: list[int] = []
        """The port numbers that were bound, one for each of `ports`: of use where an address ends in `:0`."""
        self.admin_port = 0
        """The admin port's number, once it is bound."""

    async def start(self) -> None:
        """Binds and serves every port, the admin port included.

        Raises:
            StartupError: a port is taken or an address not allowed, or an RPC has no policy.
        """
        try:
            for port in self._ports:
                await self._serve(port)
            await self._serve_admin()
        except BaseException:
            await self._stop(0)
            raise
        self._health.serve(self._service_names())

    async def announce_drain(self) -> None:
        """Answers health checks with NOT_SERVING from now on, so that balancers look elsewhere."""
        self._health.announce_drain()

    async def drain(self, grace_s: float) -> None:
        """Answers health checks with NOT_SERVING, takes no new calls, and lets running ones finish.

        Streams of health and reflection would never finish: they are ended.
        """
        await self.announce_drain()
        self._health.close()
        self._closing.set()
        if self._on_drain is not None:
            await self._on_drain()
        await self._stop(grace_s)

    async def _stop(self, grace_s: float) -> None:
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        if self._admin is not None:
            # Nothing that it answers is work to wait for, and it answers for as long as the others run.
            await self._admin.stop(0)

    def _service_names(self) -> list[str]:
        return [r.descriptor.full_name for port in self._ports for r in port.registrations]

    async def _serve(self, port: Port) -> None:
        policies: dict[str, Policy] = dict(OPEN_POLICIES)
        for registration in port.registrations:
            policies |= registration.full_policies()
        shared = self._worker is not None
        server = grpc.aio.server(options=(*(SHARED_OPTIONS if shared else OPTIONS), *port.options))
        plain = {
            f"/{registration.descriptor.full_name}/{name}": look
            for registration in port.registrations
            for name, look in registration.plain.items()
        }
        guarded: Any = RpcInterceptor(server, port.authenticator(policies), plain=plain)
        names = []
        for registration in port.registrations:
            registration.add_to_server(registration.servicer, guarded)
            names.append(registration.descriptor.full_name)
        self._add_common(guarded, names, port.address)
        credentials = server_credentials(self._settings, port.address, port.setting, internal=port.internal)
        self.bound_ports.append(bind(server, port.address, port.setting, credentials, shared=shared))
        await server.start()
        self._servers.append(server)
        self._log.info("listening", address=port.address, port=self.bound_ports[-1])

    def _add_common(self, guarded: Any, names: Sequence[str], address: str) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        reflect = self._settings.reflection
        if is_loopback(address) if reflect is None else reflect:
            add_reflection(guarded, [*names, health.NAME], self._closing)

    async def _serve_admin(self) -> None:
        """Channelz and health, in plaintext on loopback only; a worker's port is its own."""
        base = self._settings.admin_port_base
        place = SERVICES.index(self._name) + len(SERVICES) * (self._worker or 0)
        address = f"127.0.0.1:{base + place if base else 0}"
        server = grpc.aio.server(options=OPTIONS)
        add_ChannelzServicer_to_server(ChannelzServicer(), server)
        guarded = RpcInterceptor(server, Authenticator(OPEN_POLICIES))
        self._add_common(guarded, ["grpc.channelz.v1.Channelz"], address)
        self.admin_port = bind(server, address, "FLOWSTACK_ADMIN_PORT_BASE", None)
        await server.start()
        self._admin = server


def bind(
    server: grpc.aio.Server,
    address: str,
    setting: str,
    credentials: grpc.ServerCredentials | None,
    *,
    shared: bool = False,
) -> int:
    """Binds `address` and returns the port number.

    Args:
        server: what is to listen.
        address: where.
        setting: the variable that sets the address, for messages.
        credentials: of TLS; None for plaintext.
        shared: whether other workers listen there too, so that it is no error when it is taken.

    Raises:
        StartupError: the port is taken, or the address is none of this machine's.
    """
    # gRPC gives no reason, and takes the file of a Unix socket away from a server that uses it.
    held: list[socket.socket] = []
    problem = None if shared else listening_problem(address, held)
    for one in held:
        one.close()
    if problem is not None:
        raise StartupError(cannot_listen(address, setting, problem))
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartupError(cannot_listen(address, setting, "somebody was faster")) from error


def cannot_listen(address: str, setting: str, problem: str) -> str:
    """The sentence for an address that cannot be had."""
    if address.startswith(UNIX):
        return f"Cannot listen on {address}: {problem}. Set {setting} to another path."
    return f"Cannot listen on {address}: {problem}. Stop what listens there, or set {proposal(address, setting)}."


def proposal(address: str, setting: str) -> str:
    """Another value for the setting of a port that cannot be had."""
    other = other_port(address)
    return f"{setting}={other if setting.endswith('_ADDRESS') else other.rpartition(':')[2]}"


async def serve_until_signal(
    host: ServiceHost, grace_s: float, before_drain: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the grace at once.

    Args:
        host: what to serve.
        grace_s: how long running calls may go on, in seconds; where there is a `before_drain`, that is what waits.
        before_drain: lets the service's own work end, after health says NOT_SERVING and before the servers stop;
            cancelled by a second signal.
    """
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    def on_orphaned() -> None:
        stop.set()
        if before_drain is not None:
            # Nobody is left who could say that it takes too long.
            hurry.set()

    watch_supervisor(loop, on_orphaned)
    await host.start()
    settle()
    if ready := os.environ.get(READY_PIPE_VARIABLE):
        os.write(int(ready), b"1")
        os.close(int(ready))
    await stop.wait()
    log.get_logger().info("draining", delay_s=grace_s)
    await host.announce_drain()
    if before_drain is not None:
        await _unless(hurry, before_drain())
        await host.drain(FLUSH_SECONDS)
    elif not await _unless(hurry, host.drain(grace_s)):
        await host.drain(0)


async def _unless(hurry: asyncio.Event, work: Awaitable[None]) -> bool:
    """Does the work, or cancels it once there is hurry and waits for its end; whether it was done."""
    doing = asyncio.ensure_future(work)
    # It takes its first step in any case: what it does about its cancellation begins there.
    await asyncio.sleep(0)
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait((doing, hurried), return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    await asyncio.wait((doing,))
    return False


def watch_supervisor(loop: asyncio.AbstractEventLoop, on_orphaned: Callable[[], None]) -> None:
    """Calls `on_orphaned` when the supervisor has ended, and those who need this service as well, or are given up."""
    parent, peers = (os.environ.get(name) for name in (PARENT_PIPE_VARIABLE, PEERS_PIPE_VARIABLE))
    if peers:
        _on_closed(loop, int(peers), on_orphaned)
    if parent:
        wait_s = ORPHAN_SECONDS if peers else 0.0
        _on_closed(loop, int(parent), lambda: loop.call_later(wait_s, on_orphaned))


def _on_closed(loop: asyncio.AbstractEventLoop, pipe: int, callback: Callable[[], object]) -> None:
    def closed() -> None:
        loop.remove_reader(pipe)
        callback()

    loop.add_reader(pipe, closed)


def settle() -> None:
    """Tells the interpreter that start-up is over: what was made so far stays, and what comes is mostly short-lived.

    The garbage collector would otherwise look through a service's whole code at every large collection, and begin a
    small one at every 700 new objects, which a batch makes in a few milliseconds. A thread that comes back from the
    disk waits up to the switch interval for the interpreter.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)


def run(name: str, main: Callable[[], Awaitable[None]]) -> None:
    """Runs a service's main coroutine on uvloop and turns a StartupError into one sentence and exit code 78.

    What the service writes is for its own user alone.
    """
    os.umask(0o077)
    try:
        uvloop.run(_as_coroutine(main))
    except StartupError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201  # for the operator at the terminal, not a log
        raise SystemExit(EXIT_STARTUP_FAILED) from None


async def _as_coroutine(main: Callable[[], Awaitable[None]]) -> None:
    await main()
