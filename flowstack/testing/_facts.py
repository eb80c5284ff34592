"""What the audit log says of things: plain fields. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import budget_pb2, invoice_pb2, plan_pb2

from flowstack.testing._audit import Facts
from flowstack.testing._plans import micro_of
from flowstack.testing._subscriptions import Subscription

if TYPE_CHECKING:
    from flowstack.testing._records import Account, ApiKey


def facts_of_account(account: Account) -> Facts:
    """An account's."""
    return {
        "state": accounts.AccountState.Name(account.state).removeprefix("ACCOUNT_STATE_"),
        "plan_id": account.subscription.terms.plan_id,
        "subscription_id": account.subscription.subscription_id,
        "suspend_reason": account.suspend_reason or None,
        "suspend_until_us": account.suspend_until_us or None,
        "delete_us": account.delete_us or None,
        "purge_us": account.purge_us or None,
    }


def facts_of_subscription(subscription: Subscription) -> Facts:
    """A subscription's. A renewal changes none of them."""
    terms, contract, pending = subscription.terms, subscription.contract, subscription.pending_terms
    return {
        "terms.plan_id": terms.plan_id,
        "terms.plan_version": 1,
        "terms.contract_id": terms.contract_id or None,
        "terms.price_micro": terms.price_micro,
        "terms.session_limit": terms.session_limit,
        "terms.managed_providers": list(terms.managed_providers),
        "terms.max_concurrent_sessions": terms.max_concurrent_sessions,
        "terms.max_output_tokens": terms.max_output_tokens,
        "terms.max_tool_rounds": terms.max_tool_rounds,
        "terms.support_level": plan_pb2.SupportLevel.Name(terms.support_level).removeprefix("SUPPORT_LEVEL_"),
        "terms.features": list(terms.features),
        "anchor_us": subscription.anchor_us,
        "end_us": subscription.end_us or None,
        "pending_change_id": subscription.pending_change_id or None,
        "pending_plan_id": pending.plan_id if pending else None,
        "pending_plan_version": 1 if pending else None,
        "pending_price_micro": pending.price_micro if pending else None,
        "pending_session_limit": pending.session_limit if pending else None,
        "contract.contract_id": contract.terms.contract_id if contract else None,
        "contract.price_micro": contract.terms.price_micro if contract else None,
        "contract.session_limit": contract.terms.session_limit if contract else None,
        "contract.effective_us": contract.effective_us if contract else None,
        "contract.end_us": (contract.end_us or None) if contract else None,
        "contract.reference": (contract.reference or None) if contract else None,
    }


def facts_of_key(key: ApiKey) -> Facts:
    """An API key's: never its secret."""
    return {
        "create_us": key.create_us,
        "display_name": key.display_name or None,
        "expire_us": key.expire_us or None,
        "revoke_us": key.revoke_us or None,
        "rotated_from": key.rotated_from or None,
        "rotated_to": key.rotated_to or None,
    }


def facts_of_invoice(invoice: invoice_pb2.Invoice) -> Facts:
    """An invoice's."""
    return {
        "number": invoice.number,
        "kind": invoice_pb2.InvoiceKind.Name(invoice.kind).removeprefix("INVOICE_KIND_"),
        "state": invoice_pb2.InvoiceState.Name(invoice.state).removeprefix("INVOICE_STATE_"),
        "total_micro": micro_of(invoice.total),
        "credited_micro": micro_of(invoice.amount_credited) or None,
        "paid_micro": micro_of(invoice.amount_paid) or None,
        "payment_reference": invoice.payment_reference or None,
        "void_reason": invoice.void_reason or None,
    }


def facts_of_credit_note(note: invoice_pb2.CreditNote) -> Facts:
    """A credit note's."""
    return {
        "number": note.number,
        "invoice_id": note.invoice_id,
        "total_micro": micro_of(note.total),
        "refund_micro": micro_of(note.refund_amount) or None,
    }


def facts_of_alert_settings(settings: alerts.AlertSettings) -> Facts:
    """An account's alert settings."""
    budget = settings.budget if settings.HasField("budget") else None
    return {
        "thresholds": list(settings.thresholds),
        "sinks": [
            {
                "webhook_id": sink.webhook_id,
                "kinds": [alerts.AlertKind.Name(kind).removeprefix("ALERT_KIND_") for kind in sink.kinds],
            }
            for sink in settings.sinks
        ],
        "budget.max_micro": micro_of(budget.max_monthly_cost) if budget else None,
        "budget.action": budget_pb2.BudgetAction.Name(budget.action).removeprefix("BUDGET_ACTION_") if budget else None,
    }


def facts_of_webhook(webhook: alerts.Webhook) -> Facts:
    """A webhook's: never its address as a whole, nor a secret."""
    return {
        "display_name": webhook.display_name or None,
        "url": webhook.redacted_url,
        "format": alerts.WebhookFormat.Name(webhook.format).removeprefix("WEBHOOK_FORMAT_"),
        "create_us": webhook.create_time.ToMicroseconds(),
        "rotate_us": webhook.rotate_time.ToMicroseconds() or None,
        "previous_expire_us": webhook.previous_secret_expire_time.ToMicroseconds() or None,
    }
