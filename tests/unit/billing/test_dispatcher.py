"""When entitlements are sent, and when they are left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from services.billing.adapters.catalogue_file import load_catalogue
from services.billing.adapters.sql.database import Database
from services.billing.domain.entitlements import Entitlement
from services.billing.domain.ledger import EventBatch
from services.billing.domain.paging import PageTokens
from services.billing.domain.usage import QuotaReading
from services.billing.service.context import Context
from services.billing.service.dispatcher import EntitlementDispatcher
from services.billing.store import PendingEntitlement
from services.shared.background import Backoff
from services.shared.errors import FlowStackError, Reason
from services.shared.secret import Secret
from tests.support.clock import SECOND_US, ManualClock

ENTITLEMENT = Entitlement("acct_1", 1, "sub_1", 1, (), 0, None)


class MemoryQuota:
    """The port to quota, in memory: takes entitlements unless it is down."""

    def __init__(self) -> None:
        self.down = False
        self.taken: list[Entitlement] = []

    async def put_entitlement(self, entitlement: Entitlement, timeout_s: float) -> None:
        if self.down:
            raise FlowStackError(Reason.QUOTA_UNAVAILABLE, "Down.")
        self.taken.append(entitlement)

    async def get_quota(self, account_id: str, timeout_s: float) -> QuotaReading:
        raise NotImplementedError

    def read_session_events(self, after: Mapping[int, str], *, follow: bool = True) -> AsyncIterator[EventBatch]:
        raise NotImplementedError

    async def acknowledge(self, cursors: Mapping[int, str]) -> None:
        raise NotImplementedError


@pytest.fixture
def quota() -> MemoryQuota:
    return MemoryQuota()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def dispatcher(database: Database, quota: MemoryQuota, clock: ManualClock) -> EntitlementDispatcher:
    context = Context(database, quota, load_catalogue(), PageTokens(Secret("x")), clock, bytes)
    return EntitlementDispatcher(context, Backoff(1.0, 4.0, lambda: 1.0))


async def due(database: Database, now_us: int) -> list[PendingEntitlement]:
    return [*await database.transact(lambda transaction: transaction.entitlements.due(now_us, 10))]


async def put(database: Database, clock: ManualClock) -> None:
    await database.transact(lambda transaction: transaction.entitlements.put(ENTITLEMENT, clock.now_us()))


async def test_attempts_in_vain_are_further_and_further_apart(
    database: Database, quota: MemoryQuota, clock: ManualClock, dispatcher: EntitlementDispatcher
) -> None:
    await put(database, clock)
    quota.down = True
    for delay_s in (1, 2, 4, 4):
        assert len(await due(database, clock.now_us())) == 1
        await dispatcher.run_once()
        assert await due(database, clock.now_us() + delay_s * SECOND_US - 1) == []
        clock.advance(delay_s)
    quota.down = False
    await dispatcher.run_once()
    assert quota.taken == [ENTITLEMENT]
    assert await database.transact(lambda transaction: transaction.entitlements.next_due_us()) is None


async def test_what_was_applied_is_not_due(
    database: Database, quota: MemoryQuota, clock: ManualClock, dispatcher: EntitlementDispatcher
) -> None:
    await put(database, clock)
    assert (await dispatcher.apply("acct_1")).applied
    assert (await dispatcher.apply("acct_1")).applied
    assert quota.taken == [ENTITLEMENT]


async def test_renewing_sends_what_was_applied_once_more(
    database: Database, quota: MemoryQuota, clock: ManualClock, dispatcher: EntitlementDispatcher
) -> None:
    await put(database, clock)
    await dispatcher.apply("acct_1")
    await dispatcher.renew("acct_other")
    assert await due(database, clock.now_us()) == []
    await dispatcher.renew()
    await dispatcher.run_once()
    assert quota.taken == [ENTITLEMENT, ENTITLEMENT]


async def test_an_account_without_an_entitlement_has_none_applied(dispatcher: EntitlementDispatcher) -> None:
    status = await dispatcher.apply("acct_none")
    assert (status.revision, status.applied) == (0, False)
