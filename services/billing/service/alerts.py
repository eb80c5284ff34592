"""Alerts: reading them, sending one's own, sending again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from services.billing.alert_store import AlertFilter
from services.billing.domain.alerts import Alert, AlertKind, AlertSeverity
from services.billing.domain.ledger import partition_of
from services.billing.domain.webhooks import Delivery
from services.billing.service.alerting import new_alert_id
from services.billing.service.call_rates import count_call
from services.billing.service.context import Context
from services.billing.service.open_account import OpenAccount
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.service.requests import Request, answer_once
from services.billing.service.webhooks import demand_webhooks
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason, invalid_request


class AlertView(NamedTuple):
    """An alert with its deliveries."""

    alert: Alert
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class OwnAlert:
    """An alert that a customer sends."""

    account_id: str
    message: str
    severity: AlertSeverity
    data_json: str
    webhook_ids: tuple[str, ...]
    """Empty for every sink that takes custom alerts."""
    request_id: str


class AlertService:
    """Use cases of alerts."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, account_id: str, wanted: AlertFilter, request: PageRequest) -> Page[AlertView]:
        """Lists alerts with their deliveries, newest first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND; INVALID_REQUEST: another call's page token.
        """
        scope = (
            "ListAlerts",
            account_id,
            ",".join(str(int(kind)) for kind in sorted(wanted.kinds)),
            str(wanted.start_us),
            str(wanted.end_us),
            ",".join(str(int(state)) for state in sorted(wanted.delivery_states)),
            wanted.webhook_id,
        )

        async def read(transaction: Transaction) -> Page[AlertView]:
            await transaction.accounts.get(account_id)
            page = await read_page(
                self._context.page_tokens,
                scope,
                request,
                lambda after, limit: transaction.alerts.list(account_id, wanted, after, limit),
                lambda alert: (alert.sequence, alert.alert_id),
            )
            return Page(tuple(await views_of(transaction, account_id, page.items)), page.next_token)

        return await self._context.store.transact(read)

    async def send(self, own: OwnAlert) -> AlertView:
        """Sends an alert of the customer's own.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, DUPLICATE_REQUEST, WEBHOOK_NOT_FOUND,
                ALERT_RATE_LIMITED; INVALID_REQUEST for data that is no JSON object.
        """
        _check_object(own.data_json)
        account_id = own.account_id
        content = (own.message, int(own.severity), own.data_json, sorted(own.webhook_ids))
        request = Request("SendAlert", account_id, own.request_id, content)

        async def work(transaction: Transaction) -> AlertView:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            opened.refuse_deleted()
            return await answer_once(
                transaction, request, opened.now_us, AlertView, lambda: self._send(transaction, own, opened.now_us)
            )

        return await self._context.store.transact(work)

    async def _send(self, transaction: Transaction, own: OwnAlert, now_us: int) -> AlertView:
        account_id = own.account_id
        await count_call(transaction, account_id, "SendAlert", now_us, "alerts can be sent")
        await demand_webhooks(transaction, account_id, own.webhook_ids)
        settings = await transaction.alerts.settings(account_id)
        sinks = [sink.webhook_id for sink in settings.sinks if sink.takes(AlertKind.CUSTOM)]
        # As those that fire by themselves, so that places are allotted in the order of commits.
        await transaction.partitions.lock([partition_of(account_id)])
        place = (await transaction.alerts.last_sequences([account_id])).get(account_id, 0) + 1
        alert_id = new_alert_id(self._context, now_us)
        alert = Alert(
            alert_id,
            account_id,
            place,
            f"custom:{alert_id}",
            AlertKind.CUSTOM,
            own.severity,
            now_us,
            own.message,
            data_json=own.data_json,
        )
        await transaction.alerts.insert(alert)
        await transaction.webhooks.add_deliveries(alert, own.webhook_ids or sinks)
        transaction.after_commit(lambda: self._context.signals.alerted([account_id]))
        (view,) = await views_of(transaction, account_id, [alert])
        return view

    async def redeliver(self, account_id: str, alert_id: str, webhook_id: str) -> AlertView:
        """Sends an alert again, to one webhook or to all that it went to and that still exist.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, ALERT_NOT_FOUND, WEBHOOK_NOT_FOUND, ALERT_RATE_LIMITED.
        """

        async def work(transaction: Transaction) -> AlertView:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            opened.refuse_deleted()
            alert = await transaction.alerts.find(account_id, alert_id)
            if alert is None:
                raise FlowStackError(
                    Reason.ALERT_NOT_FOUND, "The account has no such alert. ListAlerts shows those that it has."
                )
            await demand_webhooks(transaction, account_id, [webhook_id] if webhook_id else [])
            await count_call(transaction, account_id, "RedeliverAlert", opened.now_us, "alerts can be sent")
            went_to = {d.webhook_id for d in await transaction.webhooks.deliveries(account_id, [alert_id])}
            wanted = {webhook_id} if webhook_id else await transaction.webhooks.existing(account_id, went_to)
            await transaction.webhooks.redeliver(alert, wanted, opened.now_us)
            transaction.after_commit(self._context.signals.deliveries.set)
            (view,) = await views_of(transaction, account_id, [alert])
            return view

        return await self._context.store.transact(work)


async def views_of(transaction: Transaction, account_id: str, alerts: Sequence[Alert]) -> Sequence[AlertView]:
    """Alerts of an account with their deliveries."""
    deliveries: dict[str, list[Delivery]] = {alert.alert_id: [] for alert in alerts}
    for delivery in await transaction.webhooks.deliveries(account_id, deliveries.keys()):
        deliveries[delivery.alert_id].append(delivery)
    return [AlertView(alert, tuple(deliveries[alert.alert_id])) for alert in alerts]


def _check_object(text: str) -> None:
    """Refuses what is no JSON object; JSON knows no NaN."""

    def refuse(_: str) -> NoReturn:
        raise ValueError

    try:
        is_object = not text or isinstance(json.loads(text, parse_constant=refuse), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise invalid_request("data_json", "must be a JSON object, or empty")
