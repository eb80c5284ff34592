"""Deliveries in the store and in the rules: leases, fences, who is passed over, and when one is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.billing.adapters.sql.database import Database
from services.billing.alert_store import AtOnce, Receiver
from services.billing.domain.alerts import Alert, AlertKind, AlertSeverity
from services.billing.domain.webhooks import (
    RETRY_DELAYS_S,
    AttemptResult,
    Delivery,
    DeliveryFailure,
    DeliveryState,
    after_attempt,
)

SECOND_US = 1_000_000
LEASE_US = 60 * SECOND_US
TAKEN = AttemptResult(DeliveryFailure.NONE, 200)
DOWN = AttemptResult(DeliveryFailure.STATUS, 500)


async def add(database: Database, account_id: str, number: int, *webhook_ids: str, now_us: int = 1) -> Alert:
    alert = Alert(
        f"alert_{account_id}{number}",
        account_id,
        number,
        f"k{number}",
        AlertKind.CUSTOM,
        AlertSeverity.INFO,
        now_us,
        "m",
    )

    async def work(transaction: Any) -> None:
        await transaction.alerts.insert(alert)
        await transaction.webhooks.add_deliveries(alert, webhook_ids)

    await database.transact(work)
    return alert


async def claim(
    database: Database,
    now_us: int,
    limit: int = 64,
    busy: dict[Receiver, int] | None = None,
    at_once: AtOnce = AtOnce(4, 4),  # noqa: B008  # immutable
) -> list[Delivery]:
    return list(await database.transact(lambda t: t.webhooks.claim(now_us, LEASE_US, limit, busy or {}, at_once)))


async def finish(database: Database, delivery: Delivery, result: AttemptResult, state: DeliveryState) -> bool:
    return await database.transact(lambda t: t.webhooks.finish(delivery, result, state, 0, 5))


async def test_a_delivery_is_in_one_pair_of_hands_until_its_lease_ends(database: Database) -> None:
    await add(database, "acct_a", 1, "wh_1")
    (first,) = await claim(database, SECOND_US)
    assert await claim(database, LEASE_US) == []
    # The first replica has fallen silent; the second goes on, and what the first writes then is not taken.
    (second,) = await claim(database, SECOND_US + LEASE_US)
    assert second.fence == first.fence + 1
    assert not await finish(database, first, TAKEN, DeliveryState.DELIVERED)
    assert await finish(database, second, DOWN, DeliveryState.DEAD)
    (stored,) = await database.transact(lambda t: t.webhooks.deliveries("acct_a", ["alert_acct_a1"]))
    assert (stored.state, stored.attempts, stored.last_http_status) == (DeliveryState.DEAD, 1, 500)


async def test_replicas_that_claim_at_once_share_what_is_due(database: Database) -> None:
    for number in range(12):
        await add(database, f"acct_{number}", 1, "wh_1", "wh_2")
    taken = await asyncio.gather(*(claim(database, SECOND_US, limit=7) for _ in range(6)))
    keys = [(delivery.alert_id, delivery.webhook_id) for some in taken for delivery in some]
    assert len(keys) == len(set(keys))
    while more := await claim(database, SECOND_US):
        keys += [(delivery.alert_id, delivery.webhook_id) for delivery in more]
    assert (len(keys), len(set(keys))) == (24, 24)


async def test_an_account_with_its_hands_full_is_passed_over(database: Database) -> None:
    for number in range(1, 9):
        await add(database, "acct_a", number, "wh_1", now_us=number)
    await add(database, "acct_b", 1, "wh_2", now_us=100)
    first = await claim(database, SECOND_US, limit=8)
    assert [delivery.account_id for delivery in first] == ["acct_a"] * 4
    (other,) = await claim(
        database, SECOND_US, limit=8, busy={Receiver("acct_a", "wh_1"): 3, Receiver("acct_a", "wh_3"): 1}
    )
    assert other.account_id == "acct_b"


async def test_a_webhook_with_its_hands_full_keeps_the_accounts_others_not_waiting(database: Database) -> None:
    for number in range(1, 9):
        await add(database, "acct_a", number, "wh_hangs", now_us=number)
    await add(database, "acct_a", 9, "wh_fine", now_us=100)
    at_once = AtOnce(4, 2)
    first = await claim(database, SECOND_US, limit=8, at_once=at_once)
    assert [delivery.webhook_id for delivery in first] == ["wh_hangs"] * 2
    # What waits for the one that hangs takes up no place in the next look.
    busy = {Receiver("acct_a", "wh_hangs"): 2}
    (other,) = await claim(database, SECOND_US, limit=1, busy=busy, at_once=at_once)
    assert other.webhook_id == "wh_fine"


async def test_asking_again_makes_what_waits_due_and_starts_what_ended_anew(database: Database) -> None:
    alert = await add(database, "acct_a", 1, "wh_1", "wh_2")
    ended, waiting = await claim(database, SECOND_US)
    assert await finish(database, ended, DOWN, DeliveryState.DEAD)
    # One that is under way stays in its hands: its attempt is the one that was asked for.
    await database.transact(lambda t: t.webhooks.redeliver(alert, ["wh_1", "wh_2", "wh_3"], SECOND_US))
    again = await claim(database, 2 * SECOND_US)
    assert {delivery.webhook_id for delivery in again} == {ended.webhook_id, "wh_3"}
    assert {delivery.tries for delivery in again} == {0}
    assert await finish(database, waiting, TAKEN, DeliveryState.DELIVERED)


@pytest.mark.parametrize(
    ("tries", "result", "state", "low_s", "high_s"),
    [
        (0, TAKEN, DeliveryState.DELIVERED, 0, 0),
        (0, DOWN, DeliveryState.PENDING, 4.5, 5.5),
        (3, DOWN, DeliveryState.PENDING, 6_480, 7_920),
        (len(RETRY_DELAYS_S), DOWN, DeliveryState.DEAD, 0, 0),
        (0, AttemptResult(DeliveryFailure.STATUS, 410), DeliveryState.DEAD, 0, 0),
        (0, AttemptResult(DeliveryFailure.STATUS, 429, 90.0), DeliveryState.PENDING, 90, 90),
        (0, AttemptResult(DeliveryFailure.STATUS, 503, 1e8), DeliveryState.PENDING, 86_400, 86_400),
    ],
)
def test_what_follows_from_an_attempt(
    tries: int, result: AttemptResult, state: DeliveryState, low_s: float, high_s: float
) -> None:
    for jitter, delay_s in ((0.0, low_s), (1.0, high_s)):
        step = after_attempt(tries, result, jitter)
        assert step.state is state
        assert step.delay_s == pytest.approx(delay_s)
