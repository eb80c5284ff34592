"""Compares the ledger with quota's counters, page by page of accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.billing.domain.audit import NOTHING, Action, Actor, audit_event
from services.billing.domain.ledger import (
    CredentialMode,
    LedgerEntry,
    LedgerKey,
    PartitionLease,
    PeriodCounts,
    partition_of,
)
from services.billing.domain.model import Account, AccountState
from services.billing.domain.paging import Position
from services.billing.domain.reconciliation import Compared, Drift, drifts_of, stray_drift, with_pending
from services.billing.domain.usage import QuotaReading
from services.billing.service.context import Context
from services.billing.service.paging import PageRequest, read_page
from services.billing.store import AccountFilter, Transaction
from services.billing.usage_store import RollupFilter, RollupRow
from services.shared.errors import FlowStackError, Reason

PENDING_MAX: Final = 100_000
"""A ledger that is more events behind than this is compared once it has caught up."""

QUOTA_CALLS: Final = 16
"""How many accounts are read from quota at the same time."""

TRIES: Final = 3
"""A period lasts weeks: one that turns during a comparison does not turn during the next."""

_STRAYS: Final = -1
"""The number in the position of an event that is kept aside. Those of accounts are times, and come first."""

_ALL: Final = AccountFilter(tuple(AccountState), "", "")


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the comparison of one page came to."""

    drifts: tuple[Drift, ...]
    accounts_compared: int
    as_of_us: int
    """Every session that resolved before this time is in it; 0 where no such time is known."""
    next_token: str


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """What quota had yet to deliver."""

    entries: tuple[LedgerEntry, ...]
    watermark_us: int


class _Counts(NamedTuple):
    """What an account's period has."""

    stored: PeriodCounts
    with_pending: PeriodCounts
    rollup: PeriodCounts


