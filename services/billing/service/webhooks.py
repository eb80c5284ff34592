"""Webhooks: creating, listing, giving new secrets, deleting."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final, NamedTuple, NoReturn

from services.billing.domain.audit import NOTHING, Action, Actor
from services.billing.domain.facts import facts_of_alert_settings, facts_of_webhook
from services.billing.domain.ids import new_id
from services.billing.domain.webhooks import SECRET_BYTES, WEBHOOKS_MAX, Webhook, WebhookFormat
from services.billing.service.call_rates import count_call
from services.billing.service.context import Context
from services.billing.service.open_account import OpenAccount
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import Transaction
from services.billing.webhooks import Sealer, Signer, WebhookSender
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret

OVERLAP_US: Final = 24 * 3600 * 1_000_000
"""How long the old secret signs beside a new one, where nothing else is asked for."""


class NewSecret(NamedTuple):
    """A webhook with the secret that it was given; it can be read here and nowhere else."""

    webhook: Webhook
    secret: Secret


class WebhookService:
    """Use cases of webhooks."""

    def __init__(self, context: Context, sender: WebhookSender, sealer: Sealer, signer: Signer) -> None:
        self._context = context
        self._sender = sender
        self._sealer = sealer
        self._signer = signer

    async def create(
        self, account_id: str, url: str, display_name: str, form: WebhookFormat, actor: Actor
    ) -> NewSecret:
        """Creates a webhook.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, WEBHOOK_LIMIT_EXCEEDED, ALERT_RATE_LIMITED;
                INVALID_REQUEST for an address that the operator does not allow.
        """

        async def admit(transaction: Transaction) -> None:
            await transaction.accounts.lock(account_id)
            await _demand_room(transaction, account_id)
            now_us = self._context.clock.now_us()
            await count_call(transaction, account_id, "CreateWebhook", now_us, "webhooks can be asked for")

        # Before the look-up, which takes more and leaves this machine; room is demanded below once more.
        await self._context.store.transact(admit)
        redacted = await self._sender.check(account_id, url, form)
        action = Action(actor, "AlertService.CreateWebhook")
        secret = self._new_secret() if form is WebhookFormat.STANDARD else Secret("")

        async def work(transaction: Transaction) -> Webhook:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            opened.refuse_deleted()
            await _demand_room(transaction, account_id)
            webhook_id = new_id("wh_", self._context.randomness)
            webhook = Webhook(
                webhook_id,
                account_id,
                display_name,
                redacted,
                form,
                self._sealer.seal(url, f"{webhook_id}/url"),
                self._seal_secret(webhook_id, secret),
                b"",
                0,
                opened.now_us,
                0,
            )
            await transaction.webhooks.insert(webhook)
            await opened.audit(action, "webhook", webhook_id, NOTHING, facts_of_webhook(webhook))
            return webhook

        return NewSecret(await self._context.store.transact(work), secret)

    async def list(self, account_id: str, request: PageRequest) -> Page[Webhook]:
        """Lists webhooks, newest first.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND; INVALID_REQUEST: another call's page token.
        """

        async def read(transaction: Transaction) -> Page[Webhook]:
            await transaction.accounts.get(account_id)
            return await read_page(
                self._context.page_tokens,
                ("ListWebhooks", account_id),
                request,
                lambda after, limit: transaction.webhooks.list(account_id, after, limit),
                lambda webhook: (webhook.create_us, webhook.webhook_id),
            )

        return await self._context.store.transact(read)

    async def rotate(self, account_id: str, webhook_id: str, overlap_us: int | None, actor: Actor) -> NewSecret:
        """Gives a webhook a new secret; the old one signs beside it until the overlap ends.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, ACCOUNT_DELETED, WEBHOOK_NOT_FOUND, WEBHOOK_WITHOUT_SECRET.
        """
        action = Action(actor, "AlertService.RotateWebhookSecret")
        secret = self._new_secret()

        async def work(transaction: Transaction) -> Webhook:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            opened.refuse_deleted()
            before = await transaction.webhooks.find(account_id, webhook_id) or _webhook_not_found()
            if before.format is not WebhookFormat.STANDARD:
                raise FlowStackError(
                    Reason.WEBHOOK_WITHOUT_SECRET,
                    "Webhooks in Slack's form are not signed. Where the address is known to others, make a new "
                    "webhook with a new address and delete this one.",
                )
            overlap = OVERLAP_US if overlap_us is None else overlap_us
            after = replace(
                before,
                sealed_secret=self._seal_secret(webhook_id, secret),
                sealed_previous=before.sealed_secret if overlap else b"",
                previous_expire_us=opened.now_us + overlap if overlap else 0,
                rotate_us=opened.now_us,
            )
            await transaction.webhooks.set_secrets(after)
            await opened.audit(action, "webhook", webhook_id, facts_of_webhook(before), facts_of_webhook(after))
            return after

        return NewSecret(await self._context.store.transact(work), secret)

    async def delete(self, account_id: str, webhook_id: str, actor: Actor) -> None:
        """Deletes a webhook, takes it out of the sinks and ends its waiting deliveries.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, WEBHOOK_NOT_FOUND.
        """
        action = Action(actor, "AlertService.DeleteWebhook")

        async def work(transaction: Transaction) -> None:
            opened = await OpenAccount.open(self._context, transaction, account_id)
            webhook = await transaction.webhooks.find(account_id, webhook_id) or _webhook_not_found()
            before = await transaction.alerts.settings(account_id)
            sinks = tuple(sink for sink in before.sinks if sink.webhook_id != webhook_id)
            if sinks != before.sinks:
                after = replace(before, sinks=sinks, update_us=opened.now_us, version=before.version + 1)
                await transaction.alerts.put_settings(after)
                facts = facts_of_alert_settings(before), facts_of_alert_settings(after)
                await opened.audit(action, "alert_settings", account_id, *facts)
            await transaction.webhooks.delete(account_id, [webhook_id])
            await opened.audit(action, "webhook", webhook_id, facts_of_webhook(webhook), NOTHING)

        await self._context.store.transact(work)

    def _new_secret(self) -> Secret:
        return self._signer.new_secret(self._context.randomness(SECRET_BYTES))

    def _seal_secret(self, webhook_id: str, secret: Secret) -> bytes:
        return self._sealer.seal(secret.reveal(), f"{webhook_id}/secret") if secret else b""


async def demand_webhooks(transaction: Transaction, account_id: str, webhook_ids: Collection[str]) -> None:
    """Refuses webhooks that the account does not have.

    Raises:
        FlowStackError: WEBHOOK_NOT_FOUND.
    """
    if webhook_ids and set(webhook_ids) - set(await transaction.webhooks.existing(account_id, webhook_ids)):
        _webhook_not_found()


async def _demand_room(transaction: Transaction, account_id: str) -> None:
    """Refuses an account that has as many webhooks as it can."""
    if await transaction.webhooks.count(account_id) >= WEBHOOKS_MAX:
        raise FlowStackError(
            Reason.WEBHOOK_LIMIT_EXCEEDED,
            f"The account has {WEBHOOKS_MAX} webhooks, the most that it can. Delete one that is not needed.",
        )


def _webhook_not_found() -> NoReturn:
    raise FlowStackError(
        Reason.WEBHOOK_NOT_FOUND, "The account has no such webhook. ListWebhooks shows those that it has."
    )
