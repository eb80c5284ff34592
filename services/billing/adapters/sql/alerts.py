"""Alerts, their settings, and the sums that they are decided by, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

import msgspec
from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.alert_tables import (
    ALERT_CALLS,
    ALERT_DELIVERIES,
    ALERT_SETTINGS,
    ALERTS,
)
from services.billing.adapters.sql.dialect import in_portions, insert_unless_there
from services.billing.adapters.sql.invoice_tables import INVOICES
from services.billing.adapters.sql.rows import subscription_from_row
from services.billing.adapters.sql.tables import ACCOUNTS, SUBSCRIPTIONS
from services.billing.adapters.sql.usage_tables import USAGE_PERIODS
from services.billing.alert_store import AccountPeriod, AlertFilter, Watched
from services.billing.domain.alerts import (
    Alert,
    AlertKind,
    AlertSettings,
    AlertSeverity,
    AlertSink,
    Budget,
    BudgetStanding,
    PeriodSums,
)
from services.billing.domain.invoices import InvoiceState
from services.billing.domain.model import AccountState
from services.billing.domain.paging import Position
from services.shared.periods import Period

_ALERTS = ALERTS.c
_SETTINGS = ALERT_SETTINGS.c
_SETTING_COLUMNS: Final = [column.label(f"settings_{column.name}") for column in _SETTINGS]
_WATCHED: Final = (
    select(SUBSCRIPTIONS, ACCOUNTS.c.state.label("account_state"), *_SETTING_COLUMNS)
    .select_from(ACCOUNTS)
    .join(SUBSCRIPTIONS, ACCOUNTS.c.subscription_id == SUBSCRIPTIONS.c.subscription_id)
    .outerjoin(ALERT_SETTINGS, _SETTINGS.account_id == ACCOUNTS.c.account_id)
)


class SqlAlerts:
    """Alerts, their settings, and the sums that they are decided by."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def settings(self, account_id: str) -> AlertSettings:
        """An account's settings; the defaults where it has set none."""
        query = select(ALERT_SETTINGS).where(_SETTINGS.account_id == account_id)
        row = (await self._connection.execute(query)).one_or_none()
        return AlertSettings(account_id) if row is None else _settings_from_row(row)

    async def put_settings(self, settings: AlertSettings) -> None:
        """Writes the settings of an account that this transaction has locked."""
        row = {
            "account_id": settings.account_id,
            "thresholds": msgspec.json.encode(settings.thresholds).decode(),
            "sinks": msgspec.json.encode(settings.sinks).decode(),
            "budget": "" if settings.budget is None else msgspec.json.encode(settings.budget).decode(),
            "update_us": settings.update_us,
            "version": settings.version,
        }
        is_there = _SETTINGS.account_id == settings.account_id
        if not (await self._connection.execute(update(ALERT_SETTINGS).where(is_there).values(row))).rowcount:
            await self._connection.execute(insert(ALERT_SETTINGS), row)

    async def watched(self, account_ids: Collection[str]) -> Mapping[str, Watched]:
        """Accounts with their subscriptions and settings, by id."""
        found: dict[str, Watched] = {}
        for some in in_portions(sorted(account_ids)):
            for row in await self._connection.execute(_WATCHED.where(ACCOUNTS.c.account_id.in_(some))):
                settings = AlertSettings(row.account_id)
                if row.settings_account_id is not None:
                    settings = _settings_from_row(
                        SimpleNamespace(
                            **{column.name: getattr(row, f"settings_{column.name}") for column in _SETTINGS}
                        )
                    )
                found[row.account_id] = Watched(AccountState(row.account_state), subscription_from_row(row), settings)
        return found

    async def sums(self, periods: Collection[AccountPeriod]) -> Mapping[AccountPeriod, PeriodSums]:
        """What the sessions of periods come to; a period without any is left out."""
        columns = USAGE_PERIODS.c
        names = (columns.committed, columns.cost_micro, columns.unpriced)
        found: dict[AccountPeriod, PeriodSums] = {}
        for some in in_portions(sorted({period.account_id for period in periods})):
            starts = {start_us for account_id, start_us in periods if account_id in some}
            query = (
                select(columns.account_id, columns.period_start_us, *map(func.sum, names))
                .where(columns.account_id.in_(some), columns.period_start_us >= min(starts))
                .group_by(columns.account_id, columns.period_start_us)
            )
            for account_id, start_us, *sums in await self._connection.execute(query):
                found[AccountPeriod(account_id, start_us)] = PeriodSums(*map(int, sums))
        return {period: found[period] for period in periods if period in found}

    async def charged(self, periods: Collection[AccountPeriod]) -> Mapping[AccountPeriod, int]:
        """What periods have been invoiced so far, credits taken off, in micro-dollars; left out where nothing."""
        columns = INVOICES.c
        found: dict[AccountPeriod, int] = {}
        for some in in_portions(sorted({period.account_id for period in periods})):
            starts = {start_us for account_id, start_us in periods if account_id in some}
            query = (
                select(
                    columns.account_id, columns.period_start_us, func.sum(columns.total_micro - columns.credited_micro)
                )
                .where(
                    columns.account_id.in_(some),
                    columns.period_start_us >= min(starts),
                    columns.state != int(InvoiceState.VOID),
                )
                .group_by(columns.account_id, columns.period_start_us)
            )
            for account_id, start_us, micro in await self._connection.execute(query):
                found[AccountPeriod(account_id, start_us)] = int(micro)
        return {period: found[period] for period in periods if period in found}

    async def fired(self, account_ids: Collection[str], once_keys: Collection[str]) -> Collection[tuple[str, str]]:
        """Which alerts are there already: (account, key)."""
        found: set[tuple[str, str]] = set()
        for some in in_portions(sorted(account_ids)):
            for keys in in_portions(sorted(once_keys)):
                query = select(_ALERTS.account_id, _ALERTS.once_key).where(
                    _ALERTS.account_id.in_(some), _ALERTS.once_key.in_(keys)
                )
                found.update((row[0], row[1]) for row in await self._connection.execute(query))
        return found

    async def fire_us(self, account_id: str, once_key: str) -> int:
        """When an alert fired; 0 where it did not."""
        query = select(_ALERTS.create_us).where(_ALERTS.account_id == account_id, _ALERTS.once_key == once_key)
        return (await self._connection.execute(query)).scalar_one_or_none() or 0

    async def last_sequences(self, account_ids: Collection[str]) -> Mapping[str, int]:
        """The place of each account's newest alert; left out where it has none."""
        found: dict[str, int] = {}
        for some in in_portions(sorted(account_ids)):
            query = select(_ALERTS.account_id, func.max(_ALERTS.sequence)).where(_ALERTS.account_id.in_(some))
            rows = await self._connection.execute(query.group_by(_ALERTS.account_id))
            found.update((row[0], row[1]) for row in rows)
        return found

    async def insert(self, alert: Alert) -> bool:
        """Adds an alert; False where one with its key is there."""
        statement = insert_unless_there(self._connection, ALERTS, ("account_id", "once_key"))
        answer = await self._connection.execute(statement.returning(_ALERTS.alert_id), _to_row(alert))
        return answer.one_or_none() is not None

    async def find(self, account_id: str, alert_id: str) -> Alert | None:
        """One alert of an account."""
        query = select(ALERTS).where(_ALERTS.alert_id == alert_id, _ALERTS.account_id == account_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _from_row(row)

    async def list(self, account_id: str, wanted: AlertFilter, after: Position | None, limit: int) -> Sequence[Alert]:
        """Alerts of an account, newest first."""
        query = select(ALERTS).where(_ALERTS.account_id == account_id)
        if wanted.kinds:
            query = query.where(_ALERTS.kind.in_([int(kind) for kind in wanted.kinds]))
        if wanted.start_us:
            query = query.where(_ALERTS.create_us >= wanted.start_us)
        if wanted.end_us:
            query = query.where(_ALERTS.create_us < wanted.end_us)
        if wanted.delivery_states or wanted.webhook_id:
            query = query.where(_has_delivery(wanted))
        if after is not None:
            query = query.where(_ALERTS.sequence < after[0])
        query = query.order_by(_ALERTS.sequence.desc()).limit(limit)
        return [_from_row(row) for row in await self._connection.execute(query)]

    async def since(self, account_id: str, sequence: int, limit: int) -> Sequence[Alert]:
        """Alerts of an account after a place, oldest first."""
        query = select(ALERTS).where(_ALERTS.account_id == account_id, _ALERTS.sequence > sequence)
        rows = await self._connection.execute(query.order_by(_ALERTS.sequence).limit(limit))
        return [_from_row(row) for row in rows]

    async def calls(self, account_id: str, method: str) -> Sequence[int]:
        """When a method was called of late, as it was put."""
        query = select(ALERT_CALLS.c.times).where(
            ALERT_CALLS.c.account_id == account_id, ALERT_CALLS.c.method == method
        )
        text = (await self._connection.execute(query)).scalar_one_or_none()
        return msgspec.json.decode(text, type=tuple[int, ...]) if text else ()

    async def put_calls(self, account_id: str, method: str, times_us: Sequence[int]) -> None:
        """Remembers when a method was called of late, of an account that this transaction has locked."""
        row = {"account_id": account_id, "method": method, "times": msgspec.json.encode(times_us).decode()}
        is_there = (ALERT_CALLS.c.account_id == account_id) & (ALERT_CALLS.c.method == method)
        if not (await self._connection.execute(update(ALERT_CALLS).where(is_there).values(row))).rowcount:
            await self._connection.execute(insert(ALERT_CALLS), row)


def _has_delivery(wanted: AlertFilter) -> Any:
    columns = ALERT_DELIVERIES.c
    condition = exists().where(columns.alert_id == _ALERTS.alert_id)
    if wanted.delivery_states:
        condition = condition.where(columns.state.in_([int(state) for state in wanted.delivery_states]))
    if wanted.webhook_id:
        condition = condition.where(columns.webhook_id == wanted.webhook_id)
    return condition


def _settings_from_row(row: Any) -> AlertSettings:
    return AlertSettings(
        row.account_id,
        msgspec.json.decode(row.thresholds, type=tuple[int, ...]),
        msgspec.json.decode(row.sinks, type=tuple[AlertSink, ...]),
        msgspec.json.decode(row.budget, type=Budget) if row.budget else None,
        row.update_us,
        row.version,
    )


def _to_row(alert: Alert) -> dict[str, Any]:
    return {
        "alert_id": alert.alert_id,
        "account_id": alert.account_id,
        "sequence": alert.sequence,
        "once_key": alert.once_key,
        "kind": int(alert.kind),
        "severity": int(alert.severity),
        "create_us": alert.create_us,
        "message": alert.message,
        "period_start_us": alert.period.start_us if alert.period else 0,
        "period_end_us": alert.period.end_us if alert.period else 0,
        "threshold": alert.threshold,
        "sessions_used": alert.sessions_used,
        "sessions_limit": alert.sessions_limit,
        "budget": msgspec.json.encode(alert.budget).decode() if alert.budget else "",
        "data_json": alert.data_json,
    }


def _from_row(row: Any) -> Alert:
    return Alert(
        row.alert_id,
        row.account_id,
        row.sequence,
        row.once_key,
        AlertKind(row.kind),
        AlertSeverity(row.severity),
        row.create_us,
        row.message,
        Period(row.period_start_us, row.period_end_us) if row.period_start_us else None,
        row.threshold,
        row.sessions_used,
        row.sessions_limit,
        msgspec.json.decode(row.budget, type=BudgetStanding) if row.budget else None,
        row.data_json,
    )
