"""The methods of the public services, as typed values: what they take, answer, and whether a repeat is safe.

    client.call(UsageService.GetUsage, GetUsageRequest()) -> GetUsageResponse

Safe means that a repeat after an unknown outcome changes nothing more: reads, and writes that the contract calls
idempotent. A write that is safe by its request_id alone is not marked: its caller says so with `safe=True`.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import audit_service_pb2 as audit
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from flowstack_protos.router.v1 import router_service_pb2 as router
from flowstack_protos.vault.v1 import vault_service_pb2 as vault

from flowstack._endpoints import ServiceName

Q = TypeVar("Q")
R = TypeVar("R")


class Method(Generic[Q, R]):
    """One method. Its path comes from where it stands: the class is the service, the attribute the method."""

    service: ServiceName
    path: str

    def __init__(self, request: type[Q], response: type[R], *, safe: bool = False) -> None:
        self.request = request
        self.response = response
        self.safe = safe

    def __set_name__(self, owner: type, name: str) -> None:
        package = self.response.DESCRIPTOR.file.package  # type: ignore[attr-defined]  # every message has one
        self.service = package.split(".")[1]
        self.path = f"/{package}.{owner.__name__}/{name}"

    def serialize(self, request: Any) -> bytes:
        """The request's bytes."""
        return bytes(request.SerializeToString())

    def parse(self, data: bytes) -> R:
        """The response of these bytes."""
        return self.response.FromString(data)  # type: ignore[attr-defined,no-any-return]


class Unary(Method[Q, R]):
    """One request, one response."""


class ServerStream(Method[Q, R]):
    """One request, a stream of responses."""


class BidiStream(Method[Q, R]):
    """A stream of requests, a stream of responses."""


class RouterService:
    """flowstack.router.v1.RouterService."""

    Complete = ServerStream(router.CompleteRequest, router.CompletionEvent)
    Chat = BidiStream(router.ChatRequest, router.CompletionEvent)
    ListModels = Unary(router.ListModelsRequest, router.ListModelsResponse, safe=True)


class VaultService:
    """flowstack.vault.v1.VaultService."""

    Store = Unary(vault.StoreRequest, vault.StoreResponse)
    Retrieve = Unary(vault.RetrieveRequest, vault.RetrieveResponse, safe=True)
    Query = Unary(vault.QueryRequest, vault.QueryResponse, safe=True)
    Delete = Unary(vault.DeleteRequest, vault.DeleteResponse)
    ListCollections = Unary(vault.ListCollectionsRequest, vault.ListCollectionsResponse, safe=True)


class AccountService:
    """flowstack.billing.v1.AccountService, without what is internal."""

    CreateAccount = Unary(accounts.CreateAccountRequest, accounts.CreateAccountResponse)
    GetAccount = Unary(accounts.GetAccountRequest, accounts.GetAccountResponse, safe=True)
    ListAccounts = Unary(accounts.ListAccountsRequest, accounts.ListAccountsResponse, safe=True)
    SuspendAccount = Unary(accounts.SuspendAccountRequest, accounts.SuspendAccountResponse)
    DeleteAccount = Unary(accounts.DeleteAccountRequest, accounts.DeleteAccountResponse)
    CreateApiKey = Unary(accounts.CreateApiKeyRequest, accounts.CreateApiKeyResponse)
    ListApiKeys = Unary(accounts.ListApiKeysRequest, accounts.ListApiKeysResponse, safe=True)
    RotateApiKey = Unary(accounts.RotateApiKeyRequest, accounts.RotateApiKeyResponse)
    RevokeApiKey = Unary(accounts.RevokeApiKeyRequest, accounts.RevokeApiKeyResponse, safe=True)


