"""Starts the billing service: `python -m services.billing`."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.adapters.pdf.late import LatePrinter
from services.billing.adapters.price_table import load_prices
from services.billing.adapters.providers_file import ProvidersFile
from services.billing.adapters.quota_client import QuotaClient
from services.billing.adapters.sql.database import Database, open_database
from services.billing.adapters.webhooks.addresses import Lookup, SystemLookup
from services.billing.adapters.webhooks.secrets import PepperSealer, StandardSigner
from services.billing.adapters.webhooks.sender import GuardedSender
from services.billing.config import BillingSettings
from services.billing.domain.catalogue import Catalogue
from services.billing.domain.paging import PageTokens
from services.billing.payments import PaymentProvider
from services.billing.service.accounts import AccountService
from services.billing.service.alert_settings import AlertSettingsService
from services.billing.service.alert_watching import RECHECK_S, AlertWatchService
from services.billing.service.alerting import Alerting
from services.billing.service.alerts import AlertService
from services.billing.service.api_keys import ApiKeyService
from services.billing.service.audit import AuditService
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.corrections import CorrectionService
from services.billing.service.deliveries import DeliveryDispatcher
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.invoices import InvoiceService
from services.billing.service.outlook import OutlookService
from services.billing.service.payments import PaymentDispatcher
from services.billing.service.reader import SessionEventReader
from services.billing.service.reconciliation import ReconciliationService
from services.billing.service.scheduler import Scheduler
from services.billing.service.subscriptions import SubscriptionService
from services.billing.service.usage import UsageService
from services.billing.service.usage_history import UsageHistoryService
from services.billing.service.watching import UsageWatchService
from services.billing.service.webhooks import WebhookService
from services.billing.servicer.accounts import AccountServicer, InternalAccountServicer
from services.billing.servicer.alerts import AlertServicer
from services.billing.servicer.audit import AuditServicer
from services.billing.servicer.invoices import InvoiceServicer
from services.billing.servicer.registrations import internal_registrations, public_registrations
from services.billing.servicer.streams import StreamLimit
from services.billing.servicer.subscriptions import SubscriptionServicer
from services.billing.servicer.usage import UsageServicer
from services.billing.webhooks import Sealer, Signer, WebhookSender
from services.shared import log
from services.shared.auth import Authenticator, Caller, CallerKind
from services.shared.background import Backoff, keep_running, stop
from services.shared.channel import connect
from services.shared.clock import Clock, SystemClock
from services.shared.process import DRAIN_GRACE_SECONDS, run, serve_until_signal
from services.shared.secret import Secret
from services.shared.server import Port, ServiceHost
from services.shared.settings import StartupError, load

BACKOFF: Final = Backoff(0.1, 5.0, random.random)
"""Between attempts to reach quota."""

USES_INTERVAL_S: Final = 30.0
"""How often it is written when keys were last used."""


@asynccontextmanager
async def running(
    settings: BillingSettings, clock: Clock, backoff: Backoff, lookup: Lookup | None = None
) -> AsyncIterator[ServiceHost]:
    """Billing with its background work, wired together; the host is started and drained by the caller.

    Args:
        settings: billing's.
        clock: tells the time.
        backoff: between attempts to reach others.
        lookup: resolves the names of webhooks; the system's where it is None.

    Raises:
        StartupError: a setting, the catalogue or the database does not fit.
    """
    async with AsyncExitStack() as stack:
        catalogue = load_catalogue(settings.billing_catalogue_file)
        prices = load_prices(settings.billing_prices_file)
        database = await open_database(settings.database_url())
        stack.push_async_callback(database.close)
        await _assert_catalogue_is_whole(database, catalogue)
        channel = connect(settings.quota_address, settings)
        stack.push_async_callback(channel.close)
        pepper = settings.pepper()
        tokens = PageTokens(pepper)
        provider = await _payment_provider(settings, stack)
        context = Context(
            database,
            QuotaClient(channel),
            catalogue,
            tokens,
            clock,
            secrets.token_bytes,
            settings.payment_terms(),
            provider is not None,
            prices,
            ProvidersFile(settings.providers_file),
        )
        dispatcher = EntitlementDispatcher(context, backoff)
        api_keys = ApiKeyService(context, pepper)
        stack.push_async_callback(api_keys.flush_uses)
        booking = Booking(context, [Alerting(context).follow])
        webhooks = _webhook_parts(settings, pepper, lookup, stack)
        deliveries = DeliveryDispatcher(context, *webhooks, backoff)
        stack.push_async_callback(deliveries.close)
        replica = f"billing-{secrets.token_hex(8)}"
        reader = SessionEventReader(context, dispatcher, booking, replica, settings.billing_lease_seconds)
        stack.push_async_callback(reader.release)

        async def write_uses() -> bool:
            await asyncio.sleep(USES_INTERVAL_S)
            await api_keys.flush_uses()
            return True

        alert_watching = AlertWatchService(context)

        async def poll_alerts() -> bool:
            await asyncio.sleep(RECHECK_S)
            await alert_watching.poll()
            return True

        scheduler = Scheduler(context, dispatcher)
        works: dict[str, Callable[[], Awaitable[bool]]] = {
            "entitlements": dispatcher.run_once,
            "session events": reader.run_once,
            "renewals": scheduler.run_once,
            "urgent accounts": scheduler.run_urgent,
            "alert deliveries": deliveries.run_once,
            "key uses": write_uses,
        }
        if database.shared:
            works["other replicas' alerts"] = poll_alerts
        if provider is not None:
            works["payments"] = PaymentDispatcher(context, provider, backoff).run_once
        for name, work in works.items():
            task = asyncio.create_task(keep_running(name, work, backoff), name=name)
            stack.push_async_callback(stop, task)
        usage = UsageService(context, dispatcher)
        watching = UsageWatchService(context, usage)
        streams = StreamLimit()
        usages = UsageServicer(
            usage,
            watching,
            UsageHistoryService(context),
            OutlookService(context, usage),
            reconciliation=ReconciliationService(context),
            streams=streams,
            clock=clock,
        )
        alerts = AlertServicer(
            AlertSettingsService(context, dispatcher),
            AlertService(context),
            alert_watching,
            WebhookService(context, *webhooks),
            streams=streams,
            clock=clock,
        )
        ports = _ports(settings, context, dispatcher, api_keys, usages=usages, alerts=alerts)

        async def end_streams() -> None:
            await watching.close()
            await alert_watching.close()

        yield ServiceHost("billing", settings, ports, on_drain=end_streams)


def _webhook_parts(
    settings: BillingSettings, pepper: Secret, lookup: Lookup | None, stack: AsyncExitStack
) -> tuple[WebhookSender, Sealer, Signer]:
    """What webhooks are sent, kept and signed with."""

    def system_lookup() -> Lookup:
        made = SystemLookup()
        stack.callback(made.close)
        return made

    sender = GuardedSender(
        lookup or system_lookup(),
        settings.webhook_networks(),
        creation_lookup=lookup or system_lookup(),
        allow_http=settings.webhook_allow_http,
    )
    return sender, PepperSealer(pepper, secrets.token_bytes), StandardSigner()


async def _payment_provider(settings: BillingSettings, stack: AsyncExitStack) -> PaymentProvider | None:
    """Stripe, where its key is set; invoices go nowhere else but to ListInvoices otherwise."""
    if settings.stripe_api_key is None:
        return None
    # Imported only here: it takes a good part of a second.
    from services.billing.adapters.stripe_client import StripeClient

    client = StripeClient(settings.stripe_api_key, settings.stripe_base_url)
    stack.push_async_callback(client.close)
    return client


async def _assert_catalogue_is_whole(database: Database, catalogue: Catalogue) -> None:
    """Refuses a catalogue that lacks a plan version which was sold."""
    sold = await database.transact(lambda transaction: transaction.subscriptions.versions_sold())
    missing = sorted(f"{plan_id} version {version}" for plan_id, version in sold if not catalogue.has(plan_id, version))
    if missing:
        raise StartupError(
            f"The catalogue lacks what subscriptions have: {', '.join(missing)}. Put it back, with a retire_time "
            "where it is sold no more."
        )


def _ports(
    settings: BillingSettings,
    context: Context,
    dispatcher: EntitlementDispatcher,
    api_keys: ApiKeyService,
    *,
    usages: UsageServicer,
    alerts: AlertServicer,
) -> list[Port]:
    async def authenticate(secret: Secret) -> Caller:
        owner = await api_keys.authenticate(secret)
        return Caller(CallerKind.CUSTOMER, owner.account.account_id, owner.key.api_key_id)

    admin_tokens, internal_tokens = settings.admin_tokens(), settings.internal_tokens()
    # What a servicer does not define answers UNIMPLEMENTED, from the generated base.
    public = public_registrations(
        AccountServicer(AccountService(context, dispatcher), api_keys, context.clock),  # type: ignore[abstract]
        SubscriptionServicer(SubscriptionService(context, dispatcher)),
        usages,
        InvoiceServicer(
            InvoiceService(context, LatePrinter(settings.invoice_issuer)), CorrectionService(context, dispatcher)
        ),
        alerts=alerts,
        audits=AuditServicer(AuditService(context)),
    )
    internal = internal_registrations(InternalAccountServicer(api_keys))  # type: ignore[abstract]
    return [
        Port(
            settings.billing_address,
            "FLOWSTACK_BILLING_ADDRESS",
            public,
            lambda policies: Authenticator(policies, admin_tokens=admin_tokens, authenticate_key=authenticate),
        ),
        Port(
            settings.billing_internal_address,
            "FLOWSTACK_BILLING_INTERNAL_ADDRESS",
            internal,
            lambda policies: Authenticator(
                policies, internal_tokens=internal_tokens, service_names=settings.service_names
            ),
            internal=True,
        ),
    ]


async def main() -> None:
    """Serves billing until it is told to stop."""
    settings = load(BillingSettings)
    log.configure("billing", settings.log_level)
    async with running(settings, SystemClock(), BACKOFF) as host:
        await serve_until_signal(host, settings.grace_s(DRAIN_GRACE_SECONDS))


if __name__ == "__main__":
    run("billing", main)
