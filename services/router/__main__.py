"""Wires the router together and serves it."""

from __future__ import annotations

from flowstack_protos.router.v1 import router_service_pb2, router_service_pb2_grpc

from services.router import catalog
from services.router.adapters.billing_client import ApiKeys, BillingClient
from services.router.adapters.quota_client import QuotaClient
from services.router.catalog import Catalog, ProviderEntry
from services.router.config import RouterSettings, operator_secret
from services.router.domain.request import OpenAiCredentials
from services.router.lineup import Lineup
from services.router.providers.echo import EchoProvider
from services.router.providers.openai import DEFAULT_BASE_URL, OpenAiProvider, OpenAiSettings
from services.router.providers.port import Provider
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
    limits = settings.limits()
    lineup = build_lineup(catalog.load(settings.providers_file), settings)
    clock = SystemClock()
    quota_channel = connect(settings.quota_address, settings)
    billing_channel = connect(settings.billing_internal_address, settings)
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
    try:
        await serve_until_signal(
            ServiceHost(NAME, settings, (port,)), grace_s, before_drain=lambda: service.drain(grace_s)
        )
    finally:
        await service.drain(0)
        await quota.close()
        await keys.close()
        for provider in lineup.providers.values():
            await provider.aclose()
        await quota_channel.close()
        await billing_channel.close()


def build_lineup(entries: Catalog, settings: RouterSettings) -> Lineup:
    """Makes the providers that the catalogue names; to be called inside the event loop.

    Raises:
        StartupError: a key file cannot be read.
    """
    offered = {
        name: entry for name, entry in entries.providers.items() if entry.kind != "echo" or settings.echo_enabled
    }
    providers: dict[str, Provider] = {}
    managed = set()
    for name, entry in offered.items():
        if entry.kind == "echo":
            providers[name] = EchoProvider()
            continue
        key = operator_secret(entry.managed_api_key_env) if entry.managed_api_key_env else None
        credentials = OpenAiCredentials(key) if key else None
        if credentials is not None or entry.managed_without_key:
            managed.add(name)
        providers[name] = OpenAiProvider(
            OpenAiSettings(
                base_url=_base_url(entry, settings),
                managed=credentials,
                max_tokens_field=entry.max_tokens_field,
                include_usage=entry.include_usage,
            )
        )
    return Lineup(Catalog(offered), providers, frozenset(managed))


def _base_url(entry: ProviderEntry, settings: RouterSettings) -> str:
    if entry.name == "openai" and settings.openai_base_url:
        return settings.openai_base_url
    return entry.base_url or DEFAULT_BASE_URL


if __name__ == "__main__":
    run(NAME, main)
