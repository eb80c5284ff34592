"""What an account used: its sessions one by one, and their sums over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

from services.billing.domain.ledger import LedgerEntry, partition_of
from services.billing.domain.paging import Position
from services.billing.domain.usage_query import (
    ADVANCED_ANALYTICS,
    Dimension,
    Granularity,
    GroupKey,
    Piece,
    Totals,
    UsageQuery,
    UsageRow,
    group_from_text,
    group_text,
    label_of,
    order_of,
    rows_of,
    total_of,
    whole_range,
    without,
)
from services.billing.ledger_store import SessionFilter
from services.billing.service.context import Context
from services.billing.service.paging import Page, PageRequest, read_page
from services.billing.store import Transaction
from services.billing.usage_store import Group, RollupFilter, RollupRow
from services.shared.errors import FlowStackError, Reason
from services.shared.periods import period_at

ROWS_DEFAULT: Final = 500
_GROUPS: Final[dict[Dimension, Group]] = {
    Dimension.PROVIDER: "provider",
    Dimension.MODEL: "model",
    Dimension.CREDENTIAL_MODE: "served_credential_mode",
}
_FIELDS: Final = {"provider": "provider", "model": "model", "served_credential_mode": "credential_mode"}


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

    def __init__(self, context: Context) -> None:
        self._context = context

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

        async def read(transaction: Transaction) -> Sessions:
            account = await transaction.accounts.get(wanted.account_id)
            chosen = wanted
            if period_time_us is not None:
                anchor_us = (await transaction.subscriptions.get(account.subscription_id)).anchor_us
                start_us = period_at(anchor_us, period_time_us).start_us
                if period_time_us < anchor_us:
                    start_us = await transaction.ledger.period_start_before(wanted.account_id, period_time_us)
                chosen = wanted._replace(period_start_us=start_us)
            page = await read_page(
                self._context.page_tokens,
                scope,
                request,
                lambda after, limit: transaction.ledger.sessions(chosen, after, limit),
                lambda entry: (entry.reserve_us, entry.session_id),
            )
            watermark_us = await transaction.partitions.watermark_us(partition_of(wanted.account_id))
            return Sessions(page, max(watermark_us, account.create_us))

        return await self._context.store.transact(read)

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
            start_us, end_us = whole_range(query, period_us, now_us)
            rows = rows_of(query, start_us, end_us, await _pieces(transaction, query, start_us, end_us))
            watermark_us = await transaction.partitions.watermark_us(partition_of(query.account_id))
            page, position = _cut(rows, after, request.size or ROWS_DEFAULT)
            token = self._context.page_tokens.seal(scope, position) if position else ""
            return UsageRows(tuple(page), token, total_of(rows), max(watermark_us, account.create_us))

        return await self._context.store.transact(read, snapshot=True)


def _cut(rows: list[UsageRow], after: Position | None, size: int) -> tuple[list[UsageRow], Position | None]:
    """The page after a position, and the next page's position; None on the last."""
    if after is not None:
        last = (after[0], order_of(group_from_text(after[1])))
        rows = [row for row in rows if (row.start_us, order_of(row.group)) > last]
    page = rows[:size]
    return page, (page[-1].start_us, group_text(page[-1].group)) if len(rows) > size else None


async def _pieces(transaction: Transaction, query: UsageQuery, start_us: int, end_us: int) -> Sequence[Piece]:
    wanted = RollupFilter(
        query.account_id,
        start_us,
        end_us,
        provider=query.provider or None,
        model=query.model or None,
        served_credential_mode=query.credential_mode or None,
    )
    time: Group = "hour" if query.granularity is Granularity.HOUR else "day"
    groups: list[Group] = [_GROUPS[dimension] for dimension in query.group_by if dimension in _GROUPS]
    if not query.needs_labels:
        return [_piece(row, groups) for row in await transaction.rollups.read(wanted, (time, *groups))]
    labelled = []
    for row in await transaction.rollups.read(wanted, (time, *groups, "labels")):
        value = label_of(str(row.group[-1]), query.label_key)
        if value is not None and query.label_value in (None, value):
            piece = _piece(row, groups)
            by_label = Dimension.LABEL in query.group_by
            labelled.append(piece._replace(group=piece.group._replace(label_value=value)) if by_label else piece)
    if query.label_value is not None:
        return labelled
    everything = [_piece(row, groups) for row in await transaction.rollups.read(wanted, (time, *groups))]
    return [*labelled, *without(everything, labelled)]


def _piece(row: RollupRow, groups: Sequence[Group]) -> Piece:
    time_us, *values = row.group
    named = {_FIELDS[name]: value for name, value in zip(groups, values, strict=False) if name in _FIELDS}
    return Piece(int(time_us), GroupKey(**named), row.credential_mode, row.sums)  # type: ignore[arg-type]
