"""AlertService."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Final

import grpc
from flowstack_protos.billing.v1 import alert_service_pb2 as pb
from flowstack_protos.billing.v1.alert_service_pb2_grpc import AlertServiceServicer

from services.billing.convert import alerts as convert
from services.billing.service.alert_settings import AlertSettingsService
from services.billing.service.alert_watching import AlertWatchService
from services.billing.service.alerts import AlertService
from services.billing.service.paging import PageRequest
from services.billing.service.webhooks import WebhookService
from services.billing.servicer.caller import actor_of_call
from services.billing.servicer.streams import StreamLimit
from services.shared.auth import account_of_call
from services.shared.clock import Clock
from services.shared.errors import FlowStackError, Reason
from services.shared.times import us_from_duration

Context = grpc.aio.ServicerContext

WRITE_TIMEOUT_S: Final = 30.0
"""How long a reader of a stream may leave a message lying."""


class AlertServicer(AlertServiceServicer):
    """Alerts, budgets and webhooks."""

    def __init__(
        self,
        settings: AlertSettingsService,
        alerts: AlertService,
        watching: AlertWatchService,
        webhooks: WebhookService,
        *,
        streams: StreamLimit,
        clock: Clock,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._alerts = alerts
        self._watching = watching
        self._webhooks = webhooks
        self._streams = streams
        self._clock = clock
        self._write_timeout_s = write_timeout_s

    async def GetAlertSettings(
        self, request: pb.GetAlertSettingsRequest, context: Context[Any, Any]
    ) -> pb.GetAlertSettingsResponse:
        """See the contract."""
        settings = await self._settings.read(account_of_call(request.account_id))
        return pb.GetAlertSettingsResponse(alert_settings=convert.settings_to_proto(settings))

    async def UpdateAlertSettings(
        self, request: pb.UpdateAlertSettingsRequest, context: Context[Any, Any]
    ) -> pb.UpdateAlertSettingsResponse:
        """See the contract."""
        change = convert.change_from_proto(request, account_of_call(request.account_id))
        return convert.updated_to_proto(await self._settings.update(change, actor_of_call(context)))

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: Context[Any, Any]) -> pb.ListAlertsResponse:
        """See the contract."""
        page = await self._alerts.list(
            account_of_call(request.account_id),
            convert.filter_from_proto(request),
            PageRequest(request.page_size, request.page_token),
        )
        return pb.ListAlertsResponse(alerts=map(convert.view_to_proto, page.items), next_page_token=page.next_token)

    async def WatchAlerts(  # type: ignore[override]  # the stubs know of generators only
        self, request: pb.WatchAlertsRequest, context: Context[Any, Any]
    ) -> None:
        """See the contract. Written to the context, so that a reader that takes nothing can be cut off."""
        account_id = account_of_call(request.account_id)
        kinds = convert.kinds_from_proto(request.kinds)
        with self._streams.one_more(account_id):
            async with aclosing(self._watching.watch(account_id, kinds, request.resume_token)) as stream:
                async for watched in stream:
                    await self._write(context, convert.watched_to_proto(watched))

    async def _write(self, context: Context[Any, Any], message: pb.WatchAlertsResponse) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await context.write(message)
        except TimeoutError:
            raise FlowStackError(
                Reason.READER_TOO_SLOW, "The stream was not read for 30 s. Call again with the last resume_token."
            ) from None

    async def SendAlert(self, request: pb.SendAlertRequest, context: Context[Any, Any]) -> pb.SendAlertResponse:
        """See the contract."""
        view = await self._alerts.send(convert.own_from_proto(request, account_of_call(request.account_id)))
        return pb.SendAlertResponse(alert=convert.view_to_proto(view))

    async def CreateWebhook(
        self, request: pb.CreateWebhookRequest, context: Context[Any, Any]
    ) -> pb.CreateWebhookResponse:
        """See the contract."""
        created = await self._webhooks.create(
            account_of_call(request.account_id),
            request.url,
            request.display_name,
            convert.format_from_proto(request.format),
            actor_of_call(context),
        )
        webhook = convert.webhook_to_proto(created.webhook, self._clock.now_us())
        return pb.CreateWebhookResponse(webhook=webhook, secret=created.secret.reveal())

    async def ListWebhooks(
        self, request: pb.ListWebhooksRequest, context: Context[Any, Any]
    ) -> pb.ListWebhooksResponse:
        """See the contract."""
        page = await self._webhooks.list(
            account_of_call(request.account_id), PageRequest(request.page_size, request.page_token)
        )
        now_us = self._clock.now_us()
        webhooks = [convert.webhook_to_proto(webhook, now_us) for webhook in page.items]
        return pb.ListWebhooksResponse(webhooks=webhooks, next_page_token=page.next_token)

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Context[Any, Any]
    ) -> pb.RotateWebhookSecretResponse:
        """See the contract."""
        rotated = await self._webhooks.rotate(
            account_of_call(request.account_id),
            request.webhook_id,
            us_from_duration(request, "overlap"),
            actor_of_call(context),
        )
        webhook = convert.webhook_to_proto(rotated.webhook, self._clock.now_us())
        return pb.RotateWebhookSecretResponse(webhook=webhook, secret=rotated.secret.reveal())

    async def DeleteWebhook(
        self, request: pb.DeleteWebhookRequest, context: Context[Any, Any]
    ) -> pb.DeleteWebhookResponse:
        """See the contract."""
        await self._webhooks.delete(account_of_call(request.account_id), request.webhook_id, actor_of_call(context))
        return pb.DeleteWebhookResponse()

    async def RedeliverAlert(
        self, request: pb.RedeliverAlertRequest, context: Context[Any, Any]
    ) -> pb.RedeliverAlertResponse:
        """See the contract."""
        view = await self._alerts.redeliver(account_of_call(request.account_id), request.alert_id, request.webhook_id)
        return pb.RedeliverAlertResponse(alert=convert.view_to_proto(view))
