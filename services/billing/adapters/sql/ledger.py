"""The ledger in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Dialect, delete, func, literal_column, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.adapters.sql.dialect import append_all, append_many, in_portions
from services.billing.adapters.sql.tables import ACCOUNTS, LEDGER, STRAY_EVENTS
from services.billing.domain.ledger import (
    CredentialMode,
    EventType,
    LedgerEntry,
    LedgerKey,
    PeriodCounts,
    PositionedEntry,
)
from services.billing.domain.paging import Position
from services.billing.ledger_store import LedgerInsert, SessionFilter, SessionsFound

_EVENT: Final = tuple(name for name in LedgerEntry._fields if name not in LedgerEntry._field_defaults)
"""What of an entry came with its event; the rest is its cost, which it gets when it is booked."""
_EVENT_COLUMNS: Final = len(_EVENT)
_LEDGER_KEY: Final = tuple_(LEDGER.c.account_id, LEDGER.c.session_id, LEDGER.c.event)
_POSITION: Final = tuple_(LEDGER.c.reserve_us, LEDGER.c.session_id)
_STRAY_KEY: Final = tuple_(STRAY_EVENTS.c.account_id, STRAY_EVENTS.c.session_id, STRAY_EVENTS.c.event)


class SqlLedger:
    """The append-only ledger."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, entries: Sequence[PositionedEntry], now_us: int) -> LedgerInsert:
        """Appends what is new of `entries`; a repeat changes nothing, whenever it comes."""
        known = await self._known({positioned.entry.account_id for positioned in entries})
        booked = [positioned.entry for positioned in entries if positioned.entry.account_id in known]
        stray = [positioned for positioned in entries if positioned.entry.account_id not in known]
        await append_many(
            self._connection,
            STRAY_EVENTS,
            [(*entry[:_EVENT_COLUMNS], now_us, partition, cursor) for partition, cursor, entry in stray],
        )
        return LedgerInsert(
            await self._append(booked, now_us), frozenset(positioned.entry.account_id for positioned in stray)
        )

    async def _append(self, entries: list[LedgerEntry], now_us: int) -> Sequence[LedgerEntry]:
        """Appends entries; answers those that were new."""
        rows = [(*entry[:_EVENT_COLUMNS], now_us, *entry[_EVENT_COLUMNS:]) for entry in entries]
        if not rows:
            return ()
        # Nearly always all of them are new. Only otherwise it is looked up which.
        if await append_all(self._connection, LEDGER, rows):
            return entries
        existing = await self.existing({entry.key for entry in entries})
        fresh = list({entry.key: entry for entry in reversed(entries) if entry.key not in existing}.values())[::-1]
        return await self._append(fresh, now_us)

    async def sessions(
        self, wanted: SessionFilter, after: Position | None, limit: int, looked_at_max: int
    ) -> SessionsFound:
        """Sessions of an account, those reserved last first."""
        columns = LEDGER.c
        found = _found_by_index(wanted, after)
        filters = _other_filters(self._connection.dialect, wanted)
        looked_to = None
        if filters:
            # How far that many go is read from the index alone; then their rows are, until there are enough.
            last = select(columns.reserve_us, columns.session_id).where(*found).order_by(*_newest_first(wanted))
            row = (await self._connection.execute(last.limit(1).offset(looked_at_max - 1))).first()
            if row is not None:
                looked_to = (int(row.reserve_us), str(row.session_id))
                found += [columns.reserve_us >= looked_to[0], tuple_(*looked_to) <= _POSITION]
        query = select(*(columns[name] for name in LedgerEntry._fields)).where(*found, *filters)
        rows = await self._connection.execute(query.order_by(*_newest_first(wanted)).limit(limit))
        return SessionsFound([LedgerEntry(*row) for row in rows], looked_to)

    async def existing(self, keys: Collection[LedgerKey]) -> frozenset[LedgerKey]:
        """Which of `keys` the ledger has."""
        found: set[LedgerKey] = set()
        for some in in_portions(keys):
            query = select(LEDGER.c.account_id, LEDGER.c.session_id, LEDGER.c.event).where(_LEDGER_KEY.in_(some))
            found.update(LedgerKey(*row) for row in await self._connection.execute(query))
        return frozenset(found)

    async def _known(self, account_ids: set[str]) -> set[str]:
        known: set[str] = set()
        for some in in_portions(sorted(account_ids)):
            query = select(ACCOUNTS.c.account_id).where(ACCOUNTS.c.account_id.in_(some))
            known.update((await self._connection.execute(query)).scalars())
        return known

    async def take_strays(self, limit: int) -> Sequence[PositionedEntry]:
        """Takes out, up to `limit`, what was kept aside of accounts that are known by now."""
        # Locked, so that of two replicas one takes an event and the other another.
        keys = (
            select(STRAY_EVENTS.c.account_id, STRAY_EVENTS.c.session_id, STRAY_EVENTS.c.event)
            .where(STRAY_EVENTS.c.account_id.in_(select(ACCOUNTS.c.account_id)))
            .order_by(STRAY_EVENTS.c.event_us)
            .limit(limit)
            .with_for_update(of=STRAY_EVENTS, skip_locked=True)
        )
        taken: list[PositionedEntry] = []
        for some in in_portions([tuple(row) for row in await self._connection.execute(keys)]):
            statement = delete(STRAY_EVENTS).where(_STRAY_KEY.in_(some)).returning(*STRAY_EVENTS.c)
            taken += map(_positioned, await self._connection.execute(statement))
        return taken

    async def strays(self, account_id: str, after: LedgerKey | None, limit: int) -> Sequence[LedgerEntry]:
        """What is kept aside of one account, or of all where it is empty, by key."""
        query = select(STRAY_EVENTS)
        if account_id:
            query = query.where(STRAY_EVENTS.c.account_id == account_id)
        if after is not None:
            query = query.where(tuple_(*after) < _STRAY_KEY)
        query = query.order_by(*_STRAY_KEY.clauses).limit(limit)
        return [_positioned(row).entry for row in await self._connection.execute(query)]

    async def counts(self, account_id: str, period_start_us: int) -> PeriodCounts:
        """Counted sessions of an account's period."""
        columns = LEDGER.c
        query = (
            select(columns.credential_mode, func.count())
            .where(
                columns.account_id == account_id,
                # A session is reserved in its period, so that the index by time leads to it.
                columns.reserve_us >= period_start_us,
                columns.period_start_us == period_start_us,
                columns.event == int(EventType.COMMITTED),
            )
            .group_by(columns.credential_mode)
        )
        found = {mode: int(count) for mode, count in await self._connection.execute(query)}
        managed, byok = found.pop(CredentialMode.MANAGED, 0), found.pop(CredentialMode.BYOK, 0)
        return PeriodCounts(managed, byok, sum(found.values()))


