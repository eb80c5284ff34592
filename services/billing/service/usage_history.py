"""What an account used: its sessions one by one, and their sums over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

from services.billing.domain.ledger import LedgerEntry, partition_of
from services.billing.domain.paging import Position
from services.billing.domain.usage_query import (
    ADVANCED_ANALYTICS,
    Totals,
    UsageQuery,
    UsageRow,
    bucket_end,
    bucket_start,
    buckets,
    filled,
    group_from_text,
    group_text,
    whole_range,
)
from services.billing.ledger_store import SessionFilter
from services.billing.service.context import Context
from services.billing.service.paging import Page, PageRequest, page_of
from services.billing.store import Transaction
from services.billing.usage_store import Span
from services.shared.errors import FlowStackError, Reason, invalid_request
from services.shared.paging import PAGE_SIZE_DEFAULT
from services.shared.periods import period_at

ROWS_DEFAULT: Final = 500
SUMS_PER_ROW: Final = 4
"""How many stored sums a group is first taken to rest on."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one call reads."""

    sessions: int = 20_000
    """How many sessions a page looks at, where few of them may be wanted."""
    sums: int = 20_000
    """How many stored sums the groups of a page rest on, unless its first bucket has more."""
    bucket_sums: int = 200_000
    """How many stored sums the groups of one bucket rest on."""
    range_sums: int = 1_000_000
    """How many stored sums the totals rest on. They are added up alone, which is much the quickest."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """One page of sessions; every session that resolved before `as_of_us` is in the ledger."""

    page: Page[LedgerEntry]
    as_of_us: int


@dataclass(frozen=True, slots=True)
class UsageRows:
    """One page of sums, and the sums of the whole range."""

    rows: tuple[UsageRow, ...]
    next_token: str
    totals: Totals
    as_of_us: int


class UsageHistoryService:
    """Use cases of the past."""

    def __init__(self, context: Context, bounds: Bounds = Bounds()) -> None:  # frozen
        self._context = context
        self._bounds = bounds

    async def sessions(self, wanted: SessionFilter, period_time_us: int | None, request: PageRequest) -> Sessions:
        """Lists resolved sessions, those reserved last first.

        Args:
            wanted: the account and the filters.
            period_time_us: only sessions of the period that contains this time; None for all.
            request: which page.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, INVALID_REQUEST (another call's page token).
        """
        scope = ("ListSessions", *map(str, wanted), str(period_time_us))

        size = request.size or PAGE_SIZE_DEFAULT
        tokens = self._context.page_tokens
        after = tokens.open(scope, request.token)

        async def read(transaction: Transaction) -> Sessions:
            account = await transaction.accounts.get(wanted.account_id)
            chosen = wanted
            if period_time_us is not None:
                subscription = await transaction.subscriptions.at(wanted.account_id, period_time_us)
                chosen = wanted._replace(period=period_at(subscription.anchor_us, period_time_us))
            entries, looked_to = await transaction.ledger.sessions(chosen, after, size + 1, self._bounds.sessions)
            page = page_of(tokens, scope, entries, size, _place_of, go_on_after=looked_to)
            watermark_us = await transaction.partitions.watermark_us(partition_of(wanted.account_id))
            return Sessions(page, max(watermark_us, account.create_us))

        return await self._context.store.transact(read, snapshot=True)

    async def query(self, query: UsageQuery, request: PageRequest, *, unrestricted: bool) -> UsageRows:
        """Adds sessions up in buckets, from the rollups.

        Args:
            query: what is added up.
            request: which page.
            unrestricted: whoever asks may group without the feature.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, FEATURE_NOT_IN_PLAN, INVALID_REQUEST.
        """
        scope = ("QueryUsage", *map(str, astuple(query)))
        after = self._context.page_tokens.open(scope, request.token)
        now_us = self._context.clock.now_us()

        async def read(transaction: Transaction) -> UsageRows:
            account = await transaction.accounts.get(query.account_id)
            subscription = await transaction.subscriptions.get(account.subscription_id)
            if query.group_by and not unrestricted and ADVANCED_ANALYTICS not in subscription.terms.features:
                raise FlowStackError(
                    Reason.FEATURE_NOT_IN_PLAN,
                    f"The plan {account.plan_id} has no advanced analytics, which grouping needs. Leave group_by "
                    "out, or change to a plan that has it; ListPlans shows which.",
                    metadata={"plan": account.plan_id, "feature": ADVANCED_ANALYTICS},
                )
            period_us = period_at(subscription.anchor_us, now_us).start_us
            span = Span(*whole_range(query, period_us, now_us))
            totals = await transaction.rollups.totals(query, span, self._bounds.range_sums)
            if totals is None:
                raise _too_many("start_time", "must be later: the range", self._bounds.range_sums)
            start_us, group = (span.start_us, "") if after is None else after
            left = Span(start_us, span.end_us)
            if query.group_by:
                rows, go_on = await self._grouped(transaction, query, left, group, request.size or ROWS_DEFAULT)
            else:
                rows, go_on = await _by_bucket(transaction, query, left, request.size or ROWS_DEFAULT)
            watermark_us = await transaction.partitions.watermark_us(partition_of(query.account_id))
            token = "" if go_on is None else self._context.page_tokens.seal(scope, go_on)
            return UsageRows(tuple(rows), token, totals, max(watermark_us, account.create_us))

        return await self._context.store.transact(read, snapshot=True)

    async def _grouped(
        self, transaction: Transaction, query: UsageQuery, left: Span, after: str, size: int
    ) -> tuple[Sequence[UsageRow], Position | None]:
        """The page that follows on a group of the first bucket, and where the next one goes on; None on the last."""
        group = group_from_text(after) if after else None
        sums = min(self._bounds.sums, SUMS_PER_ROW * size)
        while True:
            end_us = await self._whole_buckets(transaction, query, left, sums)
            found = await transaction.rollups.rows(query, Span(left.start_us, end_us), group, size + 1)
            if len(found) > size:
                return found[:size], (found[size - 1].start_us, group_text(found[size - 1].group))
            if end_us == left.end_us:
                return found, None
            if sums == self._bounds.sums:
                return found, (end_us, "")
            # Of as many as the page needs, by what these were enough for.
            sums = min(self._bounds.sums, max(2 * sums, sums * size * 5 // (4 * len(found) + 1)))

    async def _whole_buckets(self, transaction: Transaction, query: UsageQuery, left: Span, sums: int) -> int:
        """The end of as many whole buckets as rest on that many sums, one at least."""
        reached_us = await transaction.rollups.reach(query, left, sums)
        if reached_us is None:
            return left.end_us
        end_us = bucket_start(query.granularity, reached_us)
        if end_us > left.start_us:
            return end_us
        first = Span(left.start_us, bucket_end(query.granularity, left.start_us))
        if await transaction.rollups.reach(query, first, self._bounds.bucket_sums) is not None:
            raise _too_many("granularity", "must be shorter: one of the buckets", self._bounds.bucket_sums)
        return first.end_us


def _place_of(entry: LedgerEntry) -> Position:
    return entry.reserve_us, entry.session_id


async def _by_bucket(
    transaction: Transaction, query: UsageQuery, left: Span, size: int
) -> tuple[Sequence[UsageRow], Position | None]:
    """The page of buckets that `left` begins with, and where the next one begins; None on the last."""
    starts = buckets(query.granularity, *left, size)
    next_us = bucket_end(query.granularity, starts[-1]) if starts else left.end_us
    found = await transaction.rollups.rows(query, Span(left.start_us, next_us), None, size)
    return filled(query, starts, found), (next_us, "") if next_us < left.end_us else None


def _too_many(field: str, what: str, sums_max: int) -> FlowStackError:
    return invalid_request(field, f"{what} rests on over {sums_max:,} stored sums of an hour")
