"""What the audit log says of things: plain fields, no secret, no name or address of a person."""

from __future__ import annotations

from services.billing.domain.alerts import AlertSettings
from services.billing.domain.audit import Facts
from services.billing.domain.invoices import CreditNote, Invoice
from services.billing.domain.model import Account, ApiKey, Subscription
from services.billing.domain.webhooks import Webhook


def facts_of_account(account: Account) -> Facts:
    """An account's."""
    return {
        "state": account.state.name,
        "plan_id": account.plan_id,
        "subscription_id": account.subscription_id,
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
        "terms.plan_version": terms.plan_version,
        "terms.contract_id": terms.contract_id or None,
        "terms.price_micro": terms.price_micro,
        "terms.session_limit": terms.session_limit,
        "terms.managed_providers": list(terms.managed_providers),
        "terms.max_concurrent_sessions": terms.max_concurrent_sessions,
        "terms.max_output_tokens": terms.max_output_tokens,
        "terms.max_tool_rounds": terms.max_tool_rounds,
        "terms.support_level": terms.support_level.name,
        "terms.features": list(terms.features),
        "anchor_us": subscription.anchor_us,
        "end_us": subscription.end_us or None,
        "pending_change_id": subscription.pending_change_id or None,
        "pending_plan_id": pending.plan_id if pending else None,
        "pending_plan_version": pending.plan_version if pending else None,
        "pending_price_micro": pending.price_micro if pending else None,
        "pending_session_limit": pending.session_limit if pending else None,
        "contract.contract_id": contract.contract_id if contract else None,
        "contract.price_micro": contract.terms.price_micro if contract else None,
        "contract.session_limit": contract.terms.session_limit if contract else None,
        "contract.effective_us": contract.effective_us if contract else None,
        "contract.end_us": (contract.end_us or None) if contract else None,
        "contract.reference": (contract.reference or None) if contract else None,
    }


def facts_of_key(key: ApiKey) -> Facts:
    """An API key's: never its digest."""
    return {
        "create_us": key.create_us,
        "display_name": key.display_name or None,
        "expire_us": key.expire_us or None,
        "revoke_us": key.revoke_us or None,
        "rotated_from": key.rotated_from or None,
        "rotated_to": key.rotated_to or None,
    }


def facts_of_invoice(invoice: Invoice) -> Facts:
    """An invoice's."""
    return {
        "number": invoice.number,
        "kind": invoice.kind.name,
        "state": invoice.state.name,
        "total_micro": invoice.total_micro,
        "credited_micro": invoice.credited_micro or None,
        "paid_micro": invoice.paid_micro or None,
        "payment_reference": invoice.payment_reference or None,
        "void_reason": invoice.void_reason or None,
    }


def facts_of_credit_note(note: CreditNote) -> Facts:
    """A credit note's."""
    return {
        "number": note.number,
        "invoice_id": note.invoice_id,
        "total_micro": note.total_micro,
        "refund_micro": note.refund_micro or None,
    }


def facts_of_alert_settings(settings: AlertSettings) -> Facts:
    """An account's alert settings."""
    budget = settings.budget
    return {
        "thresholds": list(settings.thresholds),
        "sinks": [
            {"webhook_id": sink.webhook_id, "kinds": [kind.name for kind in sink.kinds]} for sink in settings.sinks
        ],
        "budget.max_micro": budget.max_micro if budget else None,
        "budget.action": budget.action.name if budget else None,
    }


def facts_of_webhook(webhook: Webhook) -> Facts:
    """A webhook's: never its address as a whole, nor a secret."""
    return {
        "display_name": webhook.display_name or None,
        "url": webhook.redacted_url,
        "format": webhook.format.name,
        "create_us": webhook.create_us,
        "rotate_us": webhook.rotate_us or None,
        "previous_expire_us": webhook.previous_expire_us or None,
    }