def _found_by_index(wanted: SessionFilter, after: Position | None) -> list[ColumnElement[bool]]:
    """The conditions that an index leads to."""
    columns = LEDGER.c
    found = [columns.account_id == wanted.account_id]
    if wanted.session_id:
        found.append(columns.session_id == wanted.session_id)
    if wanted.request_id:
        # The second one, because the index is of these alone.
        found += [columns.request_id == wanted.request_id, columns.request_id != literal_column("''")]
    if wanted.start_us is not None:
        found.append(columns.reserve_us >= wanted.start_us)
    if wanted.end_us is not None:
        found.append(columns.reserve_us < wanted.end_us)
    if wanted.period is not None:
        # A session is reserved in its period.
        found += [columns.reserve_us >= wanted.period.start_us, columns.reserve_us < wanted.period.end_us]
    if after is not None:
        found += [columns.reserve_us <= after[0], tuple_(*after) > _POSITION]
    return found


def _other_filters(dialect: Dialect, wanted: SessionFilter) -> list[ColumnElement[bool]]:
    """The conditions that a row has to be read for."""
    columns = LEDGER.c
    filters: list[ColumnElement[bool]] = []
    if wanted.events is not None:
        filters.append(columns.event.in_(wanted.events))
    if wanted.period is not None:
        filters.append(columns.period_start_us == wanted.period.start_us)
    for name, value in (
        ("served_provider", wanted.provider),
        ("served_model", wanted.model),
        ("served_credential_mode", wanted.served_credential_mode),
        ("api_key_id", wanted.api_key_id),
    ):
        if value:
            filters.append(columns[name] == value)
    return [*filters, *(_has_label(dialect, key, text) for key, text in wanted.labels)]


def _newest_first(wanted: SessionFilter) -> list[ColumnElement[Any]]:
    columns = LEDGER.c
    # A session is found by its key, of whose few rows no index by time need know.
    time = columns.reserve_us + literal_column("0") if wanted.session_id else columns.reserve_us
    return [time.desc(), columns.session_id.desc()]


def _holds(dialect: Dialect, column: Any, text: str) -> Any:
    """Whether a column's text holds another, letter by letter; LIKE passes over case on one of the stores."""
    return (func.instr if dialect.name == "sqlite" else func.strpos)(column, text) > 0


def _has_label(dialect: Dialect, key: str, value: str) -> Any:
    """Whether a session has a label, by how the JSON of labels is written.

    A quotation mark inside a key or a value has a backslash before it: with what precedes a key nothing else matches.
    """
    pair = f"{orjson.dumps(key).decode()}:{orjson.dumps(value).decode()}"
    column = LEDGER.c.labels
    return or_(_holds(dialect, column, "{" + pair), _holds(dialect, column, "," + pair))


def _positioned(row: Any) -> PositionedEntry:
    return PositionedEntry(row.partition, row.cursor, LedgerEntry(*(getattr(row, name) for name in _EVENT)))