class ReconciliationService:
    """Proves that the ledger equals quota's counters, or lists where it does not."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, account_id: str, request: PageRequest, timeout_s: float, actor: Actor) -> Reconciliation:
        """Compares a page of accounts, and lists the events that are kept aside after the last of them.

        It repairs nothing; that somebody looked, and what was found, is in the audit log.

        Args:
            account_id: the only account; empty for all.
            request: which page.
            timeout_s: how long quota may take for one account, in seconds.
            actor: who asks.

        Raises:
            FlowStackError: ACCOUNT_NOT_FOUND, INVALID_REQUEST (another call's page token), QUOTA_UNAVAILABLE,
                BILLING_UNAVAILABLE (also where the ledger is far behind quota).
        """

        async def read(transaction: Transaction, after: Position | None, limit: int) -> Sequence[Account | LedgerEntry]:
            accounts = await _accounts(transaction, account_id, after, limit)
            strays = await transaction.ledger.strays(account_id, _key_of(after), limit - len(accounts))
            if account_id and after is None and not accounts and not strays:
                await transaction.accounts.get(account_id)
            return [*accounts, *strays]

        page = await self._context.store.transact(
            lambda transaction: read_page(
                self._context.page_tokens,
                ("ReconcileUsage", account_id),
                request,
                lambda after, limit: read(transaction, after, limit),
                _position_of,
            )
        )
        account_ids = [item.account_id for item in page.items if isinstance(item, Account)]
        drifts: list[Drift] = []
        watermarks: list[int] = []
        wanted = account_ids
        for _ in range(TRIES):
            if not wanted:
                break
            compared, watermark_us = await self._compare(wanted, timeout_s)
            watermarks.append(watermark_us)
            drifts += [drift for one in compared if not one.period_turned for drift in drifts_of(one)]
            wanted = [one.account_id for one in compared if one.period_turned]
        drifts += [stray_drift(item) for item in page.items if isinstance(item, LedgerEntry)]
        found = Reconciliation(tuple(drifts), len(account_ids), min(watermarks, default=0), page.next_token)
        await self._audit(account_id, found, actor)
        return found

    async def _audit(self, account_id: str, found: Reconciliation, actor: Actor) -> None:
        facts = {"accounts_compared": found.accounts_compared, "drifts": len(found.drifts)}
        event = audit_event(
            Action(actor, "UsageService.ReconcileUsage"),
            account_id,
            "ledger",
            account_id,
            before=NOTHING,
            after=facts,
            now_us=self._context.clock.now_us(),
            randomness=self._context.randomness,
        )
        await self._context.store.transact(lambda transaction: transaction.audit.insert(event))

    async def _compare(self, account_ids: Sequence[str], timeout_s: float) -> tuple[list[Compared], int]:
        """What was read of each account, and up to when it is complete. The order of the readings is the proof."""
        revisions = [await self._revisions(account_ids)]
        before = await self._quotas(account_ids, timeout_s)
        outstanding = await self._outstanding({partition_of(account_id) for account_id in account_ids})
        counts = await self._counts(before, outstanding.entries)
        after = await self._quotas(account_ids, timeout_s)
        revisions.append(await self._revisions(account_ids))
        compared = [
            Compared(
                account_id,
                before[account_id],
                counts[account_id].with_pending,
                after[account_id],
                counts[account_id].stored,
                counts[account_id].rollup,
                frozenset(read[account_id] for read in revisions),
            )
            for account_id in account_ids
        ]
        return compared, outstanding.watermark_us

    async def _revisions(self, account_ids: Sequence[str]) -> Mapping[str, int]:
        async def read(transaction: Transaction) -> Mapping[str, int]:
            return {
                account_id: (await transaction.entitlements.status(account_id)).revision for account_id in account_ids
            }

        return await self._context.store.transact(read)

    async def _quotas(self, account_ids: Sequence[str], timeout_s: float) -> Mapping[str, QuotaReading | None]:
        room = asyncio.Semaphore(QUOTA_CALLS)

        async def read(account_id: str) -> QuotaReading | None:
            async with room:
                try:
                    return await self._context.quota.get_quota(account_id, timeout_s)
                except FlowStackError as error:
                    if error.reason is Reason.ENTITLEMENT_MISSING:
                        return None
                    raise

        return dict(zip(account_ids, await asyncio.gather(*map(read, account_ids)), strict=True))

    async def _outstanding(self, partitions: Collection[int]) -> _Outstanding:
        """The events of `partitions` behind the ledger's cursors, as of now."""
        leases = await self._context.store.transact(lambda transaction: transaction.partitions.all())
        read = {lease.partition: lease for lease in leases if lease.partition in partitions}
        watermarks = {partition: lease.watermark_us for partition, lease in read.items()}
        entries: list[LedgerEntry] = []
        async for batch in self._context.quota.read_session_events(_positions(read), follow=False):
            entries += (positioned.entry for positioned in batch.entries)
            watermarks.update((partition, watermark_us) for partition, watermark_us, _ in batch.watermarks)
            if len(entries) > PENDING_MAX:
                raise FlowStackError(
                    Reason.BILLING_UNAVAILABLE,
                    f"The ledger is more than {PENDING_MAX} events behind quota. Compare once it has caught up.",
                )
        return _Outstanding(tuple(entries), min(watermarks.values()))

    async def _counts(
        self, quotas: Mapping[str, QuotaReading | None], outstanding: Sequence[LedgerEntry]
    ) -> Mapping[str, _Counts]:
        """The ledger of each account's period, with what is outstanding each session once, and its sums."""
        waiting = {entry.key: entry for entry in outstanding if entry.account_id in quotas}

        async def read(transaction: Transaction) -> Mapping[str, _Counts]:
            # One moment: an entry that is stored just now must be neither left out nor counted twice.
            existing = await transaction.ledger.existing(waiting.keys())
            missing = [entry for key, entry in waiting.items() if key not in existing]
            found: dict[str, _Counts] = {}
            for account_id, quota in quotas.items():
                period_us = 0 if quota is None else quota.period_start_us
                counts = await transaction.ledger.counts(account_id, period_us)
                rolled = await transaction.rollups.read(RollupFilter(account_id, period_start_us=period_us))
                found[account_id] = _Counts(
                    counts, with_pending(counts, account_id, period_us, iter(missing)), _counts_of(rolled)
                )
            return found

        return await self._context.store.transact(read, snapshot=True)


def _counts_of(rows: Sequence[RollupRow]) -> PeriodCounts:
    committed = {row.credential_mode: row.sums.committed for row in rows}
    managed, byok = committed.pop(CredentialMode.MANAGED, 0), committed.pop(CredentialMode.BYOK, 0)
    return PeriodCounts(managed, byok, sum(committed.values()))


def _positions(leases: Mapping[int, PartitionLease]) -> Mapping[int, str]:
    return {partition: lease.cursor for partition, lease in leases.items()}


async def _accounts(transaction: Transaction, account_id: str, after: Position | None, limit: int) -> Sequence[Account]:
    if after is not None and after[0] == _STRAYS:
        return ()
    if not account_id:
        return await transaction.accounts.list(_ALL, after, limit)
    if after is not None:
        return ()
    try:
        return (await transaction.accounts.get(account_id),)
    except FlowStackError as error:
        if error.reason is not Reason.ACCOUNT_NOT_FOUND:
            raise
        return ()


def _position_of(item: Account | LedgerEntry) -> Position:
    if isinstance(item, Account):
        return (item.create_us, item.account_id)
    return (_STRAYS, "/".join(map(str, item.key)))


def _key_of(position: Position | None) -> LedgerKey | None:
    if position is None or position[0] != _STRAYS:
        return None
    account_id, session_id, event = position[1].rsplit("/", 2)
    return LedgerKey(account_id, session_id, int(event))
