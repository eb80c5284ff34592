"""Any sessions, any question: what QueryUsage adds up, and usage and alerts count, are the sessions that are listed."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.adapters.sql.database import Database
from services.billing.alert_store import AccountPeriod
from services.billing.domain.ledger import LedgerEntry, PositionedEntry, partition_of
from services.billing.domain.usage import day_start_us
from services.billing.domain.usage_query import Dimension, Granularity, GroupKey, UsageQuery, UsageRow
from services.billing.ledger_store import SessionFilter
from services.billing.service.booking import Booking
from services.billing.service.paging import PageRequest
from services.billing.service.usage_history import UsageHistoryService
from services.billing.store import Transaction
from services.shared.periods import period_at
from tests.support.books import Books
from tests.support.clock import DAY_US, HOUR_US, ManualClock
from tests.support.rollups import OnePrice

MANAGED, BYOK = 1, 2
SERVED: Final = (("p", "m"), ("p", "unheard-of"), ("q", "m"), ("", ""))
LABELS: Final = ({}, {"team": "a"}, {"team": 'b,"\\'}, {"team": "a", "n": "1"}, {"n": ""})
DAYS: Final = 65
"""Of history: more than two periods."""

one_session = st.tuples(
    st.integers(0, DAYS * 24 * 4),
    st.sampled_from([1, 1, 2, 3]),
    st.sampled_from(SERVED),
    st.sampled_from([MANAGED, BYOK]),
    st.sampled_from([None, 0, 1_000_000, 1_234_567]),
    st.sampled_from(LABELS),
)
questions = st.builds(
    lambda span, granularity, groups, label, served, mode: (span, granularity, groups, label, served, mode),
    st.tuples(st.integers(-2, DAYS + 2), st.integers(1, 40)),
    st.sampled_from(list(Granularity)),
    st.lists(st.sampled_from(list(Dimension)), unique=True),
    st.tuples(st.sampled_from(["team", "n", "no-such-label"]), st.sampled_from([None, None, "a", 'b,"\\', "", "x"])),
    st.sampled_from([("", ""), ("", ""), ("p", ""), ("", "m"), ("p", "m"), ("no-such-provider", "")]),
    st.sampled_from([0, 0, MANAGED, BYOK]),
)


class World:
    """An account with a past."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        books = Books(database, self.clock)
        self.books = books
        self.context = replace(books.context, prices=OnePrice())
        self.history = UsageHistoryService(self.context)
        self.account_id = ""
        self.start_us = self.clock.now_us()

    async def live(self, sessions: list[Any]) -> None:
        """The account is opened, sessions run, and are booked in two goes."""
        self.account_id = await self.books.open_account("professional")
        entries = [self.entry(number, one) for number, one in enumerate(sessions)]
        self.clock.advance_us(DAYS * DAY_US)
        for some in (entries[::2], entries[1::2], entries[:5]):
            positioned = [PositionedEntry(partition_of(self.account_id), "c", entry) for entry in some]
            await self.context.store.transact(
                lambda t, these=positioned: Booking(self.context).book(t, these, self.clock.now_us())  # type: ignore[misc]
            )

    def entry(self, number: int, session: Any) -> LedgerEntry:
        quarters, event, served, mode, tokens, labels = session
        reserve_us = self.start_us + quarters * HOUR_US // 4
        period_us = period_at(self.start_us, reserve_us).start_us
        return LedgerEntry(
            self.account_id, f"ses_{number}", event, reserve_us + 1, event + 1, period_us, reserve_us, reserve_us,
            reserve_us, mode, *served, mode if served[0] else 0, tokens, tokens, 0, 0, 0, False, 1, 0, "", "",
            json.dumps(labels, separators=(",", ":")), "{}", 1,
        )  # fmt: skip

    async def listed(self, wanted: SessionFilter, period_time_us: int | None = None) -> list[LedgerEntry]:
        found: list[LedgerEntry] = []
        token = ""
        while True:
            page = (await self.history.sessions(wanted, period_time_us, PageRequest(7, token))).page
            found += page.items
            token = page.next_token
            if not token:
                return found

    async def queried(self, query: UsageQuery) -> tuple[list[UsageRow], Any]:
        found: list[UsageRow] = []
        token = ""
        while True:
            answer = await self.history.query(query, PageRequest(11, token), unrestricted=True)
            found += answer.rows
            token = answer.next_token
            if not token:
                return found, answer.totals


def group_of(query: UsageQuery, entry: LedgerEntry) -> GroupKey:
    by = query.group_by
    return GroupKey(
        entry.served_provider if Dimension.PROVIDER in by else None,
        entry.served_model if Dimension.MODEL in by else None,
        entry.served_credential_mode if Dimension.CREDENTIAL_MODE in by else None,
        json.loads(entry.labels).get(query.label_key) if Dimension.LABEL in by else None,
    )


