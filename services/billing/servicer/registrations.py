"""Which services stand on which port, and under which policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowstack_protos.billing.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    invoice_service_pb2,
    invoice_service_pb2_grpc,
    subscription_service_pb2,
    subscription_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)

from services.billing.servicer import policies
from services.billing.servicer.accounts import AccountServicer, InternalAccountServicer
from services.billing.servicer.alerts import AlertServicer
from services.billing.servicer.audit import AuditServicer
from services.billing.servicer.invoices import InvoiceServicer
from services.billing.servicer.subscriptions import SubscriptionServicer
from services.billing.servicer.usage import UsageServicer
from services.shared.auth import Policy
from services.shared.server import Registration


def public_registrations(
    accounts: AccountServicer,
    subscriptions: SubscriptionServicer,
    usage: UsageServicer,
    invoices: InvoiceServicer,
    *,
    alerts: AlertServicer,
    audits: AuditServicer,
) -> list[Registration]:
    """The services of the public port. What has no servicer of ours yet answers UNIMPLEMENTED."""
    account, subscription, usages = account_service_pb2_grpc, subscription_service_pb2_grpc, usage_service_pb2_grpc
    invoice, alert, audit = invoice_service_pb2_grpc, alert_service_pb2_grpc, audit_service_pb2_grpc
    return [
        _registration(account_service_pb2, account.add_AccountServiceServicer_to_server, accounts, policies.ACCOUNT),
        _registration(
            subscription_service_pb2,
            subscription.add_SubscriptionServiceServicer_to_server,
            subscriptions,
            policies.SUBSCRIPTION,
        ),
        _registration(usage_service_pb2, usages.add_UsageServiceServicer_to_server, usage, policies.USAGE),
        _registration(invoice_service_pb2, invoice.add_InvoiceServiceServicer_to_server, invoices, policies.INVOICE),
        _registration(alert_service_pb2, alert.add_AlertServiceServicer_to_server, alerts, policies.ALERT),
        _registration(audit_service_pb2, audit.add_AuditServiceServicer_to_server, audits, policies.AUDIT),
    ]


def internal_registrations(accounts: InternalAccountServicer) -> list[Registration]:
    """The services of the internal port."""
    add_to_server = account_service_pb2_grpc.add_AccountServiceServicer_to_server
    return [_registration(account_service_pb2, add_to_server, accounts, policies.ACCOUNT_INTERNAL)]


def _registration(
    module: Any, add_to_server: Callable[[Any, Any], None], servicer: Any, service_policies: Mapping[str, Policy]
) -> Registration:
    # Each file of the contracts declares one service.
    (descriptor,) = module.DESCRIPTOR.services_by_name.values()
    return Registration(descriptor, add_to_server, servicer, service_policies)