class SubscriptionService:
    """flowstack.billing.v1.SubscriptionService."""

    ListPlans = Unary(subscriptions.ListPlansRequest, subscriptions.ListPlansResponse, safe=True)
    GetSubscription = Unary(subscriptions.GetSubscriptionRequest, subscriptions.GetSubscriptionResponse, safe=True)
    ChangePlan = Unary(subscriptions.ChangePlanRequest, subscriptions.ChangePlanResponse)
    CancelSubscription = Unary(subscriptions.CancelSubscriptionRequest, subscriptions.CancelSubscriptionResponse)
    RevertPendingChange = Unary(subscriptions.RevertPendingChangeRequest, subscriptions.RevertPendingChangeResponse)
    PutContract = Unary(subscriptions.PutContractRequest, subscriptions.PutContractResponse)


class UsageService:
    """flowstack.billing.v1.UsageService."""

    GetUsage = Unary(usage.GetUsageRequest, usage.GetUsageResponse, safe=True)
    WatchUsage = ServerStream(usage.WatchUsageRequest, usage.WatchUsageResponse, safe=True)
    ListSessions = Unary(usage.ListSessionsRequest, usage.ListSessionsResponse, safe=True)
    QueryUsage = Unary(usage.QueryUsageRequest, usage.QueryUsageResponse, safe=True)
    GetForecast = Unary(usage.GetForecastRequest, usage.GetForecastResponse, safe=True)
    AnalyzeCosts = Unary(usage.AnalyzeCostsRequest, usage.AnalyzeCostsResponse, safe=True)
    EstimateCost = Unary(usage.EstimateCostRequest, usage.EstimateCostResponse, safe=True)
    ReconcileUsage = Unary(usage.ReconcileUsageRequest, usage.ReconcileUsageResponse, safe=True)


class InvoiceService:
    """flowstack.billing.v1.InvoiceService."""

    ListInvoices = Unary(invoices.ListInvoicesRequest, invoices.ListInvoicesResponse, safe=True)
    GetInvoice = Unary(invoices.GetInvoiceRequest, invoices.GetInvoiceResponse, safe=True)
    PreviewInvoice = Unary(invoices.PreviewInvoiceRequest, invoices.PreviewInvoiceResponse, safe=True)
    DownloadInvoice = ServerStream(invoices.DownloadInvoiceRequest, invoices.DownloadInvoiceResponse, safe=True)
    MarkInvoicePaid = Unary(invoices.MarkInvoicePaidRequest, invoices.MarkInvoicePaidResponse)
    VoidInvoice = Unary(invoices.VoidInvoiceRequest, invoices.VoidInvoiceResponse)
    CreateCreditNote = Unary(invoices.CreateCreditNoteRequest, invoices.CreateCreditNoteResponse)


class AlertService:
    """flowstack.billing.v1.AlertService."""

    GetAlertSettings = Unary(alerts.GetAlertSettingsRequest, alerts.GetAlertSettingsResponse, safe=True)
    UpdateAlertSettings = Unary(alerts.UpdateAlertSettingsRequest, alerts.UpdateAlertSettingsResponse, safe=True)
    ListAlerts = Unary(alerts.ListAlertsRequest, alerts.ListAlertsResponse, safe=True)
    WatchAlerts = ServerStream(alerts.WatchAlertsRequest, alerts.WatchAlertsResponse, safe=True)
    SendAlert = Unary(alerts.SendAlertRequest, alerts.SendAlertResponse)
    CreateWebhook = Unary(alerts.CreateWebhookRequest, alerts.CreateWebhookResponse)
    ListWebhooks = Unary(alerts.ListWebhooksRequest, alerts.ListWebhooksResponse, safe=True)
    RotateWebhookSecret = Unary(alerts.RotateWebhookSecretRequest, alerts.RotateWebhookSecretResponse)
    DeleteWebhook = Unary(alerts.DeleteWebhookRequest, alerts.DeleteWebhookResponse)
    RedeliverAlert = Unary(alerts.RedeliverAlertRequest, alerts.RedeliverAlertResponse)


class AuditService:
    """flowstack.billing.v1.AuditService."""

    ListAuditEvents = Unary(audit.ListAuditEventsRequest, audit.ListAuditEventsResponse, safe=True)
