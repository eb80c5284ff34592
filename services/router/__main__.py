"""Wires the router together and serves it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from flowstack_protos.router.v1 import router_service_pb2, router_service_pb2_grpc

from services.router import catalog
from services.router.adapters.quota_client import QuotaClient
from services.router.catalog import Catalog
from services.router.config import RouterSettings
from services.router.factory import make_provider, operators_credentials, with_settings
from services.router.limits import SessionLimits
from services.router.lineup import Lineup
from services.router.plain import is_plain
from services.router.reload import Reloader
from services.router.resolver import Resolver
from services.router.service import RouterService
from services.router.servicer import POLICIES, RouterServicer
from services.shared import log
from services.shared.api_keys import ApiKeys, BillingClient
from services.shared.auth import Authenticator
from services.shared.channel import connect
from services.shared.clock import SystemClock
from services.shared.process import run, serve_until_signal, worker_number
from services.shared.server import Port, Registration, ServiceHost
from services.shared.settings import load
from services.shared.workers import Workers

NAME = "router"
ADDRESS = "FLOWSTACK_ROUTER_ADDRESS"

CONNECTION_SECONDS_MAX = 3600
"""How long a connection takes new calls. Callers connect again without noticing, and so find workers that are new."""


async def main() -> None:
    """Serves until a signal comes, by itself or by its workers."""
    settings = load(RouterSettings)
    worker = worker_number()
    log.configure(NAME if worker is None else f"{NAME}-{worker}", settings.log_level)
    if settings.router_workers > 1 and worker is None:
        await Workers(NAME, settings.router_workers, settings.router_address, ADDRESS).run()
        return
    entries = catalog.load(settings.providers_file)
    async with AsyncExitStack() as opened:
        await _serve(settings, entries, opened)


async def _serve(settings: RouterSettings, entries: Catalog, opened: AsyncExitStack) -> None:
    """Opens what the router works with, last to be closed first, and serves."""
    limits = settings.limits()
    clock = SystemClock()
    quota_channel = connect(settings.quota_address, settings)
    opened.push_async_callback(quota_channel.close)
    billing_channel = connect(settings.billing_internal_address, settings)
    opened.push_async_callback(billing_channel.close)
    quota = QuotaClient(quota_channel)
    keys = ApiKeys(BillingClient(billing_channel).ask, clock)
    lineup = build_lineup(entries, settings)
    service = RouterService(quota=quota, lineup=lineup, clock=clock, limits=limits, resolver=Resolver(quota, clock))
    reloader = Reloader(settings.providers_file, lambda entries: build_lineup(entries, settings), service)
    opened.push_async_callback(reloader.aclose)
    registration = Registration(
        router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
        router_service_pb2_grpc.add_RouterServiceServicer_to_server,
        RouterServicer(service),
        POLICIES,
        plain={"Complete": is_plain},
    )
    port = Port(
        settings.router_address,
        ADDRESS,
        (registration,),
        lambda policies: Authenticator(policies, authenticate_key=keys.authenticate),
        options=port_options(limits),
    )
    grace_s = limits.time_limit_s if settings.drain_grace_seconds is None else settings.drain_grace_seconds
    await quota.start()
    opened.push_async_callback(keys.close)
    opened.push_async_callback(quota.close)
    opened.push_async_callback(service.drain, 0)
    host = ServiceHost(NAME, settings, (port,), worker=worker_number())
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.reload)
    await serve_until_signal(host, grace_s, before_drain=lambda: service.drain(grace_s))


def port_options(limits: SessionLimits, connection_s: float = CONNECTION_SECONDS_MAX) -> tuple[tuple[str, int], ...]:
    """The gRPC options of the router's port, where a connection takes new calls for `connection_s` seconds."""
    # A reader that does not take even the end of its call holds the call open, and gRPC has no way to end that one.
    # With the connection it ends, for which whatever runs on it has time.
    grace_s = limits.first_message_s + limits.time_limit_s + limits.reader_stall_s + limits.resolution_answer_s
    return (
        ("grpc.max_connection_age_ms", round(connection_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(grace_s * 1000)),
        # A window that grew with the bandwidth would let one Chat fill megabytes with messages that nobody asked for.
        ("grpc.http2.bdp_probe", 0),
    )


def build_lineup(entries: Catalog, settings: RouterSettings) -> Lineup:
    """Makes the providers that the catalogue names; to be called inside the event loop.

    Every key is read before the first provider is made, so that nothing is open where one is not valid.

    Raises:
        StartupError: a key is not valid, or its file cannot be read.
    """
    offered = {
        name: with_settings(entry, settings)
        for name, entry in entries.providers.items()
        if entry.kind != "echo" or settings.echo_enabled
    }
    credentials = {name: operators_credentials(entry) for name, entry in offered.items()}
    managed = {
        name
        for name, entry in offered.items()
        if entry.kind != "echo" and (credentials[name] is not None or entry.managed_without_key)
    }
    providers = {name: make_provider(entry, credentials[name]) for name, entry in offered.items()}
    return Lineup(Catalog(offered), providers, frozenset(managed))


if __name__ == "__main__":
    run(NAME, main)
