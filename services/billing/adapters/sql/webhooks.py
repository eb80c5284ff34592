"""Webhooks and the deliveries to them in SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.alert_tables import ALERT_DELIVERIES, WEBHOOKS
from services.billing.adapters.sql.dialect import in_portions, insert_unless_there
from services.billing.alert_store import AtOnce, Receiver
from services.billing.domain.alerts import Alert
from services.billing.domain.paging import Position
from services.billing.domain.webhooks import (
    AttemptResult,
    Delivery,
    DeliveryFailure,
    DeliveryState,
    Webhook,
    WebhookFormat,
)

_WEBHOOKS = WEBHOOKS.c
_DELIVERIES = ALERT_DELIVERIES.c
_IS_PENDING = _DELIVERIES.state == int(DeliveryState.PENDING)


class SqlWebhooks:
    """Webhooks and the deliveries to them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, webhook: Webhook) -> None:
        """Adds a webhook."""
        row = {column.name: getattr(webhook, column.name) for column in _WEBHOOKS} | {"format": int(webhook.format)}
        await self._connection.execute(insert(WEBHOOKS), row)

    async def find(self, account_id: str, webhook_id: str) -> Webhook | None:
        """One webhook of an account."""
        query = select(WEBHOOKS).where(_WEBHOOKS.webhook_id == webhook_id, _WEBHOOKS.account_id == account_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _webhook_from_row(row)

    async def existing(self, account_id: str, webhook_ids: Collection[str]) -> Collection[str]:
        """Which of these the account has."""
        query = select(_WEBHOOKS.webhook_id).where(
            _WEBHOOKS.account_id == account_id, _WEBHOOKS.webhook_id.in_(sorted(webhook_ids))
        )
        return set((await self._connection.execute(query)).scalars())

    async def count(self, account_id: str) -> int:
        """How many an account has."""
        query = select(func.count()).where(_WEBHOOKS.account_id == account_id)
        return (await self._connection.execute(query)).scalar_one()

    async def list(self, account_id: str, after: Position | None, limit: int) -> Sequence[Webhook]:
        """Webhooks of an account, newest first."""
        query = select(WEBHOOKS).where(_WEBHOOKS.account_id == account_id)
        if after is not None:
            query = query.where(tuple_(_WEBHOOKS.create_us, _WEBHOOKS.webhook_id) < tuple_(*after))
        query = query.order_by(_WEBHOOKS.create_us.desc(), _WEBHOOKS.webhook_id.desc()).limit(limit)
        return [_webhook_from_row(row) for row in await self._connection.execute(query)]

    async def set_secrets(self, webhook: Webhook) -> None:
        """Writes a webhook's secrets and when they were replaced."""
        statement = update(WEBHOOKS).where(_WEBHOOKS.webhook_id == webhook.webhook_id)
        names = ("sealed_secret", "sealed_previous", "previous_expire_us", "rotate_us")
        await self._connection.execute(statement.values({name: getattr(webhook, name) for name in names}))

    async def delete(self, account_id: str, webhook_ids: Collection[str]) -> None:
        """Deletes webhooks, and ends the deliveries that wait for them."""
        ids = sorted(webhook_ids)
        await self._connection.execute(
            delete(WEBHOOKS).where(_WEBHOOKS.account_id == account_id, _WEBHOOKS.webhook_id.in_(ids))
        )
        await self._connection.execute(
            update(ALERT_DELIVERIES)
            .where(_DELIVERIES.account_id == account_id, _DELIVERIES.webhook_id.in_(ids), _IS_PENDING)
            .values(
                state=int(DeliveryState.DEAD),
                next_attempt_us=0,
                last_failure=int(DeliveryFailure.WEBHOOK_DELETED),
                last_http_status=0,
                # Who is at an attempt has lost the delivery.
                fence=_DELIVERIES.fence + 1,
                lease_end_us=0,
            )
        )

    async def add_deliveries(self, alert: Alert, webhook_ids: Collection[str]) -> None:
        """Has an alert delivered, at once."""
        await self._add(alert, webhook_ids, alert.create_us)

    async def _add(self, alert: Alert, webhook_ids: Collection[str], due_us: int) -> None:
        rows = [
            {column.name: 0 for column in _DELIVERIES}
            | {
                "alert_id": alert.alert_id,
                "webhook_id": webhook_id,
                "account_id": alert.account_id,
                "state": int(DeliveryState.PENDING),
                "next_attempt_us": due_us,
            }
            for webhook_id in sorted(webhook_ids)
        ]
        if rows:
            await self._connection.execute(insert_unless_there(self._connection, ALERT_DELIVERIES), rows)

    async def deliveries(self, account_id: str, alert_ids: Collection[str]) -> Sequence[Delivery]:
        """The deliveries of alerts of an account."""
        found: list[Delivery] = []
        for some in in_portions(sorted(alert_ids)):
            query = select(ALERT_DELIVERIES).where(_DELIVERIES.account_id == account_id, _DELIVERIES.alert_id.in_(some))
            rows = await self._connection.execute(query.order_by(_DELIVERIES.alert_id, _DELIVERIES.webhook_id))
            found += map(_delivery_from_row, rows)
        return found

    async def redeliver(self, alert: Alert, webhook_ids: Collection[str], now_us: int) -> None:
        """Makes deliveries due now: those that wait as they are, ended ones anew, missing ones for the first time."""
        theirs = and_(_DELIVERIES.alert_id == alert.alert_id, _DELIVERIES.webhook_id.in_(sorted(webhook_ids)))
        await self._connection.execute(
            update(ALERT_DELIVERIES).where(theirs, _IS_PENDING).values(next_attempt_us=now_us)
        )
        await self._connection.execute(
            update(ALERT_DELIVERIES)
            .where(theirs, ~_IS_PENDING)
            .values(
                state=int(DeliveryState.PENDING),
                tries=0,
                next_attempt_us=now_us,
                lease_end_us=0,
                fence=_DELIVERIES.fence + 1,
            )
        )
        await self._add(alert, webhook_ids, now_us)

    async def claim(
        self, now_us: int, lease_us: int, limit: int, busy: Mapping[Receiver, int], at_once: AtOnce
    ) -> Sequence[Delivery]:
        """Takes deliveries that are due in hand, the longest due first."""
        of_webhook, of_account = Counter(busy), Counter[str]()
        for receiver, count in busy.items():
            of_account[receiver.account_id] += count
        full_accounts = [account_id for account_id, count in of_account.items() if count >= at_once.of_account]
        full_webhooks = [receiver for receiver, count in busy.items() if count >= at_once.of_webhook]
        query = (
            select(ALERT_DELIVERIES)
            .where(
                _IS_PENDING,
                _DELIVERIES.next_attempt_us <= now_us,
                _DELIVERIES.lease_end_us <= now_us,
                _DELIVERIES.account_id.not_in(full_accounts),
                _DELIVERIES.webhook_id.not_in([receiver.webhook_id for receiver in full_webhooks]),
            )
            .order_by(_DELIVERIES.next_attempt_us)
            .limit(limit)
            # Of two replicas one takes a delivery and the other another.
            .with_for_update(skip_locked=True)
        )
        taken = list[Delivery]()
        for row in await self._connection.execute(query):
            receiver = Receiver(row.account_id, row.webhook_id)
            if of_account[row.account_id] < at_once.of_account and of_webhook[receiver] < at_once.of_webhook:
                of_account[row.account_id] += 1
                of_webhook[receiver] += 1
                taken.append(_delivery_from_row(row, fence=row.fence + 1))
        for delivery in taken:
            await self._connection.execute(
                update(ALERT_DELIVERIES)
                .where(_is(delivery))
                .values(fence=delivery.fence, lease_end_us=now_us + lease_us)
            )
        return taken

    async def next_due_us(self, now_us: int) -> int | None:
        """When a delivery that is not due yet will be; None for never."""
        query = select(func.min(_DELIVERIES.next_attempt_us)).where(_IS_PENDING, _DELIVERIES.next_attempt_us > now_us)
        next_us: int | None = (await self._connection.execute(query)).scalar_one()
        return next_us

    async def finish(
        self, delivery: Delivery, result: AttemptResult, state: DeliveryState, next_us: int, now_us: int
    ) -> bool:
        """Writes what became of an attempt; False where the delivery is in other hands by now."""
        values: dict[str, Any] = {
            "state": int(state),
            "attempts": _DELIVERIES.attempts + 1,
            "tries": _DELIVERIES.tries + 1,
            "last_attempt_us": now_us,
            "next_attempt_us": next_us,
            "last_failure": int(result.failure),
            "last_http_status": result.http_status,
            "lease_end_us": 0,
        }
        if state is DeliveryState.DELIVERED:
            values["deliver_us"] = now_us
        statement = update(ALERT_DELIVERIES).where(_is(delivery), _DELIVERIES.fence == delivery.fence)
        return (await self._connection.execute(statement.values(values))).rowcount == 1

    async def let_go(self, delivery: Delivery, next_us: int) -> None:
        """Gives a delivery back without an attempt, to be made then."""
        statement = update(ALERT_DELIVERIES).where(_is(delivery), _DELIVERIES.fence == delivery.fence)
        await self._connection.execute(statement.values(lease_end_us=0, next_attempt_us=next_us))


def _is(delivery: Delivery) -> Any:
    return and_(_DELIVERIES.alert_id == delivery.alert_id, _DELIVERIES.webhook_id == delivery.webhook_id)


def _webhook_from_row(row: Any) -> Webhook:
    return Webhook(
        row.webhook_id,
        row.account_id,
        row.display_name,
        row.redacted_url,
        WebhookFormat(row.format),
        bytes(row.sealed_url),
        bytes(row.sealed_secret),
        bytes(row.sealed_previous),
        row.previous_expire_us,
        row.create_us,
        row.rotate_us,
    )


def _delivery_from_row(row: Any, *, fence: int | None = None) -> Delivery:
    return Delivery(
        row.alert_id,
        row.webhook_id,
        row.account_id,
        DeliveryState(row.state),
        row.attempts,
        row.tries,
        row.last_attempt_us,
        row.next_attempt_us,
        row.deliver_us,
        DeliveryFailure(row.last_failure),
        row.last_http_status,
        row.fence if fence is None else fence,
    )
