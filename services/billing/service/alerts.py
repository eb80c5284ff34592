"""Alerts: settings, reading, watching, sending one's own, sending again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple, NoReturn

from services.billing.alert_store import AlertFilter
from services.billing.domain.alerts import (
    Alert,
    AlertKind,
    AlertSettings,
    AlertSeverity,
)
from services.billing.domain.audit import Action, Actor
from services.billing.domain.facts import facts_of_alert_settings
from services.billing.domain.ledger import partition_of
from services.billing.domain.webhooks import Delivery
from services.billing.service.alerting import new_alert_id
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.open_account import OpenAccount
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.service.requests import Request, answer_once
from services.billing.store import Transaction
from services.shared.background import waited
from services.shared.errors import FlowStackError, Reason, invalid_request

CALLS_PER_MINUTE: Final = 60
MINUTE_US: Final = 60_000_000

LIFE_SIGN_S: Final = 30.0
"""How often a stream without alerts says that it is alive."""

RECHECK_S: Final = 1.0
"""How often a stream looks for alerts that another replica has written."""

ALERTS_AT_ONCE: Final = 100
"""How many alerts a stream reads from the store at a time."""


class AlertView(NamedTuple):
    """An alert with its deliveries."""

    alert: Alert
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """Which settings are to be changed, and to what."""

    account_id: str
    wanted: AlertSettings
    fields: tuple[str, ...]
    """Of `thresholds`, `sinks` and `budget`."""
    etag: str


@dataclass(frozen=True, slots=True)
class UpdatedSettings:
    """The settings after a change, and whether quota has what followed from it."""

    settings: AlertSettings
    applied: bool


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


class WatchedAlert(NamedTuple):
    """What a stream of alerts says: an alert, or a sign of life."""

    view: AlertView | None
    resume_token: str


class AlertService:
    """Use cases of alerts."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

    async def settings(self, account_id: str) -> AlertSettings:
        """Reads an account's settings.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """

        async def read(transaction: Transaction) -> AlertSettings:
            await transaction.accounts.get(account_id)
            return await transaction.alerts.settings(account_id)

        return await self._context.store.transact(read)

    async def update(self, change: SettingsChange, actor: Actor) -> UpdatedSettings:
        """Changes settings; what is due by the new ones fires, and quota is told of a budget that blocks now.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, STALE_ETAG, WEBHOOK_NOT_FOUND.
        """
        account_id = change.account_id
        action = Action(actor, "AlertService.UpdateAlertSettings")

        async def work(transaction: Transaction) -> AlertSettings:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            opened.refuse_deleted()
            before = await transaction.alerts.settings(account_id)
            _check_etag(before, change.etag)
            values: dict[str, Any] = {field: getattr(change.wanted, field) for field in change.fields}
            after = replace(before, **values)
            if "sinks" in change.fields:
                await _demand(transaction, account_id, [sink.webhook_id for sink in after.sinks])
            if after != before:
                after = replace(after, update_us=opened.now_us, version=before.version + 1)
                await transaction.alerts.put_settings(after)
                facts = facts_of_alert_settings(before), facts_of_alert_settings(after)
                await opened.audit(action, "alert_settings", account_id, *facts)
            await opened.close(action)
            return after

        settings = await self._context.store.transact(work)
        if "budget" not in change.fields:
            return UpdatedSettings(settings, True)
        return UpdatedSettings(settings, (await self._dispatcher.apply(account_id)).applied)

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
            return Page(tuple(await _views(transaction, account_id, page.items)), page.next_token)

        return await self._context.store.transact(read)

    async def watch(
        self, account_id: str, kinds: Collection[AlertKind], resume_token: str
    ) -> AsyncIterator[WatchedAlert]:
        """Alerts as they fire, after those that the token has seen; a sign of life at first and every 30 s.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, SHUTTING_DOWN; INVALID_REQUEST: the token is not this account's.
        """
        signals, clock = self._context.signals, self._context.clock
        changed = signals.watch(account_id)
        try:
            seen = await self._begin(account_id, resume_token)
            yield WatchedAlert(None, self._token(account_id, seen))
            spoken_s = clock.monotonic_s()
            while True:
                changed.clear()
                if signals.draining.is_set():
                    raise FlowStackError(
                        Reason.SHUTTING_DOWN, "Billing is shutting down. Call again with the last resume_token."
                    )
                views = await self._after(account_id, seen)
                for view in views:
                    seen = view.alert.sequence
                    if not kinds or view.alert.kind in kinds:
                        yield WatchedAlert(view, self._token(account_id, seen))
                        spoken_s = clock.monotonic_s()
                if len(views) == ALERTS_AT_ONCE:
                    continue
                if clock.monotonic_s() - spoken_s >= LIFE_SIGN_S:
                    yield WatchedAlert(None, self._token(account_id, seen))
                    spoken_s = clock.monotonic_s()
                await waited(changed, RECHECK_S if self._context.store.shared else LIFE_SIGN_S)
        finally:
            signals.unwatch(account_id, changed)

    async def _begin(self, account_id: str, resume_token: str) -> int:
        """The place after which a stream begins."""

        async def newest(transaction: Transaction) -> int:
            await transaction.accounts.get(account_id)
            return (await transaction.alerts.last_sequences([account_id])).get(account_id, 0)

        last = await self._context.store.transact(newest)
        if not resume_token:
            return last
        try:
            position = self._context.page_tokens.open(("WatchAlerts", account_id), resume_token)
        except FlowStackError:
            raise invalid_request("resume_token", "must be the last one of a stream of the same account") from None
        return last if position is None else position[0]

    def _token(self, account_id: str, sequence: int) -> str:
        return self._context.page_tokens.seal(("WatchAlerts", account_id), (sequence, ""))

    async def _after(self, account_id: str, sequence: int) -> Sequence[AlertView]:
        async def read(transaction: Transaction) -> Sequence[AlertView]:
            # Places are allotted under the lock of the account's partition: what is committed has no gaps.
            alerts = await transaction.alerts.since(account_id, sequence, ALERTS_AT_ONCE)
            return await _views(transaction, account_id, alerts)

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
        await _count_call(transaction, account_id, "SendAlert", now_us)
        await _demand(transaction, account_id, own.webhook_ids)
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
        (view,) = await _views(transaction, account_id, [alert])
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
            await _demand(transaction, account_id, [webhook_id] if webhook_id else [])
            await _count_call(transaction, account_id, "RedeliverAlert", opened.now_us)
            went_to = {d.webhook_id for d in await transaction.webhooks.deliveries(account_id, [alert_id])}
            wanted = {webhook_id} if webhook_id else await transaction.webhooks.existing(account_id, went_to)
            await transaction.webhooks.redeliver(alert, wanted, opened.now_us)
            transaction.after_commit(self._context.signals.deliveries.set)
            (view,) = await _views(transaction, account_id, [alert])
            return view

        return await self._context.store.transact(work)


