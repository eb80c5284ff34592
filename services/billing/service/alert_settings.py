"""Alert settings: thresholds, sinks and the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from services.billing.domain.alerts import AlertSettings
from services.billing.domain.audit import Action, Actor
from services.billing.domain.facts import facts_of_alert_settings
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.service.open_account import OpenAccount
from services.billing.service.webhooks import demand_webhooks
from services.billing.store import Transaction
from services.shared.errors import FlowStackError, Reason


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


class AlertSettingsService:
    """Use cases of alert settings."""

    def __init__(self, context: Context, dispatcher: EntitlementDispatcher) -> None:
        self._context = context
        self._dispatcher = dispatcher

    async def read(self, account_id: str) -> AlertSettings:
        """Reads an account's settings.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND.
        """

        async def work(transaction: Transaction) -> AlertSettings:
            await transaction.accounts.get(account_id)
            return await transaction.alerts.settings(account_id)

        return await self._context.store.transact(work)

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
                await demand_webhooks(transaction, account_id, [sink.webhook_id for sink in after.sinks])
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


def _check_etag(settings: AlertSettings, etag: str) -> None:
    if etag and etag != settings.etag:
        raise FlowStackError(
            Reason.STALE_ETAG,
            "The alert settings have changed since they were read. Read them again, and decide again.",
            metadata={"etag": settings.etag},
        )
