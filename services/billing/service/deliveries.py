"""Brings alerts to webhooks: at once, and again and again where a receiver is down, until it is given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from services.billing.alert_store import AtOnce, Receiver
from services.billing.domain.alerts import Alert
from services.billing.domain.webhooks import (
    AttemptResult,
    Delivery,
    DeliveryFailure,
    DeliveryState,
    Webhook,
    WebhookFormat,
    after_attempt,
    slack_body,
    standard_body,
)
from services.billing.service.context import Context
from services.billing.store import Transaction
from services.billing.webhooks import Sealer, SealError, Signer, WebhookSender
from services.shared.background import Backoff, waited
from services.shared.log import frames_of, get_logger
from services.shared.secret import Secret

AT_ONCE: Final = 64
"""Attempts that run at the same time in one replica."""

AT_ONCE_OF_ACCOUNT: Final = 4
"""Of these of one account: slow receivers of one must not keep others' alerts waiting."""

AT_ONCE_OF_WEBHOOK: Final = 2
"""Of these to one webhook: a receiver that hangs must not keep the account's other webhooks waiting."""

LEASE_US: Final = 60_000_000
"""How long a delivery is in a replica's hands; several times as long as an attempt may take."""

IDLE_S: Final = 1.0
"""How often it is looked for what is due where nothing calls for it: another replica may have left something."""

DEFECT_RETRY_US: Final = 60_000_000
"""How long until a delivery that could not even be tried is taken up again."""


class DeliveryDispatcher:
    """The one way by which alerts reach webhooks.

    A delivery is written with its alert, and taken in hand under a lease: of several replicas one makes an attempt.
    Should that replica die, another goes on once the lease has ended; the receiver may get the alert twice then, and
    tells it by its id.
    """

    def __init__(
        self, context: Context, sender: WebhookSender, sealer: Sealer, signer: Signer, backoff: Backoff
    ) -> None:
        self._context = context
        self._sender = sender
        self._sealer = sealer
        self._signer = signer
        self._jitter = backoff.jitter
        self._log = get_logger()
        self._running: dict[asyncio.Task[None], Receiver] = {}

    async def run_once(self) -> bool:
        """Takes in hand what is due, then waits until something may be due again. Always True."""
        signal = self._context.signals.deliveries
        signal.clear()
        room = AT_ONCE - len(self._running)
        taken = await self._claim(room) if room else []
        for delivery in taken:
            task = asyncio.create_task(self._try(delivery))
            self._running[task] = Receiver(delivery.account_id, delivery.webhook_id)
            task.add_done_callback(self._finished)
        if not taken:
            await self._wait()
        return True

    async def close(self) -> None:
        """Breaks off what runs; other replicas, or the next start, go on with it once the leases have ended."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        # There is room, and what is due may have waited for it.
        self._context.signals.deliveries.set()

    async def _claim(self, room: int) -> list[Delivery]:
        now_us, busy = self._context.clock.now_us(), Counter(self._running.values())
        at_once = AtOnce(AT_ONCE_OF_ACCOUNT, AT_ONCE_OF_WEBHOOK)
        taken = await self._context.store.transact(
            lambda transaction: transaction.webhooks.claim(now_us, LEASE_US, room, busy, at_once)
        )
        return list(taken)

    async def _wait(self) -> None:
        # Due ones that wait for room of their account or webhook are called for when one of its attempts has ended.
        now_us = self._context.clock.now_us()
        next_us = await self._context.store.transact(lambda transaction: transaction.webhooks.next_due_us(now_us))
        wait_s = IDLE_S if next_us is None else min(IDLE_S, (next_us - now_us) / 1e6)
        await waited(self._context.signals.deliveries, wait_s)

    async def _try(self, delivery: Delivery) -> None:
        try:
            result = await self._attempt(delivery)
            if result is not None:
                await self._note(delivery, result)
        except Exception as error:  # one delivery's defect must not keep the others from theirs
            self._log.error(
                "defect",
                detail="alert delivery",
                account_id=delivery.account_id,
                error_type=type(error).__name__,
                traceback=frames_of(error),
            )

    async def _attempt(self, delivery: Delivery) -> AttemptResult | None:
        """Makes an attempt; None where it could not be made for a reason of ours."""

        async def read(transaction: Transaction) -> tuple[Webhook | None, Alert | None]:
            webhook = await transaction.webhooks.find(delivery.account_id, delivery.webhook_id)
            return webhook, await transaction.alerts.find(delivery.account_id, delivery.alert_id)

        webhook, alert = await self._context.store.transact(read)
        if webhook is None or alert is None:
            return AttemptResult(DeliveryFailure.WEBHOOK_DELETED)
        try:
            url = self._sealer.open(webhook.sealed_url, f"{webhook.webhook_id}/url")
            secrets = self._secrets_of(webhook)
        except SealError:
            self._log.error(
                "webhook_cannot_be_opened", account_id=webhook.account_id, detail="FLOWSTACK_KEY_PEPPER is another one"
            )
            later_us = self._context.clock.now_us() + DEFECT_RETRY_US
            await self._context.store.transact(lambda transaction: transaction.webhooks.let_go(delivery, later_us))
            return None
        body, headers = slack_body(alert), dict[str, str]()
        if webhook.format is WebhookFormat.STANDARD:
            body = standard_body(alert)
            headers = self._signer.headers(secrets, alert.alert_id, self._context.clock.now_us(), body)
        return await self._sender.post(delivery.account_id, url, headers, body)

    def _secrets_of(self, webhook: Webhook) -> list[Secret]:
        place = f"{webhook.webhook_id}/secret"
        secrets = [self._sealer.open(webhook.sealed_secret, place)] if webhook.sealed_secret else []
        if webhook.sealed_previous and self._context.clock.now_us() < webhook.previous_expire_us:
            secrets.append(self._sealer.open(webhook.sealed_previous, place))
        return secrets

    async def _note(self, delivery: Delivery, result: AttemptResult) -> None:
        now_us = self._context.clock.now_us()
        state, delay_s = after_attempt(delivery.tries, result, self._jitter())
        if result.failure is DeliveryFailure.WEBHOOK_DELETED:
            state = DeliveryState.DEAD
        next_us = now_us + round(delay_s * 1e6) if state is DeliveryState.PENDING else 0
        if state is not DeliveryState.DELIVERED:
            self._log.warning(
                "alert_not_delivered",
                account_id=delivery.account_id,
                failure=result.failure.name,
                attempt=delivery.tries + 1,
                delay_s=round(delay_s, 3),
            )
        await self._context.store.transact(
            lambda transaction: transaction.webhooks.finish(delivery, result, state, next_us, now_us)
        )
