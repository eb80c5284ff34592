"""Starts the quota service: `python -m services.quota`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flowstack_protos.quota.v1 import quota_service_pb2, quota_service_pb2_grpc

from services.quota.adapters.sqlite import SqliteStore
from services.quota.config import QuotaSettings
from services.quota.service import QuotaService
from services.quota.servicer import CONVERSION_VALIDATES, POLICIES, QuotaServicer
from services.shared import log
from services.shared.auth import Authenticator
from services.shared.clock import Clock, SystemClock
from services.shared.process import DRAIN_GRACE_SECONDS, run, serve_until_signal
from services.shared.server import Port, Registration, ServiceHost
from services.shared.settings import load


@asynccontextmanager
async def running(settings: QuotaSettings, clock: Clock) -> AsyncIterator[tuple[ServiceHost, QuotaService]]:
    """Quota with its maintenance, wired together; the host is started and drained by the caller.

    Raises:
        StartupError: a setting does not fit, or the store cannot be used.
    """
    tokens = settings.internal_tokens()
    store = SqliteStore.open(settings.database_path(), clock, round(settings.expiry_hold_seconds * 1_000_000))
    service = QuotaService(store)
    registration = Registration(
        quota_service_pb2.DESCRIPTOR.services_by_name["QuotaService"],
        quota_service_pb2_grpc.add_QuotaServiceServicer_to_server,
        QuotaServicer(service),
        POLICIES,
        CONVERSION_VALIDATES,
    )
    port = Port(
        settings.quota_address,
        "FLOWSTACK_QUOTA_ADDRESS",
        [registration],
        lambda policies: Authenticator(policies, internal_tokens=tokens, service_names=settings.service_names),
        internal=True,
    )
    maintenance = asyncio.create_task(service.maintain())
    try:
        yield ServiceHost("quota", settings, [port]), service
    finally:
        maintenance.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await maintenance
        await store.close()


async def main() -> None:
    """Serves quota until it is told to stop."""
    settings = load(QuotaSettings)
    log.configure("quota", settings.log_level)
    async with running(settings, SystemClock()) as (host, service):
        await serve_until_signal(host, settings.grace_s(DRAIN_GRACE_SECONDS), before_drain=service.drain)


if __name__ == "__main__":
    run("quota", main)
