"""The audit log says who changed what, from what to what, and holds no secret."""

from __future__ import annotations

import json
from typing import Any

import grpc
from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import audit_service_pb2 as pb
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.billing.v1 import usage_service_pb2 as usage
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from tests.contract.target import Customer, Target, refusal

ADMIN, CUSTOMER = pb.ACTOR_KIND_ADMIN, pb.ACTOR_KIND_CUSTOMER

Said = tuple[str, str, list[str]]


def events_of(customer: Customer, **fields: Any) -> list[pb.AuditEvent]:
    """The account's events, newest first."""
    answered = customer.call(customer.target.audit.ListAuditEvents, pb.ListAuditEventsRequest(**fields))
    return list(answered.audit_events)


def said(events: list[pb.AuditEvent]) -> list[Said]:
    """By whom, what, and which fields."""
    return [
        (event.action.rpartition(".")[2], event.resource_type, [change.field for change in event.changes])
        for event in events
    ]


def changes_of(event: pb.AuditEvent) -> dict[str, tuple[Any, Any]]:
    """By field: from what, to what."""

    def value(text: str) -> Any:
        return json.loads(text) if text else None

    return {change.field: (value(change.from_json), value(change.to_json)) for change in event.changes}


def test_an_account_begins_with_its_events(hobbyist: Customer) -> None:
    events = events_of(hobbyist)

    terms = ["plan_id", "plan_version", "price_micro", "session_limit", "managed_providers"]
    terms += ["max_concurrent_sessions", "max_output_tokens", "max_tool_rounds", "support_level", "features"]
    assert said(events) == [
        ("CreateApiKey", "api_key", ["create_us", "display_name"]),
        ("CreateAccount", "invoice", ["number", "kind", "state", "total_micro"]),
        ("CreateAccount", "subscription", [*(f"terms.{name}" for name in terms), "anchor_us"]),
        ("CreateAccount", "account", ["state", "plan_id", "subscription_id"]),
    ]
    assert {(event.actor_kind, event.actor_id) for event in events} == {(ADMIN, "")}
    assert {event.account_id for event in events} == {hobbyist.account_id}
    assert all(event.peer for event in events)
    assert len({event.audit_event_id for event in events}) == 4


def test_it_says_who_changed_what(hobbyist: Customer) -> None:
    (key,) = hobbyist.call(hobbyist.target.accounts.ListApiKeys, accounts.ListApiKeysRequest()).api_keys
    request = subscriptions.ChangePlanRequest(plan_id="starter", request_id="r1")
    answered = hobbyist.call(hobbyist.target.subscriptions.ChangePlan, request)
    invoice, account, subscription = events_of(hobbyist, actions=["SubscriptionService.ChangePlan"])

    assert {(event.actor_kind, event.actor_id) for event in (invoice, account, subscription)} == {
        (CUSTOMER, key.api_key_id)
    }
    assert {event.request_id for event in (invoice, account, subscription)} == {"r1"}
    assert changes_of(account) == {"plan_id": ("hobbyist", "starter")}
    assert changes_of(subscription) == {
        "terms.plan_id": ("hobbyist", "starter"),
        "terms.price_micro": (15_000_000, 50_000_000),
        "terms.session_limit": (200, 1_000),
        "terms.max_concurrent_sessions": (50, 100),
        "terms.max_output_tokens": (8_192, 16_384),
    }
    assert (invoice.resource_type, invoice.resource_id) == ("invoice", answered.invoice.invoice_id)
    assert changes_of(invoice)["kind"] == (None, "UPGRADE")


def test_it_says_to_what_a_plan_is_to_change(hobbyist: Customer) -> None:
    request = subscriptions.ChangePlanRequest(plan_id="free")
    change_id = hobbyist.call(hobbyist.target.subscriptions.ChangePlan, request).change.change_id
    (asked,) = events_of(hobbyist, actions=["SubscriptionService.ChangePlan"])
    hobbyist.call(hobbyist.target.subscriptions.RevertPendingChange, subscriptions.RevertPendingChangeRequest())
    (reverted,) = events_of(hobbyist, actions=["SubscriptionService.RevertPendingChange"])
    pending = {"change_id": change_id, "plan_id": "free", "plan_version": 1, "price_micro": 0, "session_limit": 25}

    assert changes_of(asked) == {f"pending_{name}": (None, value) for name, value in pending.items()}
    assert changes_of(reverted) == {f"pending_{name}": (value, None) for name, value in pending.items()}


def test_reasons_and_corrections_are_kept(hobbyist: Customer) -> None:
    target, named = hobbyist.target, {"account_id": hobbyist.account_id}
    (invoice,) = hobbyist.call(target.invoices.ListInvoices, invoices.ListInvoicesRequest()).invoices
    target.operate(target.accounts.SuspendAccount, accounts.SuspendAccountRequest(reason="late", **named))
    target.operate(target.accounts.SuspendAccount, accounts.SuspendAccountRequest(lift=True, **named))
    line = invoices.CreditNoteLineInput(line_number=1, amount=Money(currency_code="USD", units=15))
    credit = invoices.CreateCreditNoteRequest(
        invoice_id=invoice.invoice_id, lines=[line], reason="sorry", request_id="c", **named
    )
    target.operate(target.invoices.CreateCreditNote, credit)
    hobbyist.call(target.subscriptions.CancelSubscription, subscriptions.CancelSubscriptionRequest(reason="too dear"))
    events = events_of(hobbyist)[:5]

    assert said(events) == [
        ("CancelSubscription", "subscription", ["end_us", "pending_change_id"]),
        ("CreateCreditNote", "invoice", ["state", "credited_micro"]),
        ("CreateCreditNote", "credit_note", ["number", "invoice_id", "total_micro"]),
        ("SuspendAccount", "account", ["state", "suspend_reason"]),
        ("SuspendAccount", "account", ["state", "suspend_reason"]),
    ]
    assert [event.reason for event in events] == ["too dear", "sorry", "sorry", "", "late"]
    assert changes_of(events[1]) == {"state": ("OPEN", "PAID"), "credited_micro": (None, 15_000_000)}


