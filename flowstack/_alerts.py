"""`agent.alerts` and `agent.budget`. Every method can raise FlowStackError; none costs a session."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from flowstack_protos.billing.v1.alert_service_pb2 import WatchAlertsRequest

from flowstack import _notices
from flowstack._client import AsyncClient, Client
from flowstack._methods import AlertService
from flowstack._notices import AlertInfo, AlertSettingsInfo, BudgetInfo, WebhookInfo
from flowstack._watch import AsyncWatch, Watch


class Alerts:
    """Alerts of the account and where they go."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def settings(self) -> AlertSettingsInfo:
        """Thresholds, and where alerts go."""
        return self._client.run(_notices.settings())

    def set_thresholds(self, thresholds: Iterable[int]) -> AlertSettingsInfo:
        """Sets the thresholds: percentages of the limit, 1 to 100; none for no usage alerts."""
        return self._client.run(_notices.set_thresholds(thresholds))

    def send_to(self, webhook_ids: Iterable[str]) -> AlertSettingsInfo:
        """Sets the webhooks that alerts go to."""
        return self._client.run(_notices.send_to(webhook_ids))

    def send(
        self,
        message: str,
        *,
        severity: str = "warning",
        data: Mapping[str, Any] | None = None,
        webhook_ids: Sequence[str] = (),
        request_id: str | None = None,
    ) -> AlertInfo:
        """Sends an alert of your own, `info`, `warning` or `critical`, to every sink or the webhooks named."""
        return self._client.run(_notices.send(message, severity, data, webhook_ids, request_id))

    def list(self, limit: int = 50) -> builtins.list[AlertInfo]:
        """Alerts and what became of them, newest first."""
        return self._client.run(_notices.list_alerts(limit))

    def watch(self, resume_token: str = "") -> Watch[AlertInfo]:
        """Alerts as they fire, until the watch is closed; from now on, or all since another watch's `resume_token`."""
        request = WatchAlertsRequest(resume_token=resume_token)
        return self._client.watch(AlertService.WatchAlerts, request, _notices.alert_told)

    def create_webhook(self, url: str, *, name: str = "", format: str = "standard") -> WebhookInfo:  # noqa: A002
        """Makes a webhook, `standard` (signed; its secret is in the answer alone) or `slack`."""
        return self._client.run(_notices.create_webhook(url, name, format))

    def webhooks(self) -> builtins.list[WebhookInfo]:
        """The webhooks, newest first, without secrets."""
        return self._client.run(_notices.list_webhooks())

    def rotate_webhook_secret(self, webhook_id: str) -> WebhookInfo:
        """Gives a webhook a new secret; the old one signs beside it for 24 h."""
        return self._client.run(_notices.rotate_webhook_secret(webhook_id))

    def delete_webhook(self, webhook_id: str) -> None:
        """Deletes a webhook."""
        self._client.run(_notices.delete_webhook(webhook_id))


class AsyncAlerts:
    """As Alerts, to be awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def settings(self) -> AlertSettingsInfo:
        """As Alerts.settings."""
        return await self._client.run(_notices.settings())

    async def set_thresholds(self, thresholds: Iterable[int]) -> AlertSettingsInfo:
        """As Alerts.set_thresholds."""
        return await self._client.run(_notices.set_thresholds(thresholds))

    async def send_to(self, webhook_ids: Iterable[str]) -> AlertSettingsInfo:
        """As Alerts.send_to."""
        return await self._client.run(_notices.send_to(webhook_ids))

    async def send(
        self,
        message: str,
        *,
        severity: str = "warning",
        data: Mapping[str, Any] | None = None,
        webhook_ids: Sequence[str] = (),
        request_id: str | None = None,
    ) -> AlertInfo:
        """As Alerts.send."""
        return await self._client.run(_notices.send(message, severity, data, webhook_ids, request_id))

    async def list(self, limit: int = 50) -> builtins.list[AlertInfo]:
        """As Alerts.list."""
        return await self._client.run(_notices.list_alerts(limit))

    def watch(self, resume_token: str = "") -> AsyncWatch[AlertInfo]:
        """As Alerts.watch. Use it with `async with`, so that leaving it ends the watch."""
        request = WatchAlertsRequest(resume_token=resume_token)
        return self._client.watch(AlertService.WatchAlerts, request, _notices.alert_told)

    async def create_webhook(self, url: str, *, name: str = "", format: str = "standard") -> WebhookInfo:  # noqa: A002
        """As Alerts.create_webhook."""
        return await self._client.run(_notices.create_webhook(url, name, format))

    async def webhooks(self) -> builtins.list[WebhookInfo]:
        """As Alerts.webhooks."""
        return await self._client.run(_notices.list_webhooks())

    async def rotate_webhook_secret(self, webhook_id: str) -> WebhookInfo:
        """As Alerts.rotate_webhook_secret."""
        return await self._client.run(_notices.rotate_webhook_secret(webhook_id))

    async def delete_webhook(self, webhook_id: str) -> None:
        """As Alerts.delete_webhook."""
        await self._client.run(_notices.delete_webhook(webhook_id))


class Budget:
    """The most that the account means to spend in a period."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self) -> BudgetInfo | None:
        """The budget and where the period stands; None where there is none."""
        return self._client.run(_notices.get_budget())

    def set(self, max_monthly_cost: float | Decimal, action: str = "warn") -> BudgetInfo:
        """Sets the most that a period may cost, in dollars, and whether to `warn` or `block` beyond it."""
        return self._client.run(_notices.set_budget(max_monthly_cost, action))

    def clear(self) -> None:
        """Drops the budget."""
        self._client.run(_notices.clear_budget())


class AsyncBudget:
    """As Budget, to be awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self) -> BudgetInfo | None:
        """As Budget.get."""
        return await self._client.run(_notices.get_budget())

    async def set(self, max_monthly_cost: float | Decimal, action: str = "warn") -> BudgetInfo:
        """As Budget.set."""
        return await self._client.run(_notices.set_budget(max_monthly_cost, action))

    async def clear(self) -> None:
        """As Budget.clear."""
        await self._client.run(_notices.clear_budget())