async def _views(transaction: Transaction, account_id: str, alerts: Sequence[Alert]) -> Sequence[AlertView]:
    deliveries: dict[str, list[Delivery]] = {alert.alert_id: [] for alert in alerts}
    for delivery in await transaction.webhooks.deliveries(account_id, deliveries.keys()):
        deliveries[delivery.alert_id].append(delivery)
    return [AlertView(alert, tuple(deliveries[alert.alert_id])) for alert in alerts]


async def _demand(transaction: Transaction, account_id: str, webhook_ids: Collection[str]) -> None:
    if webhook_ids and set(webhook_ids) - set(await transaction.webhooks.existing(account_id, webhook_ids)):
        webhook_not_found()


def webhook_not_found() -> NoReturn:
    """Says that there is no such webhook."""
    raise FlowStackError(
        Reason.WEBHOOK_NOT_FOUND, "The account has no such webhook. ListWebhooks shows those that it has."
    )


async def _count_call(transaction: Transaction, account_id: str, method: str, now_us: int) -> None:
    """Refuses more than 60 calls in any 60 s. The account is locked, so that none is miscounted."""
    times = [time_us for time_us in await transaction.alerts.calls(account_id, method) if time_us > now_us - MINUTE_US]
    if len(times) >= CALLS_PER_MINUTE:
        wait_us = times[0] + MINUTE_US - now_us
        raise FlowStackError(
            Reason.ALERT_RATE_LIMITED,
            f"At most {CALLS_PER_MINUTE} alerts a minute can be sent. Try again in {-(-wait_us // 1_000_000)} s.",
            retry_after=timedelta(microseconds=wait_us),
        )
    await transaction.alerts.put_calls(account_id, method, [*times, now_us])


def _check_etag(settings: AlertSettings, etag: str) -> None:
    if etag and etag != settings.etag:
        raise FlowStackError(
            Reason.STALE_ETAG,
            "The alert settings have changed since they were read. Read them again, and decide again.",
            metadata={"etag": settings.etag},
        )


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
