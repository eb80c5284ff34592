"""Subscriptions, the outbox of entitlements, and remembered requests in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Select, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.dialect import insert_unless_there
from services.billing.adapters.sql.rows import (
    change_from_row,
    entitlement_from_text,
    entitlement_to_text,
    subscription_from_row,
    subscription_to_row,
    terms_from_text,
    terms_to_text,
    without_names,
)
from services.billing.adapters.sql.tables import ENTITLEMENT_OUTBOX, REQUESTS, SUBSCRIPTION_CHANGES, SUBSCRIPTIONS
from services.billing.domain.entitlements import Entitlement, EntitlementStatus
from services.billing.domain.model import ChangeState, Subscription, SubscriptionChange, Terms
from services.billing.domain.paging import Position
from services.billing.domain.renewal import Placement
from services.billing.store import PendingEntitlement
from services.shared.errors import FlowStackError, Reason

_OUTBOX = ENTITLEMENT_OUTBOX.c
_CHANGES = SUBSCRIPTION_CHANGES.c


class SqlSubscriptions:
    """Subscriptions and their history."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, subscription: Subscription) -> None:
        """Adds a subscription."""
        await self._connection.execute(insert(SUBSCRIPTIONS), subscription_to_row(subscription))

    async def update(self, subscription: Subscription) -> None:
        """Writes a subscription whose account this transaction has locked."""
        statement = update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.subscription_id == subscription.subscription_id)
        await self._connection.execute(statement.values(subscription_to_row(subscription)))

    async def unstated(self, account_id: str) -> Sequence[Subscription]:
        """Subscriptions of an account that lack a closing statement, now or once a period is over."""
        columns = SUBSCRIPTIONS.c
        is_open = or_(columns.end_us == 0, columns.stated_us < columns.end_us)
        query = select(SUBSCRIPTIONS).where(columns.account_id == account_id, is_open).order_by(columns.anchor_us)
        return [subscription_from_row(row) for row in await self._connection.execute(query)]

    async def insert_change(self, change: SubscriptionChange) -> None:
        """Adds a change to the history."""
        # The account is locked, so that no two get the same number.
        last = select(func.coalesce(func.max(_CHANGES.sequence), 0)).where(_CHANGES.account_id == change.account_id)
        await self._connection.execute(
            insert(SUBSCRIPTION_CHANGES),
            {
                "change_id": change.change_id,
                "account_id": change.account_id,
                "subscription_id": change.subscription_id,
                "kind": int(change.kind),
                "state": int(change.state),
                "from_terms": terms_to_text(change.from_terms),
                "to_terms": terms_to_text(change.to_terms),
                "request_us": change.request_us,
                "effective_us": change.effective_us,
                "drop_us": change.drop_us,
                "amount_micro": change.amount_micro,
                "invoice_id": change.invoice_id,
                "request_id": change.request_id,
                "sequence": (await self._connection.execute(last)).scalar_one() + 1,
            },
        )

    async def get(self, subscription_id: str) -> Subscription:
        """Reads a subscription that is known to exist."""
        query = select(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.subscription_id == subscription_id)
        return subscription_from_row((await self._connection.execute(query)).one())

    async def at(self, account_id: str, moment_us: int) -> Subscription:
        """The subscription that an account had at a time, or had last; before the first one that."""
        columns = SUBSCRIPTIONS.c
        of_account = select(SUBSCRIPTIONS).where(columns.account_id == account_id).limit(1)
        # Of several that began in the same microsecond, the one that is in the latest change.
        latest = select(func.max(_CHANGES.sequence)).where(_CHANGES.subscription_id == columns.subscription_id)
        begun = of_account.where(columns.anchor_us <= moment_us)
        begun = begun.order_by(columns.anchor_us.desc(), latest.scalar_subquery().desc())
        row = (await self._connection.execute(begun)).one_or_none()
        if row is None:
            row = (await self._connection.execute(of_account.order_by(columns.anchor_us))).one()
        return subscription_from_row(row)

    async def find_change(self, change_id: str) -> SubscriptionChange | None:
        """One change."""
        query = select(SUBSCRIPTION_CHANGES).where(_CHANGES.change_id == change_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else change_from_row(row)

    async def mark_changes(self, change_ids: Sequence[str], state: ChangeState, drop_us: int) -> None:
        """Says that changes came into force, or that they never will."""
        await self._connection.execute(
            update(SUBSCRIPTION_CHANGES)
            .where(_CHANGES.change_id.in_(change_ids))
            .values(state=int(state), drop_us=drop_us)
        )

    async def place_change(self, placement: Placement) -> None:
        """Says what a scheduled change turns out to be."""
        change_id, kind, from_terms, effective_us = placement
        await self._connection.execute(
            update(SUBSCRIPTION_CHANGES)
            .where(_CHANGES.change_id == change_id)
            .values(kind=int(kind), from_terms=terms_to_text(from_terms), effective_us=effective_us)
        )

    async def set_change_subscription(self, change_id: str, subscription_id: str) -> None:
        """Says which new subscription a change began, or is to come in."""
        await self._connection.execute(
            update(SUBSCRIPTION_CHANGES).where(_CHANGES.change_id == change_id).values(subscription_id=subscription_id)
        )

    async def terms_before(self, subscription_id: str, moment_us: int) -> Terms | None:
        """The terms that a subscription had just before a time, by its history."""
        query = (
            select(_CHANGES.to_terms)
            .where(
                _CHANGES.subscription_id == subscription_id,
                _CHANGES.state == int(ChangeState.APPLIED),
                _CHANGES.effective_us < moment_us,
                _CHANGES.to_terms != "",
            )
            .order_by(_CHANGES.effective_us.desc(), _CHANGES.sequence.desc())
            .limit(1)
        )
        text = (await self._connection.execute(query)).scalar_one_or_none()
        return terms_from_text(text or "")

    async def set_change_invoice(self, change_id: str, invoice_id: str, amount_micro: int) -> None:
        """Says what a change was invoiced with."""
        await self._connection.execute(
            update(SUBSCRIPTION_CHANGES)
            .where(_CHANGES.change_id == change_id)
            .values(invoice_id=invoice_id, amount_micro=amount_micro)
        )

    async def changes(self, account_id: str, after: Position | None, limit: int) -> Sequence[SubscriptionChange]:
        """Changes of all subscriptions of an account, newest first."""
        query = select(SUBSCRIPTION_CHANGES).where(_CHANGES.account_id == account_id)
        if after is not None:
            request_us, change_id = after
            place = select(_CHANGES.sequence).where(_CHANGES.change_id == change_id).scalar_subquery()
            query = query.where(tuple_(_CHANGES.request_us, _CHANGES.sequence) < tuple_(request_us, place))
        query = query.order_by(_CHANGES.request_us.desc(), _CHANGES.sequence.desc()).limit(limit)
        return [change_from_row(row) for row in await self._connection.execute(query)]

    async def versions_sold(self) -> Collection[tuple[str, int]]:
        """Every plan_id and version that a subscription has."""
        query = select(SUBSCRIPTIONS.c.plan_id, SUBSCRIPTIONS.c.plan_version).distinct()
        return [(row.plan_id, row.plan_version) for row in await self._connection.execute(query)]


class SqlEntitlements:
    """The outbox of entitlements."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def status(self, account_id: str) -> EntitlementStatus:
        """How far an account's entitlement has come; revision 0 where it has none yet."""
        query = select(_OUTBOX.revision, _OUTBOX.pending).where(_OUTBOX.account_id == account_id)
        row = (await self._connection.execute(query)).one_or_none()
        return EntitlementStatus(0, False) if row is None else EntitlementStatus(row.revision, not row.pending)

    async def find(self, account_id: str) -> Entitlement | None:
        """The account's newest entitlement, whether quota has it or not."""
        query = select(_OUTBOX.entitlement).where(_OUTBOX.account_id == account_id)
        text = (await self._connection.execute(query)).scalar_one_or_none()
        return None if text is None else entitlement_from_text(text)

    async def put(self, entitlement: Entitlement, now_us: int) -> None:
        """Replaces an account's entitlement by one with a higher revision, to be sent at once."""
        await self._connection.execute(
            delete(ENTITLEMENT_OUTBOX).where(
                _OUTBOX.account_id == entitlement.account_id, _OUTBOX.revision < entitlement.revision
            )
        )
        await self._connection.execute(
            insert(ENTITLEMENT_OUTBOX),
            {
                "account_id": entitlement.account_id,
                "revision": entitlement.revision,
                "entitlement": entitlement_to_text(entitlement),
                "pending": True,
                "attempts": 0,
                "next_attempt_us": now_us,
                "update_us": now_us,
                "applied_us": 0,
            },
        )

    async def find_pending(self, account_id: str) -> PendingEntitlement | None:
        """The account's entitlement, where quota does not have it yet."""
        found = await self._pending(_pending().where(_OUTBOX.account_id == account_id))
        return found[0] if found else None

    async def due(self, now_us: int, limit: int) -> Sequence[PendingEntitlement]:
        """Entitlements that are to be sent by now, the longest due first."""
        query = _pending().where(_OUTBOX.next_attempt_us <= now_us).order_by(_OUTBOX.next_attempt_us).limit(limit)
        return await self._pending(query)

    async def _pending(self, query: Select[Any]) -> Sequence[PendingEntitlement]:
        rows = await self._connection.execute(query)
        return [PendingEntitlement(entitlement_from_text(row.entitlement), row.attempts) for row in rows]

    async def next_due_us(self) -> int | None:
        """When the next one is to be sent; None where nothing is pending."""
        query = select(func.min(_OUTBOX.next_attempt_us)).where(_OUTBOX.pending.is_(True))
        next_us: int | None = (await self._connection.execute(query)).scalar_one()
        return next_us

    async def mark_applied(self, account_id: str, revision: int, now_us: int) -> None:
        """Quota has the revision. Changes nothing where there is a newer one meanwhile."""
        await self._connection.execute(
            update(ENTITLEMENT_OUTBOX)
            .where(_OUTBOX.account_id == account_id, _OUTBOX.revision == revision)
            .values(pending=False, attempts=0, applied_us=now_us)
        )

    async def mark_failed(self, account_id: str, revision: int, next_attempt_us: int) -> None:
        """Quota was not reached: the revision is to be sent again then."""
        await self._connection.execute(
            update(ENTITLEMENT_OUTBOX)
            .where(_OUTBOX.account_id == account_id, _OUTBOX.revision == revision, _OUTBOX.pending.is_(True))
            .values(attempts=_OUTBOX.attempts + 1, next_attempt_us=next_attempt_us)
        )

    async def renew(self, now_us: int, account_id: str = "") -> None:
        """Has what quota acknowledged sent again: of one account, or of all."""
        statement = update(ENTITLEMENT_OUTBOX).where(_OUTBOX.pending.is_(False))
        if account_id:
            statement = statement.where(_OUTBOX.account_id == account_id)
        await self._connection.execute(statement.values(pending=True, attempts=0, next_attempt_us=now_us))


def _pending() -> Select[Any]:
    return select(_OUTBOX.entitlement, _OUTBOX.attempts).where(_OUTBOX.pending.is_(True))


class SqlRequests:
    """Requests that carried a request_id."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def begin(self, method: str, scope: str, request_id: str, content: str, now_us: int) -> str | None:
        """Remembers a request; answers what the same one was answered with before, None for a new one."""
        values = {
            "method": method,
            "scope": scope,
            "request_id": request_id,
            "content": content,
            "answer": "",
            "create_us": now_us,
        }
        # On PostgreSQL this waits for another transaction that has the same request under way.
        statement = insert_unless_there(self._connection, REQUESTS).returning(REQUESTS.c.request_id)
        if (await self._connection.execute(statement, values)).one_or_none() is not None:
            return None
        earlier = (await self._connection.execute(select(REQUESTS).where(*_is(method, scope, request_id)))).one()
        if earlier.content != content:
            raise FlowStackError(
                Reason.DUPLICATE_REQUEST,
                "The request_id came before with other content. Repeat a request unchanged, or send a new request_id.",
            )
        answer: str = earlier.answer
        return answer

    async def finish(self, method: str, scope: str, request_id: str, answer: str) -> None:
        """Keeps the answer of a request that was begun in this transaction."""
        await self._connection.execute(update(REQUESTS).where(*_is(method, scope, request_id)).values(answer=answer))

    async def forget_customer(self, account_id: str) -> None:
        """Blanks the customer's name and address in all that requests about an account were answered with."""
        # The request that made the account is of none; the history begins with it.
        made_by = select(_CHANGES.request_id).where(_CHANGES.account_id == account_id, _CHANGES.request_id != "")
        made = and_(REQUESTS.c.scope == "", REQUESTS.c.request_id.in_(made_by))
        query = select(REQUESTS).where(
            REQUESTS.c.method.in_(await self._methods()), or_(REQUESTS.c.scope == account_id, made)
        )
        for row in (await self._connection.execute(query)).all():
            if row.scope or account_id in row.answer:
                await self.finish(row.method, row.scope, row.request_id, without_names(row.answer))

    async def _methods(self) -> Sequence[str]:
        """Every method of which there are requests, a step of the index each: with them one account's are at hand."""
        found: list[str] = [""]
        while True:
            following = select(func.min(REQUESTS.c.method)).where(REQUESTS.c.method > found[-1])
            method = (await self._connection.execute(following)).scalar_one()
            if method is None:
                return found[1:]
            found.append(method)


def _is(method: str, scope: str, request_id: str) -> tuple[Any, ...]:
    return (REQUESTS.c.method == method, REQUESTS.c.scope == scope, REQUESTS.c.request_id == request_id)
