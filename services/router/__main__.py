"""Wires the router together and serves it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from flowstack_protos.router.v1 import router_service_pb2, router_service_pb2_grpc

from services.router import catalog
from services.router.adapters.billing_client import ApiKeys, BillingClient
from services.router.adapters.quota_client import QuotaClient
from services.router.catalog import Catalog
from services.router.config import RouterSettings
from services.router.factory import make_provider, operators_credentials, with_settings
from services.router.lineup import Lineup
from services.router.resolver import Resolver
from services.router.service import RouterService
from services.router.servicer import POLICIES, RouterServicer
from services.shared import log
from services.shared.auth import Authenticator
from services.shared.channel import connect
from services.shared.clock import SystemClock
from services.shared.server import Port, Registration, ServiceHost, run, serve_until_signal
from services.shared.settings import load

NAME = "router"


async def main() -> None:
    """Serves until a signal comes."""
    settings = load(RouterSettings)
    log.configure(NAME, settings.log_level)
    entries = catalog.load(settings.providers_file)
    async with AsyncExitStack() as opened:
        await _serve(settings, entries, opened)


async def _serve(settings: RouterSettings, entries: Catalog, opened: AsyncExitStack) -> None:
    """Opens what the router works with, last to be closed first, and serves."""
    limits = settings.limits()
    lineup = build_lineup(entries, settings)
    for provider in lineup.providers.values():
        opened.push_async_callback(provider.aclose)
    clock = SystemClock()
    quota_channel = connect(settings.quota_address, settings)
    opened.push_async_callback(quota_channel.close)
    billing_channel = connect(settings.billing_internal_address, settings)
    opened.push_async_callback(billing_channel.close)
    quota = QuotaClient(quota_channel)
    keys = ApiKeys(BillingClient(billing_channel).ask, clock)
    service = RouterService(quota=quota, lineup=lineup, clock=clock, limits=limits, resolver=Resolver(quota, clock))
    registration = Registration(
        router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
        router_service_pb2_grpc.add_RouterServiceServicer_to_server,
        RouterServicer(service),
        POLICIES,
    )
    port = Port(
        settings.router_address,
        "FLOWSTACK_ROUTER_ADDRESS",
        (registration,),
        lambda policies: Authenticator(policies, authenticate_key=keys.authenticate),
    )
    grace_s = limits.time_limit_s if settings.drain_grace_seconds is None else settings.drain_grace_seconds
    await quota.start()
    opened.push_async_callback(keys.close)
    opened.push_async_callback(quota.close)
    opened.push_async_callback(service.drain, 0)
    await serve_until_signal(ServiceHost(NAME, settings, (port,)), grace_s, before_drain=lambda: service.drain(grace_s))


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