def counted(entries: list[LedgerEntry]) -> tuple[int, ...]:
    """What sessions come to, one by one."""
    whole = [one for one in entries if one.input_tokens is not None]
    return (
        sum(one.event == 1 and one.credential_mode == MANAGED for one in entries),
        sum(one.event == 1 and one.credential_mode == BYOK for one in entries),
        sum(one.event == 1 for one in entries),
        sum(one.event == 2 for one in entries),
        sum(one.event == 3 for one in entries),
        sum(one.input_tokens or 0 for one in whole),
        len(entries) - len(whole),
        sum(one.provider_cost_micro or 0 for one in entries),
        sum(one.credential_mode == BYOK and one.provider_cost_micro is None for one in entries),
    )


def told(totals: Any) -> tuple[int, ...]:
    """The same of an answer."""
    sums = totals.sums
    return (
        totals.managed, totals.byok, sums.committed, sums.released, sums.expired, sums.input_tokens,
        sums.without_tokens, sums.cost_micro, sums.unpriced,
    )  # fmt: skip


async def check(world: World, question: Any) -> None:
    """A query's rows and totals beside the sessions that are listed by the same filter."""
    (first_day, days), granularity, groups, (label_key, label_value), (provider, model), mode = question
    day_us = day_start_us(world.start_us) + first_day * DAY_US
    by_label = label_value is not None or Dimension.LABEL in groups
    query = UsageQuery(
        world.account_id, day_us, day_us + days * DAY_US, granularity, tuple(groups), label_key if by_label else "",
        label_value if by_label else None, provider, model, mode,
    )  # fmt: skip
    rows, totals = await world.queried(query)
    # The range is taken in whole buckets; a month may begin before it and end after it.
    spans = {(row.start_us, row.end_us) for row in rows}
    everything = await world.listed(
        SessionFilter(
            world.account_id,
            provider=provider,
            model=model,
            served_credential_mode=mode,
            labels=((label_key, label_value),) if label_value is not None else (),
        )
    )
    if granularity is not Granularity.MONTH:
        everything = [one for one in everything if day_us <= one.reserve_us < day_us + days * DAY_US]
        assert all(day_us <= start_us < day_us + days * DAY_US for start_us, _ in spans)
    expected: defaultdict[tuple[int, GroupKey], list[LedgerEntry]] = defaultdict(list)
    for one in everything:
        place = next((start_us for start_us, end_us in spans if start_us <= one.reserve_us < end_us), None)
        assert place is not None or granularity is Granularity.MONTH, "a listed session is in no bucket"
        if place is not None:
            expected[place, group_of(query, one)].append(one)
    found = {(row.start_us, row.group): told(row.totals) for row in rows if any(row.totals.sums)}
    assert found == {key: counted(some) for key, some in expected.items()}
    assert told(totals) == counted([one for some in expected.values() for one in some])


async def check_counts(world: World, time_us: int) -> None:
    """What usage shows of a day until now, and what alerts and budgets are decided by in a period."""
    today_us, period = day_start_us(time_us), period_at(world.start_us, time_us)
    place = AccountPeriod(world.account_id, period.start_us)

    async def read(transaction: Transaction) -> Any:
        sums = (await transaction.alerts.sums([place])).get(place)
        return await transaction.rollups.committed_since(world.account_id, today_us), sums

    today, sums = await world.context.store.transact(read)
    listed = await world.listed(SessionFilter(world.account_id, start_us=today_us, events=(1,)))
    assert today == len(listed)
    mine = await world.listed(SessionFilter(world.account_id), time_us)
    byok = [one for one in mine if one.credential_mode == BYOK]
    assert (sums is None) == (not mine)
    if sums is not None:
        assert sums.committed == sum(one.event == 1 for one in mine)
        assert sums.byok_micro == sum(one.provider_cost_micro or 0 for one in byok)
        assert sums.unpriced == sum(one.provider_cost_micro is None for one in byok)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sessions=st.lists(one_session, min_size=5, max_size=40), asked=st.lists(questions, min_size=5, max_size=12))
async def test_what_is_added_up_is_what_is_listed(database: Database, sessions: list[Any], asked: list[Any]) -> None:
    world = World(database)
    await world.live(sessions)
    assert len(await world.listed(SessionFilter(world.account_id))) == len(sessions)
    for days in (0, 35, DAYS):
        await check_counts(world, world.start_us + days * DAY_US)
    for question in asked:
        await check(world, question)
