"""All services within this process, by a clock that is moved by hand: for what waits for a period's end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flowstack_protos.router.v1 import router_service_pb2, router_service_pb2_grpc

from services.billing.__main__ import running as running_billing
from services.billing.config import BillingSettings
from services.quota.__main__ import running as running_quota
from services.quota.config import QuotaSettings
from services.router import catalog
from services.router.__main__ import build_lineup
from services.router.adapters.quota_client import QuotaClient
from services.router.config import RouterSettings
from services.router.limits import SessionLimits
from services.router.resolver import Resolver
from services.router.service import RouterService
from services.router.servicer import POLICIES, RouterServicer
from services.shared.api_keys import ApiKeys, BillingClient
from services.shared.auth import Authenticator
from services.shared.channel import connect
from services.shared.secret import Secret
from services.shared.server import Port, Registration, ServiceHost
from services.vault.__main__ import running as running_vault
from services.vault.config import VaultSettings
from tests.support.billing import ADMIN_TOKEN, INTERNAL_TOKEN, PEPPER, QUICK
from tests.support.clock import ManualClock
from tests.support.suite import ROOT

ADDRESSES: Final = ("router", "quota", "billing", "billing_internal", "vault")


@dataclass(frozen=True)
class ClockedSuite:
    """The running services.

    Attributes:
        clock: of them all; periods end when it is moved past their ends.
        endpoint: where the public ones are, as the SDK takes it.
    """

    clock: ManualClock
    endpoint: dict[str, str]


@asynccontextmanager
async def clocked_suite(folder: Path) -> AsyncIterator[ClockedSuite]:
    """Runs quota, billing, the vault and a router until the block's end."""
    clock = ManualClock()
    common: dict[str, Any] = {
        "data_dir": folder,
        "admin_port_base": 0,
        "admin_token": Secret(ADMIN_TOKEN),
        "internal_token": Secret(INTERNAL_TOKEN),
        "key_pepper": Secret(PEPPER),
        "providers_file": ROOT / "deploy" / "providers.toml",
        **{f"{name}_address": "127.0.0.1:0" for name in ADDRESSES},
    }
    async with AsyncExitStack() as stack:
        quota, _ = await stack.enter_async_context(running_quota(_settings(QuotaSettings, common), clock))
        (common["quota_address"],) = await _started(quota, stack)
        billing = await stack.enter_async_context(running_billing(_settings(BillingSettings, common), clock, QUICK))
        common["billing_address"], common["billing_internal_address"] = await _started(billing, stack)
        vault = await stack.enter_async_context(running_vault(_settings(VaultSettings, common), clock))
        (common["vault_address"],) = await _started(vault, stack)
        router = await stack.enter_async_context(_running_router(_settings(RouterSettings, common), clock))
        (common["router_address"],) = await _started(router, stack)
        yield ClockedSuite(clock, {name: common[f"{name}_address"] for name in ("router", "billing", "vault")})


def _settings(of: Any, values: dict[str, Any]) -> Any:
    return of(_env_file=None, **values)


async def _started(host: ServiceHost, stack: AsyncExitStack) -> list[str]:
    """Starts a service, to be drained at the end; answers its addresses."""
    await host.start()
    stack.push_async_callback(host.drain, 0)
    return [f"127.0.0.1:{port}" for port in host.bound_ports]


@asynccontextmanager
async def _running_router(settings: RouterSettings, clock: ManualClock) -> AsyncIterator[ServiceHost]:
    """The router's own wiring, but for the clock."""
    async with AsyncExitStack() as stack:
        to_quota, to_billing = (
            connect(address, settings) for address in (settings.quota_address, settings.billing_internal_address)
        )
        stack.push_async_callback(to_quota.close)
        stack.push_async_callback(to_billing.close)
        quota = QuotaClient(to_quota)
        await quota.start()
        stack.push_async_callback(quota.close)
        keys = ApiKeys(BillingClient(to_billing).ask, clock)
        stack.push_async_callback(keys.close)
        lineup = build_lineup(catalog.load(settings.providers_file), settings)
        stack.push_async_callback(lineup.aclose)
        service = RouterService(
            quota=quota, lineup=lineup, clock=clock, limits=SessionLimits(), resolver=Resolver(quota, clock)
        )
        stack.push_async_callback(service.drain, 0)
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
        yield ServiceHost("router", settings, (port,))
