"""One service's servers: its ports, health, reflection and the admin port, from start to drain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1._async import ChannelzServicer
from grpc_channelz.v1.channelz_pb2_grpc import add_ChannelzServicer_to_server
from grpc_health.v1 import health_pb2_grpc

from services.shared import health, log
from services.shared.auth import Authenticator, Policy
from services.shared.interceptor import TRANSPORT_BYTES_MAX, Plain, RpcInterceptor, policies_without_rpc
from services.shared.listening import bind
from services.shared.reflection import METHODS as REFLECTION_METHODS
from services.shared.reflection import add_reflection
from services.shared.settings import CommonSettings, StartupError, is_loopback
from services.shared.tls import server_credentials

SERVICES: Final = ("router", "quota", "billing", "vault")
"""In the order of their admin ports, from FLOWSTACK_ADMIN_PORT_BASE up."""

_COMMON_OPTIONS: Final = (
    ("grpc.max_receive_message_length", TRANSPORT_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""A client may ask every 5 s whether the server is there, also without calls; the server asks a silent client every
30 s, and gives it 10 s, so that the streams of one that is gone for good end."""

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
