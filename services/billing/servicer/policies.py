"""Who may call what. Each RPC stands here: a server with one that does not does not start."""

from __future__ import annotations

from typing import Final

from services.shared.auth import Policy

ACCOUNT: Final = {
    "CreateAccount": Policy.ADMIN,
    "GetAccount": Policy.CUSTOMER_OR_ADMIN,
    "ListAccounts": Policy.ADMIN,
    "SuspendAccount": Policy.ADMIN,
    "DeleteAccount": Policy.ADMIN,
    "CreateApiKey": Policy.CUSTOMER_OR_ADMIN,
    "ListApiKeys": Policy.CUSTOMER_OR_ADMIN,
    "RotateApiKey": Policy.CUSTOMER_OR_ADMIN,
    "RevokeApiKey": Policy.CUSTOMER_OR_ADMIN,
    # The public port is given no internal token, so that nobody can call it there.
    "AuthenticateApiKey": Policy.INTERNAL,
}

ACCOUNT_INTERNAL: Final = dict.fromkeys(ACCOUNT, Policy.INTERNAL)
"""On the internal port, where only AuthenticateApiKey is served: the rest is refused to customers and admins alike."""

SUBSCRIPTION: Final = {
    "ListPlans": Policy.CUSTOMER_OR_ADMIN,
    "GetSubscription": Policy.CUSTOMER_OR_ADMIN,
    "ChangePlan": Policy.CUSTOMER_OR_ADMIN,
    "CancelSubscription": Policy.CUSTOMER_OR_ADMIN,
    "RevertPendingChange": Policy.CUSTOMER_OR_ADMIN,
    "PutContract": Policy.ADMIN,
}

USAGE: Final = {
    "GetUsage": Policy.CUSTOMER_OR_ADMIN,
    "WatchUsage": Policy.CUSTOMER_OR_ADMIN,
    "ListSessions": Policy.CUSTOMER_OR_ADMIN,
    "QueryUsage": Policy.CUSTOMER_OR_ADMIN,
    "GetForecast": Policy.CUSTOMER_OR_ADMIN,
    "AnalyzeCosts": Policy.CUSTOMER_OR_ADMIN,
    "EstimateCost": Policy.CUSTOMER_OR_ADMIN,
    "ReconcileUsage": Policy.ADMIN,
}

INVOICE: Final = {
    "ListInvoices": Policy.CUSTOMER_OR_ADMIN,
    "GetInvoice": Policy.CUSTOMER_OR_ADMIN,
    "PreviewInvoice": Policy.CUSTOMER_OR_ADMIN,
    "DownloadInvoice": Policy.CUSTOMER_OR_ADMIN,
    "MarkInvoicePaid": Policy.ADMIN,
    "VoidInvoice": Policy.ADMIN,
    "CreateCreditNote": Policy.ADMIN,
}

ALERT: Final = {
    "GetAlertSettings": Policy.CUSTOMER_OR_ADMIN,
    "UpdateAlertSettings": Policy.CUSTOMER_OR_ADMIN,
    "ListAlerts": Policy.CUSTOMER_OR_ADMIN,
    "WatchAlerts": Policy.CUSTOMER_OR_ADMIN,
    "SendAlert": Policy.CUSTOMER_OR_ADMIN,
    "CreateWebhook": Policy.CUSTOMER_OR_ADMIN,
    "ListWebhooks": Policy.CUSTOMER_OR_ADMIN,
    "RotateWebhookSecret": Policy.CUSTOMER_OR_ADMIN,
    "DeleteWebhook": Policy.CUSTOMER_OR_ADMIN,
    "RedeliverAlert": Policy.CUSTOMER_OR_ADMIN,
}

AUDIT: Final = {"ListAuditEvents": Policy.CUSTOMER_OR_ADMIN}
