"""Webhooks of the fake: made, listed, given new secrets and deleted, and never called."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import SplitResult, urlsplit

from flowstack_protos.billing.v1 import alert_service_pb2 as pb

from flowstack.testing._alerts import count_call, put_settings, webhook_of
from flowstack.testing._audit import NOTHING, action_of
from flowstack.testing._calls import Call, page_of
from flowstack.testing._errors import FakeError
from flowstack.testing._facts import facts_of_webhook
from flowstack.testing._ids import new_id
from flowstack.testing._time import DAY_US, timestamp
from flowstack.testing._world import World

WEBHOOKS_MAX: Final = 20
OVERLAP_US: Final = DAY_US
"""How long the old secret signs beside a new one, where nothing else is asked for."""


class Webhooks:
    """The methods of AlertService that are about webhooks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create_webhook(self, call: Call, request: pb.CreateWebhookRequest) -> pb.CreateWebhookResponse:
        """Makes a webhook; of its address no more is checked than that it has the form of one."""
        form = request.format or pb.WEBHOOK_FORMAT_STANDARD
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            if len(account.webhooks) >= WEBHOOKS_MAX:
                raise FakeError(
                    "WEBHOOK_LIMIT_EXCEEDED",
                    f"The account has {WEBHOOKS_MAX} webhooks, the most that it can. Delete one that is not needed.",
                )
            count_call(account, call.method, now_us, "webhooks can be asked for")
            webhook = pb.Webhook(
                webhook_id=new_id("wh_"),
                account_id=call.account_id,
                display_name=request.display_name,
                redacted_url=_redacted(urlsplit(request.url), form),
                format=form,
                create_time=timestamp(now_us),
            )
            account.webhooks.append(webhook)
            account.log.note(
                action_of(call),
                account.account_id,
                "webhook",
                webhook.webhook_id,
                NOTHING,
                facts_of_webhook(webhook),
                now_us,
            )
        secret = "" if form == pb.WEBHOOK_FORMAT_SLACK else _new_secret()
        return pb.CreateWebhookResponse(webhook=webhook, secret=secret)

    def list_webhooks(self, call: Call, request: pb.ListWebhooksRequest) -> pb.ListWebhooksResponse:
        """The webhooks, newest first."""
        with self._world.lock:
            webhooks = list(reversed(self._world.account(call.account_id).webhooks))
        page, token = page_of(webhooks, call, request)
        return pb.ListWebhooksResponse(webhooks=page, next_page_token=token)

    def rotate_webhook_secret(
        self, call: Call, request: pb.RotateWebhookSecretRequest
    ) -> pb.RotateWebhookSecretResponse:
        """Gives a webhook a new secret; the old one would sign beside it until the overlap ends."""
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            account.refuse_deleted()
            webhook = webhook_of(account, request.webhook_id)
            if webhook.format != pb.WEBHOOK_FORMAT_STANDARD:
                raise FakeError(
                    "WEBHOOK_WITHOUT_SECRET",
                    "Webhooks in Slack's form are not signed. Where the address is known to others, make a new "
                    "webhook with a new address and delete this one.",
                )
            before = facts_of_webhook(webhook)
            overlap_us = request.overlap.ToMicroseconds() if request.HasField("overlap") else OVERLAP_US
            webhook.rotate_time.CopyFrom(timestamp(now_us))
            webhook.ClearField("previous_secret_expire_time")
            if overlap_us:
                webhook.previous_secret_expire_time.CopyFrom(timestamp(now_us + overlap_us))
            facts = before, facts_of_webhook(webhook)
            account.log.note(action_of(call), account.account_id, "webhook", webhook.webhook_id, *facts, now_us)
            return pb.RotateWebhookSecretResponse(webhook=webhook, secret=_new_secret())

    def delete_webhook(self, call: Call, request: pb.DeleteWebhookRequest) -> pb.DeleteWebhookResponse:
        """Deletes a webhook, takes it out of the sinks and ends its waiting deliveries."""
        with self._world.lock:
            account, now_us = self._world.account(call.account_id), self._world.clock.now_us()
            webhook = webhook_of(account, request.webhook_id)
            account.webhooks.remove(webhook)
            kept = [sink for sink in account.settings.sinks if sink.webhook_id != request.webhook_id]
            if len(kept) < len(account.settings.sinks):
                settings = pb.AlertSettings()
                settings.CopyFrom(account.settings)
                settings.ClearField("sinks")
                settings.sinks.extend(kept)
                put_settings(account, settings, action_of(call), now_us)
            for delivery in (delivery for alert in account.alerts for delivery in alert.deliveries):
                if delivery.webhook_id == request.webhook_id and delivery.state == pb.DELIVERY_STATE_PENDING:
                    delivery.state = pb.DELIVERY_STATE_DEAD
                    delivery.last_failure = pb.DELIVERY_FAILURE_WEBHOOK_DELETED
                    delivery.ClearField("next_attempt_time")
            facts = facts_of_webhook(webhook), NOTHING
            account.log.note(action_of(call), account.account_id, "webhook", webhook.webhook_id, *facts, now_us)
        return pb.DeleteWebhookResponse()


def _new_secret() -> str:
    return f"whsec_{secrets.token_urlsafe(32)}"


def _redacted(url: SplitResult, form: pb.WebhookFormat.ValueType) -> str:
    """The address without its user, password and query, and in Slack's form without its path."""
    user = "…@" if "@" in url.netloc else ""
    host = url.netloc.rpartition("@")[2]
    path = "/…" if form == pb.WEBHOOK_FORMAT_SLACK else url.path or "/"
    return f"{url.scheme}://{user}{host}{path}" + ("?…" if url.query else "")
