"""Session events through billing's reader into the ledger, beside the driver's bare executemany of the same rows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, cast

import psycopg
from flowstack_protos.quota.v1 import quota_service_pb2 as pb
from flowstack_protos.type.v1 import type_pb2
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import make_url

from services.billing.adapters.price_table import load_prices
from services.billing.adapters.sql.database import open_database
from services.billing.adapters.sql.tables import ACCOUNTS, LEDGER
from services.billing.convert.quota import batch_from_proto
from services.billing.domain.ledger import EventBatch, partition_of
from services.billing.service.booking import Booking
from services.billing.service.context import Context
from services.billing.service.reader import ENTRIES_AT_ONCE, SessionEventReader
from services.shared.clock import SystemClock
from services.shared.process import settle
from services.shared.times import time_to_proto

EVENTS = 40_000
ACCOUNTS_WITH_EVENTS = 200
EVENTS_IN_MESSAGE = 500
COLUMNS = ", ".join(column.name for column in LEDGER.columns)
NOW_US = 1_790_000_000 * 1_000_000


def account_id(number: int) -> str:
    """The id of the n-th account."""
    return f"acct_{number:024}"


def session_event(number: int) -> pb.SessionEvent:
    """A committed session as quota sends it."""
    account, time_us = account_id(number % ACCOUNTS_WITH_EVENTS), NOW_US + number
    session = type_pb2.Session(
        session_id=f"ses_{time_us // 1000:012x}7000{0x8000_0000_0000_0000 + number:016x}",
        account_id=account,
        state=type_pb2.SESSION_STATE_COMMITTED,
        candidates=[
            type_pb2.Candidate(provider="openai", model="gpt-4o-mini", credential_mode=type_pb2.CREDENTIAL_MODE_BYOK)
        ],
        period_start_time=time_to_proto(NOW_US),
        reserve_time=time_to_proto(time_us - 5_000_000),
        expire_time=time_to_proto(time_us + 330_000_000),
        resolve_time=time_to_proto(time_us),
        outcome=type_pb2.SessionOutcome(
            finish_reason=type_pb2.FINISH_REASON_STOP,
            served_provider="openai",
            served_model="gpt-4o-mini",
            served_credential_mode=type_pb2.CREDENTIAL_MODE_BYOK,
            input_tokens=1_200,
            output_tokens=350,
            provider_latency=Duration(seconds=1, nanos=812_345_000),
            time_to_first_token=Duration(nanos=212_345_000),
            provider_request_id="chatcmpl-0123456789abcdefghij",
        ),
        request_id=f"req-{number}",
        api_key_id="key_0123456789abcdef",
        labels={"app": "bench", "team": "billing"},
        entitlement_revision=1,
    )
    partition = partition_of(account)
    return pb.SessionEvent(
        partition=partition,
        cursor=f"epoch:{partition}:{number}:{time_us}",
        type=pb.SESSION_EVENT_TYPE_COMMITTED,
        event_time=time_to_proto(time_us),
        session=session,
    )


def messages() -> Iterator[pb.ReadSessionEventsResponse]:
    """All events, as quota sends them."""
    for begin in range(0, EVENTS, EVENTS_IN_MESSAGE):
        yield pb.ReadSessionEventsResponse(events=map(session_event, range(begin, begin + EVENTS_IN_MESSAGE)))


BATCHES: list[EventBatch] = []
"""All events, converted; made at the first use."""


def batches() -> list[EventBatch]:
    """All events, converted."""
    if not BATCHES:
        BATCHES.extend(map(batch_from_proto, messages()))
    return BATCHES


def conversions_per_second() -> float:
    """How many events are converted from their messages in a second."""
    sent = list(messages())
    started_s = time.perf_counter()
    for message in sent:
        batch_from_proto(message)
    return EVENTS / (time.perf_counter() - started_s)


class _Quota:
    """Delivers every event and ends."""

    async def read_session_events(self, after: Mapping[int, str], *, follow: bool = True) -> AsyncIterator[EventBatch]:
        for batch in batches():
            yield batch

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        pass


async def ingest_per_second(address: str) -> float:
    """How many events the reader stores in a second, cursors and all."""
    batches()
    database = await open_database(address)
    context = Context(
        database,
        cast("Any", _Quota()),
        cast("Any", None),
        cast("Any", None),
        SystemClock(),
        bytes,
        prices=load_prices(),
    )
    settle()  # as a service does once it has started
    reader = SessionEventReader(context, cast("Any", None), Booking(context), "bench", 3_600.0)
    started_s = time.perf_counter()
    await reader.run_once()
    taken_s = time.perf_counter() - started_s
    await database.close()
    return EVENTS / taken_s


def bare_per_second(address: str) -> float:
    """How many of the same rows the driver's executemany stores, in transactions of the same size."""
    rows = [
        (*positioned.entry[:-2], NOW_US, *positioned.entry[-2:]) for batch in batches() for positioned in batch.entries
    ]
    url = make_url(address)
    if url.get_backend_name() == "sqlite":
        return _bare_sqlite(str(url.database), rows)
    with psycopg.connect(address) as connection:
        marks = ", ".join(["%s"] * len(LEDGER.columns))
        started_s = time.perf_counter()
        for portion in _portions(rows):
            with connection.cursor() as cursor:
                cursor.executemany(f"INSERT INTO ledger ({COLUMNS}) VALUES ({marks})", portion)
            connection.commit()
        return len(rows) / (time.perf_counter() - started_s)


def _bare_sqlite(path: str, rows: Sequence[tuple[Any, ...]]) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    marks = ", ".join("?" * len(LEDGER.columns))
    started_s = time.perf_counter()
    for portion in _portions(rows):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO ledger ({COLUMNS}) VALUES ({marks})", portion)
        connection.execute("COMMIT")
    taken_s = time.perf_counter() - started_s
    connection.close()
    return len(rows) / taken_s


def _portions(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    for begin in range(0, len(rows), ENTRIES_AT_ONCE):
        yield rows[begin : begin + ENTRIES_AT_ONCE]


def account_rows(count: int) -> list[dict[str, Any]]:
    """Accounts that the ledger knows."""
    blank: dict[str, Any] = {column.name: "" if column.type.python_type is str else 0 for column in ACCOUNTS.c}
    return [blank | {"account_id": account_id(number)} for number in range(count)]
