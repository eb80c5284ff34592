"""Lists in pages: each item once, and a token is good for the call that it was answered to alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import pytest
from flowstack_protos.billing.v1 import account_service_pb2 as accounts
from flowstack_protos.billing.v1 import alert_service_pb2 as alerts
from flowstack_protos.billing.v1 import audit_service_pb2 as audit
from flowstack_protos.billing.v1 import invoice_service_pb2 as invoices
from flowstack_protos.billing.v1 import subscription_service_pb2 as subscriptions
from flowstack_protos.vault.v1 import vault_service_pb2 as vault

from tests.contract.target import Customer, Target, refusal


class List(NamedTuple):
    """A method that lists."""

    method: Callable[[Target], Any]
    request: type[Any]
    items: str
    more: Callable[[Customer], Any]
    """Adds an item."""
    other: dict[str, Any]
    """Fields of another list."""
    size: str = "page_size"


def change_plan(customer: Customer) -> None:
    """Asks for the plan that the account does not have."""
    standing = customer.call(customer.target.subscriptions.GetSubscription, subscriptions.GetSubscriptionRequest())
    wanted = "starter" if standing.subscription.plan_id == "hobbyist" else "professional"
    request = subscriptions.ChangePlanRequest(plan_id=wanted)
    customer.call(customer.target.subscriptions.ChangePlan, request)


def store(customer: Customer) -> None:
    """A document."""
    customer.call(customer.target.vault.Store, vault.StoreRequest(collection="notes", document_json="{}"))


LISTS = {
    "keys": List(
        lambda target: target.accounts.ListApiKeys,
        accounts.ListApiKeysRequest,
        "api_keys",
        lambda one: one.call(one.target.accounts.CreateApiKey, accounts.CreateApiKeyRequest(display_name="k")),
        {"include_inactive": True},
    ),
    "invoices": List(
        lambda target: target.invoices.ListInvoices,
        invoices.ListInvoicesRequest,
        "invoices",
        change_plan,
        {"kinds": [1]},
    ),
    "events": List(
        lambda target: target.audit.ListAuditEvents,
        audit.ListAuditEventsRequest,
        "audit_events",
        lambda one: one.call(one.target.accounts.CreateApiKey, accounts.CreateApiKeyRequest(display_name="k")),
        {"actor_kinds": [2]},
    ),
    "changes": List(
        lambda target: target.subscriptions.GetSubscription,
        subscriptions.GetSubscriptionRequest,
        "changes",
        change_plan,
        {},
    ),
    "alerts": List(
        lambda target: target.alerts.ListAlerts,
        alerts.ListAlertsRequest,
        "alerts",
        lambda one: one.call(one.target.alerts.SendAlert, alerts.SendAlertRequest(message="m")),
        {"kinds": [3]},
    ),
    "webhooks": List(
        lambda target: target.alerts.ListWebhooks,
        alerts.ListWebhooksRequest,
        "webhooks",
        lambda one: one.call(
            one.target.alerts.CreateWebhook, alerts.CreateWebhookRequest(url="https://hooks.invalid/x")
        ),
        {},
    ),
    "documents": List(
        lambda target: target.vault.Query, vault.QueryRequest, "documents", store, {"filter_json": "{}"}, "limit"
    ),
}


def page(customer: Customer, listing: List, **fields: Any) -> Any:
    """One page."""
    known = {"collection": "notes"} if listing.request is vault.QueryRequest else {}
    return customer.call(listing.method(customer.target), listing.request(**known | fields))


@pytest.fixture(params=LISTS)
def listing(request: pytest.FixtureRequest) -> List:
    """Each method that lists."""
    return LISTS[request.param]


def test_each_item_comes_once_though_more_are_added(hobbyist: Customer, listing: List) -> None:
    while len(whole := getattr(page(hobbyist, listing), listing.items)) < 2:
        listing.more(hobbyist)
    first = page(hobbyist, listing, **{listing.size: len(whole) - 1})
    listing.more(hobbyist)
    second = page(hobbyist, listing, **{listing.size: 100}, page_token=first.next_page_token)

    seen = [*getattr(first, listing.items), *getattr(second, listing.items)]
    assert [_without_use(one) for one in seen][: len(whole)] == [_without_use(one) for one in whole]
    assert second.next_page_token == ""


def _without_use(item: Any) -> Any:
    """A key is used by the very calls that list it."""
    if isinstance(item, accounts.ApiKey):
        item.ClearField("last_use_time")
    return item


def test_a_token_of_another_call_is_refused(target: Target, hobbyist: Customer, listing: List) -> None:
    while len(getattr(page(hobbyist, listing), listing.items)) < 2:
        listing.more(hobbyist)
    token = page(hobbyist, listing, **{listing.size: 1}).next_page_token
    stranger = target.open_account("free")
    tries: list[Callable[[], Any]] = [
        lambda: page(hobbyist, listing, page_token="nonsense"),
        lambda: page(hobbyist, listing, page_token=token[:-2]),
        lambda: page(stranger, listing, page_token=token),
        lambda: hobbyist.call(target.accounts.ListApiKeys, accounts.ListApiKeysRequest(page_token="x" + token)),
    ]
    if listing.other:
        tries.append(lambda: page(hobbyist, listing, page_token=token, **listing.other))

    for attempt in tries:
        code, info = refusal(attempt)
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert getattr(page(hobbyist, listing, **{listing.size: 7}, page_token=token), listing.items)


def test_pages_hold_50_unless_asked_otherwise(free: Customer) -> None:
    for _ in range(51):
        free.call(free.target.alerts.SendAlert, alerts.SendAlertRequest(message="m"))
    usual = page(free, LISTS["alerts"])

    assert len(usual.alerts) == 50
    assert usual.next_page_token
