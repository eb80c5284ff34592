"""ReconcileUsage: the ledger against quota's counters, and nothing that only looks like a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog
from flowstack_protos.billing.v1 import usage_service_pb2 as pb
from sqlalchemy import text, update

from services.billing.adapters.migrations.steps import MIGRATIONS, OWNER
from services.billing.adapters.sql.usage_tables import USAGE_PERIODS
from services.billing.config import BillingSettings
from services.billing.domain.ledger import partition_of
from services.shared.database.command import bring_to
from services.shared.database.connect import engine_for
from services.shared.times import time_to_proto
from tests.support.billing import ADMIN, BillingUnderTest, billing, failure_of, reason_of
from tests.support.clock import ManualClock
from tests.support.database import connection_to, read_rows
from tests.support.fake_quota_events import BYOK, COMMITTED, EXPIRED, MANAGED, RELEASED, FakeQuotaEvents

COMMITTED_SESSIONS, CREDENTIAL_MODES = pb.DRIFT_KIND_COMMITTED_SESSIONS, pb.DRIFT_KIND_CREDENTIAL_MODES
UNKNOWN_ACCOUNT, ENTITLEMENT = pb.DRIFT_KIND_UNKNOWN_ACCOUNT, pb.DRIFT_KIND_ENTITLEMENT


async def reconcile(service: BillingUnderTest, **fields: object) -> pb.ReconcileUsageResponse:
    request = pb.ReconcileUsageRequest(**fields)  # type: ignore[arg-type]
    response: pb.ReconcileUsageResponse = await service.usage.ReconcileUsage(request, metadata=ADMIN)
    return response


async def new_account(service: BillingUnderTest) -> str:
    return (await service.open_account("starter")).account.account_id


async def account_with_sessions(service: BillingUnderTest, quota: FakeQuotaEvents) -> str:
    """Three managed, two BYOK sessions counted; two that do not count."""
    account_id = await new_account(service)
    for number in range(7):
        event = (COMMITTED, COMMITTED, COMMITTED, COMMITTED, COMMITTED, RELEASED, EXPIRED)[number]
        await quota.resolve(account_id, f"ses_{number}", event, mode=MANAGED if number < 3 else BYOK)
    await quota.drained()
    return account_id


async def test_equal_books_have_no_difference(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    accounts = [await account_with_sessions(service, quota) for _ in range(3)]
    found = await reconcile(service)
    assert list(found.drifts) == []
    assert found.accounts_compared == 3
    assert found.as_of_time == time_to_proto(clock.now_us())
    assert found.next_page_token == ""
    assert (await reconcile(service, account_id=accounts[0])).accounts_compared == 1


async def test_what_quota_has_yet_to_deliver_is_no_difference(
    service: BillingUnderTest, quota: FakeQuotaEvents
) -> None:
    account_id = await account_with_sessions(service, quota)
    await quota.set_withhold(True)
    await quota.resolve(account_id, "ses_late", mode=MANAGED)
    found = await reconcile(service, account_id=account_id)
    assert list(found.drifts) == []
    await quota.set_withhold(False)
    await quota.drained()
    assert list((await reconcile(service)).drifts) == []


async def test_books_that_are_read_anew_are_counted_once(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    # Quota sends everything again: the ledger has it all, and the cursors do not say so.
    account_id = await account_with_sessions(service, quota)
    quota.redeliver = True
    assert list((await reconcile(service, account_id=account_id)).drifts) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((MANAGED, 2), [(COMMITTED_SESSIONS, 5, 7), (CREDENTIAL_MODES, 3, 5)]),
        ((BYOK, -1), [(COMMITTED_SESSIONS, 5, 4), (CREDENTIAL_MODES, 2, 1)]),
    ],
)
async def test_a_ledger_that_lacks_or_has_more_is_told(
    service: BillingUnderTest, quota: FakeQuotaEvents, change: tuple[int, int], expected: list[tuple[int, int, int]]
) -> None:
    account_id, other = await account_with_sessions(service, quota), await account_with_sessions(service, quota)
    mode, by = change
    (key,) = [key for key in quota.committed if key[0] == account_id and key[2] == mode]
    quota.committed[key] += by
    found = await reconcile(service)
    assert [(drift.kind, drift.ledger_value, drift.compared_value) for drift in found.drifts] == expected
    assert {drift.account_id for drift in found.drifts} == {account_id}
    assert {drift.period_start_time.ToMicroseconds() for drift in found.drifts} == {key[1]}
    assert list((await reconcile(service, account_id=other)).drifts) == []


async def test_sums_that_are_not_the_ledgers_are_told(
    settings: BillingSettings, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    async with billing(settings, clock) as service:
        account_id = await account_with_sessions(service, quota)
    engine = engine_for(settings.billing_database, OWNER)
    async with engine.begin() as connection:
        statement = update(USAGE_PERIODS).where(USAGE_PERIODS.c.credential_mode == int(MANAGED)).values(committed=1)
        await connection.execute(statement)
    await engine.dispose()
    async with billing(settings, clock) as service:
        drifts = (await reconcile(service, account_id=account_id)).drifts
    assert [(drift.kind, drift.ledger_value, drift.compared_value) for drift in drifts] == [
        (pb.DRIFT_KIND_ROLLUP, 5, 3)
    ]


async def test_modes_that_are_exchanged_are_told(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    account_id = await account_with_sessions(service, quota)
    for key in [key for key in quota.committed if key[0] == account_id]:
        quota.committed[key] += 1 if key[2] == MANAGED else -1
    drifts = (await reconcile(service)).drifts
    assert [(drift.kind, drift.ledger_value, drift.compared_value) for drift in drifts] == [
        (CREDENTIAL_MODES, 3, 4),
        (CREDENTIAL_MODES, 2, 1),
    ]


def forget(quota: FakeQuotaEvents, account_id: str) -> None:
    del quota.entitlements[account_id]


def set_ahead(quota: FakeQuotaEvents, account_id: str) -> None:
    quota.entitlements[account_id].revision = 9


@pytest.mark.parametrize(("change", "at_quota"), [(forget, 0), (set_ahead, 9)])
async def test_an_entitlement_that_quota_does_not_have_is_told(
    service: BillingUnderTest, quota: FakeQuotaEvents, change: Callable[[FakeQuotaEvents, str], None], at_quota: int
) -> None:
    account_id = await account_with_sessions(service, quota)
    change(quota, account_id)
    (drift,) = (await reconcile(service)).drifts
    assert (drift.kind, drift.ledger_value, drift.compared_value) == (ENTITLEMENT, 1, at_quota)


async def test_pages_hold_every_account_and_every_stray_once(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    for _ in range(3):
        await account_with_sessions(service, quota)
    strays = {("acct_lost", "ses_1"), ("acct_lost", "ses_2"), ("acct_none", "ses_1")}
    for account_id, session_id in strays:
        await quota.resolve(account_id, session_id)
    await quota.drained()
    token, compared, found = "", 0, []
    for _ in range(10):
        page = await reconcile(service, page_size=2, page_token=token)
        compared += page.accounts_compared
        found += [(drift.account_id, drift.session_id) for drift in page.drifts]
        assert {drift.kind for drift in page.drifts} <= {UNKNOWN_ACCOUNT}
        token = page.next_page_token
        if not token:
            break
    assert compared == 3
    assert sorted(found) == sorted(strays)


async def test_a_page_token_of_another_call_is_refused(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    account_id = await account_with_sessions(service, quota)
    await new_account(service)
    token = (await reconcile(service, page_size=1)).next_page_token
    assert token
    request = pb.ReconcileUsageRequest(account_id=account_id, page_token=token)
    assert await reason_of(service.usage.ReconcileUsage(request, metadata=ADMIN)) == "INVALID_REQUEST"


async def test_an_account_that_nobody_knows_is_not_found(service: BillingUnderTest) -> None:
    request = pb.ReconcileUsageRequest(account_id="acct_nobody")
    assert await reason_of(service.usage.ReconcileUsage(request, metadata=ADMIN)) == "ACCOUNT_NOT_FOUND"


async def test_without_quota_nothing_is_claimed(service: BillingUnderTest, quota: FakeQuotaEvents) -> None:
    await account_with_sessions(service, quota)
    await quota.set_unavailable(True)
    _, error = await failure_of(service.usage.ReconcileUsage(pb.ReconcileUsageRequest(), metadata=ADMIN))
    assert error.reason == "QUOTA_UNAVAILABLE"


async def test_a_period_that_turns_during_the_comparison_is_compared_again(
    service: BillingUnderTest, quota: FakeQuotaEvents, clock: ManualClock
) -> None:
    account_id = await account_with_sessions(service, quota)
    readings = 0

    def count() -> None:
        nonlocal readings
        readings += 1
        if readings == 2:
            clock.advance(32 * 24 * 3600)

    quota.on_get_quota = count
    found = await reconcile(service, account_id=account_id)
    assert list(found.drifts) == []
    assert readings == 4


async def test_a_stray_is_booked_once_its_account_is_known(
    settings: BillingSettings, clock: ManualClock, quota: FakeQuotaEvents
) -> None:
    async with billing(settings, clock) as service:
        account_id = await account_with_sessions(service, quota)
    # The database is restored from a backup that is older than the account.
    lost = {table: read_rows(settings.billing_database, table) for table in ("accounts", "ledger")}
    sums = ("usage_periods", "usage_hours", "usage_labels")
    emptied = [f"DELETE FROM {table}" for table in ("ledger", *sums, "accounts")]
    # The ledger lets nobody delete what is in it.
    await bring_to(MIGRATIONS, settings.billing_database, "0008", allow_loss=True, check=False)
    change(settings, *emptied, "UPDATE partition_cursors SET cursor = ''")
    await bring_to(MIGRATIONS, settings.billing_database, "head", allow_loss=False, check=False)
    quota.redeliver = True
    async with billing(settings, clock) as service:
        await quota.resolve(account_id, "ses_9")
        await quota.until(lambda: quota.acknowledged[partition_of(account_id)] == 8)
        drifts = (await reconcile(service)).drifts
        assert {(drift.kind, drift.account_id) for drift in drifts} == {(UNKNOWN_ACCOUNT, account_id)}
        assert len(drifts) == 8
        assert len((await reconcile(service, account_id=account_id)).drifts) == 8
    (row,) = lost["accounts"]
    names = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    with connection_to(settings.billing_database) as connection:
        connection.execute(text(f"INSERT INTO accounts ({names}) VALUES ({marks})"), row)
    with structlog.testing.capture_logs() as lines:
        async with billing(settings, clock) as service:
            await quota.resolve(account_id, "ses_10")
            await quota.drained()
            assert list((await reconcile(service)).drifts) == []
    assert {"event": "stray_events_booked", "count": 8, "log_level": "info"} in lines
    assert read_rows(settings.billing_database, "stray_events") == []
    rows = read_rows(settings.billing_database)
    assert len(rows) == 9
    restored = [{**row, "insert_us": 0} for row in rows if row["session_id"] not in ("ses_9", "ses_10")]
    assert restored == [{**row, "insert_us": 0} for row in lost["ledger"]]


def change(settings: BillingSettings, *statements: str) -> None:
    with connection_to(settings.billing_database) as connection:
        for statement in statements:
            connection.execute(text(statement))
