"""Any history of sessions, delivered in any order and more than once: what is listed is what happened, and what is
summed is what is listed, page by page, whatever is filtered and grouped by.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.adapters.sql.database import Database
from services.billing.domain.ledger import LedgerEntry, PositionedEntry, partition_of
from services.billing.domain.paging import PageTokens
from services.billing.domain.prices import stamped
from services.billing.domain.rollups import label_text
from services.billing.domain.usage_query import (
    Dimension,
    Granularity,
    GroupKey,
    UsageQuery,
    UsageRow,
    group_from_text,
    group_text,
)
from services.billing.ledger_store import SessionFilter
from services.billing.service.booking import Booking
from services.billing.service.paging import PageRequest
from services.billing.service.usage_history import Bounds, UsageHistoryService
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import period_at, time_from_us
from services.shared.secret import Secret
from tests.support.books import Books
from tests.support.clock import DAY_US, HOUR_US, ManualClock, us
from tests.support.rollups import OnePrice, sums_of_ledger, sums_stored

ANCHOR_US: Final = us(2026, 1, 31, 22)
"""Periods end at 22:00 of the last day of months, and months two hours later."""
TOKENS: Final = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
KEYS: Final = ("team", "Team", "a.b", "$", '"', "\\", "'", "\x01", "ключ", "%", "k\0")
VALUES: Final = (
    "",
    "a",
    "A",
    "ä",
    "z",
    '"',
    "\\",
    "\\u0041",
    "\x01\x1f",
    "\0v",
    "😀",
    "\uffff",
    "null",
    "%s",
    "' OR 1=1 --",
)
SERVED: Final = (("", ""), ("p", "m"), ("p", "M"), ("P", "m"), ("é", "m\x02"), ("p" * 64, "m" * 256))

sessions = st.fixed_dictionaries(
    {
        "account": st.integers(0, 1),
        "event": st.integers(1, 3),
        # Around the ends of hours, days, months and periods.
        "reserve_us": st.tuples(
            st.sampled_from([us(2026, 2, 28, 22), us(2026, 3, 1), us(2026, 3, 2), us(2026, 2, 28, 3), us(2026, 3, 31)]),
            st.sampled_from([-HOUR_US, -1, 0, 1, HOUR_US, DAY_US]),
        ).map(sum),
        "mode": st.integers(0, 2),
        "served": st.sampled_from(SERVED),
        "served_mode": st.integers(0, 2),
        "tokens": st.tuples(*[st.none() | st.integers(0, 2**31 - 1)] * 5),
        "labels": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=4),
        "request_id": st.sampled_from(["", "r", "R"]),
    }
)
queries = st.builds(
    UsageQuery,
    st.just(""),
    st.sampled_from([us(2026, 2, 1), us(2026, 2, 28, 21, 30), us(2026, 3, 1)]),
    st.sampled_from([us(2026, 3, 1) + 1, us(2026, 3, 3), us(2026, 4, 2)]),
    st.sampled_from(Granularity),
    st.lists(st.sampled_from(Dimension), unique=True).map(tuple),
    st.sampled_from(KEYS),
    st.none() | st.sampled_from(VALUES),
    st.sampled_from(["", "", "p", "é"]),
    st.sampled_from(["", "", "m"]),
    st.sampled_from([0, 0, 1, 2]),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    history=st.lists(sessions, max_size=30),
    asked=st.lists(st.tuples(queries, st.integers(1, 5)), min_size=1, max_size=3),
    bounds=st.builds(Bounds, st.integers(1, 40), st.integers(1, 60)),
    chance=st.randoms(use_true_random=False),
)
async def test_sums_are_those_of_what_is_listed_and_that_is_what_happened(
    database: Database,
    history: list[dict[str, Any]],
    asked: list[tuple[UsageQuery, int]],
    bounds: Bounds,
    chance: random.Random,
) -> None:
    clock = ManualClock()
    clock.wall_us = ANCHOR_US
    books = Books(database, clock)
    accounts = [await books.open_account("professional") for _ in range(2)]
    happened = [entry_of(accounts[one["account"]], number, one) for number, one in enumerate(history)]
    await deliver(books, happened, chance)
    happened = [stamped(entry, OnePrice().price_of) for entry in happened]
    assert await sums_stored(database) == await sums_of_ledger(database)

    reads = UsageHistoryService(books.context, bounds)
    for account_id in accounts:
        mine = [entry for entry in happened if entry.account_id == account_id]
        for query, size in asked:
            await check(reads, replace(query, account_id=account_id), size, mine)


def entry_of(account_id: str, number: int, one: dict[str, Any]) -> LedgerEntry:
    period_us = period_at(ANCHOR_US, one["reserve_us"]).start_us
    return LedgerEntry(
        account_id, f"ses_{number}", one["event"], 1, 2, period_us, one["reserve_us"], 2, 1, one["mode"],
        *one["served"], one["served_mode"], *one["tokens"], False, 1, 0, "", one["request_id"],
        json.dumps(one["labels"], ensure_ascii=False, sort_keys=True, separators=(",", ":")), "{}", 1,
    )  # fmt: skip


async def deliver(books: Books, happened: Sequence[LedgerEntry], chance: random.Random) -> None:
    """In any order and in batches of any size, some of it again, also within a batch."""
    sent = [*happened, *chance.sample(happened, len(happened) // 3)]
    chance.shuffle(sent)
    booking = Booking(replace(books.context, prices=OnePrice()))
    while sent:
        batch = [sent.pop() for _ in range(min(len(sent), chance.randint(1, 9)))]
        positioned = [PositionedEntry(partition_of(entry.account_id), "c", entry) for entry in batch]
        await books.context.store.transact(lambda t, some=positioned: booking.book(t, some, 1))


async def check(reads: UsageHistoryService, query: UsageQuery, size: int, mine: Sequence[LedgerEntry]) -> None:
    assert query.start_us is not None
    assert query.end_us is not None
    start_us, end_us = start_of(query.granularity, query.start_us), end_of(query.granularity, query.end_us - 1)
    label = () if query.label_value is None else ((query.label_key, query.label_value),)
    wanted = SessionFilter(
        query.account_id, start_us, end_us, None, query.provider, query.model, query.credential_mode, labels=label
    )
    listed = await all_sessions(reads, wanted, size)
    expected = [
        entry
        for entry in mine
        if start_us <= entry.reserve_us < end_us
        and query.provider in ("", entry.served_provider)
        and query.model in ("", entry.served_model)
        and query.credential_mode in (0, entry.served_credential_mode)
        and all(json.loads(entry.labels).get(key) == value for key, value in label)
    ]
    assert listed == sorted(expected, key=lambda entry: (entry.reserve_us, entry.session_id), reverse=True)

    # Hours of a month are many pages where each of them is a row.
    rows = await all_rows(reads, query, size if query.group_by else size * 150, expected)
    groups: dict[tuple[int, GroupKey], list[LedgerEntry]] = defaultdict(list)
    for entry in listed:
        groups[start_of(query.granularity, entry.reserve_us), group_of(query, entry)].append(entry)
    found = {(row.start_us, row.group): sums(row) for row in rows if any(row.totals.sums)}
    assert found == {key: added_up(entries) for key, entries in groups.items()}
    assert len(rows) == len({(row.start_us, row.group) for row in rows}), "no row comes twice"
    places = [(row.start_us, tuple((value is not None, value or "") for value in row.group)) for row in rows]
    assert places == sorted(places, key=lambda place: (place[0], [(has, str(value)) for has, value in place[1]]))
    assert all(row.end_us == end_of(query.granularity, row.start_us) for row in rows)
    if not query.group_by:
        assert [(rows[0].start_us, rows[-1].end_us)] == [(start_us, end_us)]
        assert all(one.end_us == other.start_us for one, other in pairwise(rows)), "no bucket is left out"


async def all_sessions(reads: UsageHistoryService, wanted: SessionFilter, size: int) -> list[LedgerEntry]:
    found: list[LedgerEntry] = []
    token = ""
    while True:
        page = (await reads.sessions(wanted, None, PageRequest(size, token))).page
        assert len(page.items) <= size
        found += page.items
        token = page.next_token
        if not token:
            return found


async def all_rows(
    reads: UsageHistoryService, query: UsageQuery, size: int, expected: Sequence[LedgerEntry]
) -> list[UsageRow]:
    found: list[UsageRow] = []
    token = ""
    # As the service's port takes them.
    value = None if query.label_value is None else label_text(query.label_value)
    query = replace(query, label_key=label_text(query.label_key), label_value=value)
    while True:
        page = await reads.query(query, PageRequest(size, token), unrestricted=True)
        assert len(page.rows) <= size
        assert sums(page) == added_up(expected), "every page has the sums of all"
        found += page.rows
        token = page.next_token
        assert len(token) <= 2048
        if not token:
            return found


def group_of(query: UsageQuery, entry: LedgerEntry) -> GroupKey:
    by = query.group_by
    label = json.loads(entry.labels).get(query.label_key) if Dimension.LABEL in by else None
    return GroupKey(
        entry.served_provider if Dimension.PROVIDER in by else None,
        entry.served_model if Dimension.MODEL in by else None,
        entry.served_credential_mode if Dimension.CREDENTIAL_MODE in by else None,
        None if label is None else label_text(label),
    )


def start_of(granularity: Granularity, time_us: int) -> int:
    time = time_from_us(time_us)
    whole = {"minute": 0, "second": 0, "microsecond": 0}
    if granularity > Granularity.HOUR:
        whole["hour"] = 0
    if granularity > Granularity.DAY:
        whole["day"] = 1
    return round(time.replace(**whole).timestamp()) * 10**6


def end_of(granularity: Granularity, time_us: int) -> int:
    if granularity is Granularity.MONTH:
        time = time_from_us(time_us)
        return round(datetime(time.year, time.month + 1, 1, tzinfo=UTC).timestamp()) * 10**6
    return start_of(granularity, time_us) + (HOUR_US if granularity is Granularity.HOUR else DAY_US)


def sums(of: Any) -> dict[str, int]:
    """Those that are not 0."""
    named = {"managed": of.totals.managed, "byok": of.totals.byok} | of.totals.sums._asdict()
    return {name: value for name, value in named.items() if value}


def added_up(entries: Iterable[LedgerEntry]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for entry in entries:
        found[("committed", "released", "expired")[entry.event - 1]] += 1
        if entry.event == 1 and entry.credential_mode:
            found[("managed", "byok")[entry.credential_mode - 1]] += 1
        if None in (entry.input_tokens, entry.output_tokens):
            found["without_tokens"] += 1
        else:
            for name in TOKENS:
                found[name] += getattr(entry, name) or 0
        found["cost_micro"] += entry.provider_cost_micro or 0
        found["unpriced"] += entry.credential_mode == 2 and entry.provider_cost_micro is None
    return {name: value for name, value in found.items() if value}


async def test_a_range_or_bucket_of_too_many_sums_is_refused_with_a_way_out(database: Database) -> None:
    clock = ManualClock()
    books = Books(database, clock)
    account_id = await books.open_account("professional")
    now_us = clock.now_us()
    one = {"event": 1, "mode": 1, "served": ("p", "m"), "served_mode": 1, "tokens": (None,) * 5, "request_id": ""}
    happened = [
        entry_of(account_id, number, one | {"reserve_us": now_us + number // 4 * HOUR_US, "labels": {"k": str(number)}})
        for number in range(12)
    ]
    await deliver(books, happened, random.Random(1))
    reads = UsageHistoryService(books.context, Bounds(1, 1, bucket_sums=11, range_sums=11))

    async def read(granularity: Granularity, group_by: tuple[Dimension, ...] = (), value: str | None = None) -> int:
        query = UsageQuery(account_id, now_us, now_us + 3 * HOUR_US, granularity, group_by, "k", value)
        return len((await reads.query(query, PageRequest(9, ""), unrestricted=True)).rows)

    by_label = (Dimension.LABEL,)
    assert await read(Granularity.HOUR, by_label) == 4
    with pytest.raises(FlowStackError, match="granularity: must be shorter: one of the buckets") as raised:
        await read(Granularity.DAY, by_label)
    assert raised.value.reason is Reason.INVALID_REQUEST
    with pytest.raises(FlowStackError, match="start_time: must be later: the range rests on over 11 stored sums"):
        await read(Granularity.HOUR, (), "3")
    assert await read(Granularity.DAY) == 1


def test_no_token_of_a_group_is_too_long() -> None:
    for char in ("\x01", "\ufffd", "\\", "😀", "a"):
        bytes_of_char = 1 if char == "\ufffd" else len(char.encode())  # it may have come as U+0000
        provider, model = char * (64 // bytes_of_char), char * (256 // bytes_of_char)
        group = GroupKey(provider, model, 2, model)
        assert group_from_text(group_text(group)) == group
        token = PageTokens(Secret("key")).seal(("scope",), (2**52, group_text(group)))
        assert len(token) <= 2048
    for group in (
        GroupKey(),
        GroupKey("", None, 0, ""),
        GroupKey(None, "5:-", None, "-"),
        GroupKey("1:a", "", 1, None),
    ):
        assert group_from_text(group_text(group)) == group