def test_keys_alerts_and_webhooks_are_in_it_without_secrets(free: Customer) -> None:
    target = free.target
    created = free.call(target.accounts.CreateApiKey, accounts.CreateApiKeyRequest(display_name="second"))
    rotated = free.call(
        target.accounts.RotateApiKey, accounts.RotateApiKeyRequest(api_key_id=created.api_key.api_key_id)
    )
    free.call(target.accounts.RevokeApiKey, accounts.RevokeApiKeyRequest(api_key_id=rotated.api_key.api_key_id))
    hook = free.call(
        target.alerts.CreateWebhook, alerts.CreateWebhookRequest(url="https://hooks.invalid/a?token=of-the-address")
    )
    settings = alerts.AlertSettings(sinks=[alerts.AlertSink(webhook_id=hook.webhook.webhook_id)], thresholds=[50])
    mask = FieldMask(paths=["sinks", "thresholds"])
    update = alerts.UpdateAlertSettingsRequest(alert_settings=settings, update_mask=mask)
    free.call(target.alerts.UpdateAlertSettings, update)
    free.call(target.alerts.UpdateAlertSettings, update)
    named = {"webhook_id": hook.webhook.webhook_id}
    secret = free.call(target.alerts.RotateWebhookSecret, alerts.RotateWebhookSecretRequest(**named)).secret
    free.call(target.alerts.DeleteWebhook, alerts.DeleteWebhookRequest(**named))
    events = events_of(free)

    assert said(events)[:9] == [
        ("DeleteWebhook", "webhook", ["url", "format", "create_us", "rotate_us", "previous_expire_us"]),
        ("DeleteWebhook", "alert_settings", ["sinks"]),
        ("RotateWebhookSecret", "webhook", ["rotate_us", "previous_expire_us"]),
        ("UpdateAlertSettings", "alert_settings", ["thresholds", "sinks"]),
        ("CreateWebhook", "webhook", ["url", "format", "create_us"]),
        ("RevokeApiKey", "api_key", ["revoke_us"]),
        ("RotateApiKey", "api_key", ["create_us", "display_name", "rotated_from"]),
        ("RotateApiKey", "api_key", ["expire_us", "rotated_to"]),
        ("CreateApiKey", "api_key", ["create_us", "display_name"]),
    ]
    written = "".join(str(event) for event in events)
    for kept_out in (created.secret, rotated.secret, hook.secret, secret, "of-the-address", free.secret):
        assert kept_out not in written


def test_a_deletion_is_told(free: Customer) -> None:
    target, named = free.target, {"account_id": free.account_id}
    target.operate(target.accounts.DeleteAccount, accounts.DeleteAccountRequest(reason="asked for it", **named))
    request = pb.ListAuditEventsRequest(actions=["AccountService.DeleteAccount"], **named)
    events = list(target.operate(target.audit.ListAuditEvents, request).audit_events)

    assert said(events) == [
        ("DeleteAccount", "account", ["state", "delete_us", "purge_us"]),
        ("DeleteAccount", "subscription", ["end_us"]),
    ]
    assert {event.reason for event in events} == {"asked for it"}


def test_events_are_filtered(hobbyist: Customer) -> None:
    everything = events_of(hobbyist)
    (invoice,) = [event for event in everything if event.resource_type == "invoice"]

    assert events_of(hobbyist, actor_kinds=[CUSTOMER]) == []
    assert events_of(hobbyist, actor_kinds=[ADMIN]) == everything
    assert events_of(hobbyist, resource_id=invoice.resource_id) == [invoice]
    assert events_of(hobbyist, start_time=everything[0].event_time) == everything[:1]
    assert events_of(hobbyist, end_time=everything[0].event_time) == everything[1:]


def test_the_operator_sees_every_account_and_what_belongs_to_none(target: Target, free: Customer) -> None:
    other = target.open_account("free")
    target.operate(target.accounts.ListAccounts, accounts.ListAccountsRequest(plan_id="starter", page_size=1))
    request = pb.ListAuditEventsRequest(page_size=200)
    events = list(target.operate(target.audit.ListAuditEvents, request).audit_events)

    assert {free.account_id, other.account_id, ""} <= {event.account_id for event in events}
    listing = next(event for event in events if not event.account_id)
    assert said([listing]) == [("ListAccounts", "account", ["listed"])]


def test_a_comparison_is_told(free: Customer) -> None:
    request = usage.ReconcileUsageRequest(account_id=free.account_id)
    free.target.operate(free.target.usage.ReconcileUsage, request)

    assert said(events_of(free))[0] == ("ReconcileUsage", "ledger", ["accounts_compared", "drifts"])


def test_one_reads_of_ones_own_account(target: Target, free: Customer) -> None:
    other = target.open_account("free")
    request = pb.ListAuditEventsRequest(account_id=other.account_id)
    code, info = refusal(lambda: free.call(target.audit.ListAuditEvents, request))
    unknown = pb.ListAuditEventsRequest(account_id="acct_none")
    missing, _ = refusal(lambda: target.operate(target.audit.ListAuditEvents, unknown))

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCOUNT_MISMATCH")
    assert missing is grpc.StatusCode.NOT_FOUND
