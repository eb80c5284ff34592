"""Starts the vault service: `python -m services.vault`."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from flowstack_protos.vault.v1 import vault_service_pb2, vault_service_pb2_grpc

from services.shared import log
from services.shared.api_keys import ApiKeys, BillingClient
from services.shared.auth import Authenticator
from services.shared.background import Backoff, keep_running, stop
from services.shared.channel import connect
from services.shared.clock import Clock, SystemClock
from services.shared.paging import PageTokens
from services.shared.process import DRAIN_GRACE_SECONDS, run, serve_until_signal
from services.shared.secret import Secret
from services.shared.server import Port, Registration, ServiceHost
from services.shared.settings import load
from services.vault.adapters.billing_client import AccountsAtBilling
from services.vault.adapters.sql.database import open_database
from services.vault.config import VaultSettings
from services.vault.domain.sorting import Position
from services.vault.service.documents import DocumentService
from services.vault.service.indexing import Indexing
from services.vault.service.queries import QueryService
from services.vault.service.upkeep import Purger, Sweeper
from services.vault.servicer import POLICIES, VaultServicer

BACKOFF: Final = Backoff(0.2, 10.0, random.random)
"""Between looks for work beside the calls; an expired document is not seen any more, swept away or not."""


@asynccontextmanager
async def running(settings: VaultSettings, clock: Clock, backoff: Backoff = BACKOFF) -> AsyncIterator[ServiceHost]:
    """The vault with its background work, wired together; the host is started and drained by the caller.

    Raises:
        StartupError: a setting or the database does not fit.
    """
    async with AsyncExitStack() as stack:
        database = await open_database(settings.database_url())
        stack.push_async_callback(database.close)
        billing = connect(settings.billing_internal_address, settings)
        stack.push_async_callback(billing.close)
        keys = ApiKeys(BillingClient(billing).ask, clock)
        stack.push_async_callback(keys.close)
        accounts = connect(settings.billing_address, settings, settings.admin_tokens()[0])
        stack.push_async_callback(accounts.close)
        # All replicas have it, and it need not last: a page token is used at once or not at all.
        tokens = PageTokens[Position](Secret("vault" + settings.internal_tokens()[0].reveal()))
        indexing = Indexing(database, clock)
        capacity_bytes = settings.vault_capacity_bytes
        servicer = VaultServicer(
            DocumentService(database, clock, secrets.token_bytes, capacity_bytes),
            QueryService(database, clock, tokens, indexing, capacity_bytes),
        )
        works: dict[str, Callable[[], Awaitable[bool]]] = {
            "expired documents": Sweeper(database, clock).run_once,
            "indexes": indexing.run_once,
            "purges": Purger(database, AccountsAtBilling(accounts), clock).run_once,
        }
        for name, work in works.items():
            task = asyncio.create_task(keep_running(name, work, backoff), name=name)
            stack.push_async_callback(stop, task)
        yield ServiceHost("vault", settings, [_port(settings, servicer, keys)])


def _port(settings: VaultSettings, servicer: VaultServicer, keys: ApiKeys) -> Port:
    registration = Registration(
        vault_service_pb2.DESCRIPTOR.services_by_name["VaultService"],
        vault_service_pb2_grpc.add_VaultServiceServicer_to_server,
        servicer,
        POLICIES,
    )
    admin_tokens = settings.admin_tokens()
    return Port(
        settings.vault_address,
        "FLOWSTACK_VAULT_ADDRESS",
        [registration],
        lambda policies: Authenticator(policies, admin_tokens=admin_tokens, authenticate_key=keys.authenticate),
    )


async def main() -> None:
    """Serves the vault until it is told to stop."""
    settings = load(VaultSettings)
    log.configure("vault", settings.log_level)
    async with running(settings, SystemClock()) as host:
        await serve_until_signal(host, settings.grace_s(DRAIN_GRACE_SECONDS))


if __name__ == "__main__":
    run("vault", main)
